import random

import pytest

from components.contracts.spec import RolloutPolicy
from serving.rollout import guards as g

POLICY = RolloutPolicy()


def feed(champion=(), candidate=(), pairs=()):
    guards = g.guards_of(POLICY)
    for bad in champion:
        guards = g.audited(guards, POLICY, bad, None)
    for bad in candidate:
        guards = g.audited(guards, POLICY, None, bad)
    for pair in pairs:
        guards = g.audited(guards, POLICY, *pair)
    return guards


def test_nothing_seen_trips_nothing():
    assert g.tripped(g.guards_of(POLICY), POLICY) is None


def test_one_early_error_is_no_proof_and_a_few_are():
    guards = g.answered(g.guards_of(POLICY), POLICY, False, 1.0)
    assert g.tripped(guards, POLICY) is None
    guards = g.answered(guards, POLICY, False, 1.0)
    assert "errors: 2 of 2" in (g.tripped(guards, POLICY) or "")


def test_slow_answers_trip():
    guards = g.guards_of(POLICY)
    while not (reason := g.tripped(guards, POLICY)):
        guards = g.answered(guards, POLICY, True, POLICY.slow_ms + 1)
    assert guards.slowness.n <= 6 and reason.startswith("slowness") and "50 ms" in reason


def test_an_allowance_of_zero_is_refuted_by_one_breach_and_stays_finite():
    policy = RolloutPolicy(max_error_rate=0.0)
    guards = g.answered(g.guards_of(policy), policy, False, 1.0)
    assert g.tripped(guards, policy)
    assert all(abs(c) < 1e6 for c in guards.errors.log_capitals)


def test_permuted_classes_trip_after_a_handful_of_canary_audits():
    champion = [i % 20 == 0 for i in range(120)]
    for n in range(1, 20):
        if reason := g.tripped(feed(champion, [True] * n), POLICY):
            break
    assert n <= 7
    assert f"in the canary: {n} of {n}, the champion 6 of 120" in reason


def test_permuted_classes_trip_beside_the_champion():
    for n in range(1, 30):
        if reason := g.tripped(feed(pairs=[(False, True)] * n), POLICY):
            break
    assert n <= 12 and "beside the champion" in reason


def test_without_the_champions_rate_the_canary_is_not_judged():
    assert g.tripped(feed(candidate=[True] * 500), POLICY) is None


def test_the_bound_is_an_upper_limit_and_tightens():
    few, many = feed([False] * 16), feed([False] * 2_000)
    assert 1.0 > few.separate.bound > many.separate.bound > POLICY.max_extra_disagreement
    assert few.looks == 1 and many.looks == 7


def test_the_upper_limit_is_exact():
    assert g.upper_limit(g.Tally(n=10, bad=0), 0.05) == pytest.approx(1 - 0.05**0.1)
    assert g.upper_limit(g.Tally(n=3, bad=3), 0.05) == 1.0
    assert g.upper_limit(g.Tally(), 0.05) == 1.0


@pytest.mark.parametrize("paired", [True, False])
def test_a_candidate_as_bad_as_allowed_is_seldom_taken_back(paired):
    policy = RolloutPolicy(alpha=0.2, max_extra_disagreement=0.05)
    tripped = 0
    for seed in range(100):
        chance = random.Random(seed)
        guards = g.guards_of(policy)
        for _ in range(300):
            champion, candidate = chance.random() < 0.1, chance.random() < 0.15
            for pair in [(champion, candidate)] if paired else [(champion, None), (None, candidate)]:
                guards = g.audited(guards, policy, *pair)
            if g.tripped(guards, policy):
                tripped += 1
                break
    assert tripped <= 12
