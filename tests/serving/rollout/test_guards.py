import random

import msgspec
import pytest

from components.contracts.spec import RolloutPolicy
from serving.rollout import guards as g
from serving.rollout.evidence import Audited
from tests.serving.rollout.made import alone, pair

POLICY = RolloutPolicy()


def course(observations, policy=POLICY, most=5_000):
    """Feed observations until a guard objects: how many it took, and why; None for none."""
    guards = g.guards_of(policy)
    for n, seen in enumerate(observations, start=1):
        feed = g.audited if isinstance(seen, Audited) else g.answered
        guards = feed(guards, policy, seen)
        if reason := g.tripped(guards, policy):
            return n, reason
        if n == most:
            break
    return None, None


def both(champion, candidate, **fields):
    return Audited(id="i", champion=champion, candidate=candidate, weight=0.0, **fields)


def one(arm, bad, weight=0.2, **fields):
    return Audited(id="i", **{arm: bad}, weight=weight, **fields)


def test_nothing_seen_trips_nothing_and_the_budget_is_spent_once():
    guards = g.guards_of(POLICY)
    assert g.tripped(guards, POLICY) is None
    full = msgspec.structs.replace(
        POLICY, min_agreement=0.5, max_slowdown=1.0, max_churn=0.5, max_confidence_shift=0.1, max_entropy_shift=0.1
    )
    for policy in (POLICY, full):
        assessed = g.assess(g.guards_of(policy), policy)
        assert sum(a.share for a in assessed) == pytest.approx(1.0)
        assert [a.e_value for a in assessed] == pytest.approx([1.0] * len(assessed))
    assert {a.name for a in g.assess(g.guards_of(full), full)} == set(g.BUDGET)
    assert sum(g.slice_shares()) == pytest.approx(1.0)


def test_errors_beside_a_sound_champion_trip():
    n, why = course([pair(ok=False)] * 50)
    assert n <= 14 and f"errors: {n} of {n}" in why and "e-value" in why


def test_errors_in_the_canary_trip_after_a_few():
    n, why = course([alone("champion")] * 100 + [alone("candidate", ok=False)] * 20)
    assert 2 <= n - 100 <= 7 and "of the champion's 0 of 100" in why


def test_errors_of_both_arms_alike_blame_nobody():
    assert course([pair(ok=False, champion_ok=False)] * 300) == (None, None)
    chance = random.Random(0)
    arms = [alone("candidate" if chance.random() < 0.2 else "champion", ok=False) for _ in range(1_000)]
    assert course(arms) == (None, None)


def test_errors_below_the_limit_are_allowed_though_the_champion_has_none():
    chance = random.Random(0)
    seen = [
        alone(arm, ok=arm == "champion" or chance.random() > 0.004)
        for arm in (("candidate" if chance.random() < 0.5 else "champion") for _ in range(3_000))
    ]
    assert course(seen) == (None, None)


def test_a_failure_that_the_champion_answered_for_is_the_candidates():
    seen = alone("champion")
    seen = msgspec.structs.replace(seen, candidate=alone("candidate", ok=False).candidate)
    assert seen.given_to == "candidate" and not seen.paired
    n, why = course([alone("champion")] * 50 + [seen] * 20)
    assert n - 50 <= 7 and "errors" in why


def test_a_request_of_unknown_weight_compares_nothing():
    seen = msgspec.structs.replace(pair(ok=False), weight=None)
    assert course([seen] * 300) == (None, None)


def canary_pair(turn, weight=0.05, **more):
    """A pair of the canary, given to ``turn``."""
    return msgspec.structs.replace(pair(**more), arm=turn, turn=turn, weight=weight)


@pytest.mark.parametrize("weight", [0.05, None])
def test_a_pair_of_the_canary_counts_whoever_was_served(weight):
    for turn in ("champion", "candidate"):
        n, why = course([canary_pair(turn, weight, ok=False)] * 50)
        assert n <= 14 and f"errors: {n} of {n}" in why
    assert course([canary_pair("champion", weight, ok=False, champion_ok=False)] * 300) == (None, None)


def test_pairs_find_errors_in_a_fraction_of_the_candidates_requests():
    chance, counts = random.Random(3), []
    for pairs in (True, False):
        turns = ["candidate" if chance.random() < 0.05 else "champion" for _ in range(5_000)]
        failed = [chance.random() < 0.1 for _ in turns]
        if pairs:
            n, _ = course(canary_pair(t, ok=not bad) for t, bad in zip(turns, failed, strict=True))
        else:
            n, _ = course(alone(t, 0.05, ok=t == "champion" or not bad) for t, bad in zip(turns, failed, strict=True))
        counts.append(turns[:n].count("candidate"))
    assert counts[0] * 3 < counts[1]


def test_the_second_answer_of_a_canarys_pair_is_late_and_no_slower_for_that():
    policy = msgspec.structs.replace(POLICY, max_slowdown=1.0)
    assert course([canary_pair("champion", ms=500.0)] * 500, policy) == (None, None)
    assert course([canary_pair("candidate", champion_ms=500.0)] * 500, policy) == (None, None)
    mixed = [canary_pair("champion" if k % 20 else "candidate", ms=500.0) for k in range(2_000)]
    n, why = course(mixed, policy)
    assert n <= 400 and why.startswith("latency")


def test_the_split_is_judged_by_whose_turn_it_was():
    guards, turns = g.guards_of(POLICY), ("champion", "champion", "candidate")
    for turn in turns:
        guards = g.answered(guards, POLICY, canary_pair(turn, 0.3))
    assert (guards.split.arms.n, guards.split.arms.bad) == (3, 1)


def test_slow_answers_trip_unless_the_champion_is_as_slow():
    n, why = course([pair(ms=51.0)] * 50)
    assert n <= 16 and "took more than 50 ms" in why
    assert course([pair(ms=51.0, champion_ms=60.0)] * 300) == (None, None)


def latencies(chance, factor, n, weight):
    for _ in range(n):
        base = chance.lognormvariate(1.0, 0.5)
        if weight == 0.0:
            yield pair(champion_ms=base, ms=factor * chance.lognormvariate(1.0, 0.5))
        elif chance.random() < weight:
            yield alone("candidate", weight, ms=factor * base)
        else:
            yield alone("champion", weight, ms=base)


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_a_slowdown_is_judged_by_the_champions_own_quantiles(weight):
    policy = msgspec.structs.replace(POLICY, max_slowdown=1.1)
    n, why = course(latencies(random.Random(1), 2.0, 2_000, weight), policy)
    assert n <= 400 and why.startswith("latency")
    assert course(latencies(random.Random(1), 2.0, 2_000, weight)) == (None, None)  # the policy does not compare
    assert course(latencies(random.Random(1), 1.1, 2_000, weight), policy) == (None, None)


def test_permuted_classes_trip_in_shadow_and_in_the_canary():
    n, why = course([both(False, True)] * 30)
    assert n <= 12 and f"disagreement with the teacher: {n} of {n} of the candidate, of the champion's 0 of {n}" in why
    n, why = course([one("champion", i % 20 == 0) for i in range(120)] + [one("candidate", True)] * 30)
    assert n - 120 <= 10 and "disagreement" in why


def test_the_truth_counts_as_the_teacher_does():
    n, why = course([both(False, True, by="truth")] * 40)
    assert n <= 14 and "wrong by the truth" in why


def test_a_candidate_that_is_bad_in_one_slice_trips_there():
    chance = random.Random(2)
    policy = msgspec.structs.replace(POLICY, max_extra_disagreement=0.1, max_slice_disagreement=0.1)
    seen = [both(False, (i := chance.randrange(10)) == 7, slice=f"class {i}") for _ in range(2_000)]
    n, why = course(seen, policy)
    assert n <= 250 and "in slice 'class 7'" in why


def test_more_slices_than_are_followed_share_one():
    guards = g.guards_of(POLICY)
    for i in range(g.SLICES + 20):
        guards = g.audited(guards, POLICY, both(False, False, slice=str(i)))
    assert len(guards.slices) == g.SLICES + 1 and guards.slices[g.OTHER].candidate.n == 20


def test_a_floor_on_agreement_holds_though_the_champion_knows_nothing():
    assert course([both(True, True)] * 300) == (None, None)
    floor = msgspec.structs.replace(POLICY, min_agreement=0.5)
    n, why = course([both(True, True)] * 300, floor)
    assert n <= 15 and "must agree on 0.5" in why


def test_churn_and_shifts_trip_where_the_policy_limits_them():
    policy = msgspec.structs.replace(POLICY, max_churn=0.2, max_confidence_shift=0.1, max_entropy_shift=0.1)
    n, why = course([pair(label="b")] * 50, policy)
    assert n <= 10 and "churn" in why
    sure = [
        msgspec.structs.replace(seen, champion=msgspec.structs.replace(seen.champion, confidence=0.9, entropy=0.1))
        for seen in [pair(confidence=0.4, entropy=1.5)] * 200
    ]
    n, why = course(sure, policy)
    assert (n <= 60 and "less sure than the champion" in why) or "more entropy" in why
    assert course(sure) == (None, None)


def test_what_turns_bad_after_a_thousand_good_answers_is_found():
    n, _ = course([both(False, False)] * 1_000 + [both(False, True)] * 50)
    assert n - 1_000 <= 25


def test_several_guards_that_each_see_something_trip_together_sooner():
    errors = course([pair(ok=False)] * 50)[0]
    slow = course([pair(ms=60.0)] * 50)[0]
    together = course([pair(ok=False, ms=60.0)] * 50)[0]
    assert together <= min(errors, slow)


def test_what_is_not_shown_is_named_and_begins_anew_with_a_step():
    guards = g.guards_of(POLICY)
    assert g.shown(guards, POLICY, True) == ["errors", "latency", "agreement with the teacher"]
    for _ in range(500):
        guards = g.answered(guards, POLICY, pair())
        guards = g.audited(guards, POLICY, both(False, False))
    assert g.shown(guards, POLICY, True) == []
    assert g.shown(g.anew(guards), POLICY, False) == ["errors", "latency"]


def test_keys_that_come_again_say_nothing_of_the_split():
    guards = g.guards_of(POLICY)
    for _ in range(300):
        guards = g.answered(guards, POLICY, alone("candidate", 0.2, repeat=True))
    assert g.mismatch(guards, POLICY) is None
    for _ in range(30):
        guards = g.answered(guards, POLICY, alone("candidate", 0.2))
    assert "given 30 of 30 keys, 6.0 were expected" in g.mismatch(guards, POLICY)
