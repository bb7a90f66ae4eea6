import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.rollout.comparison import (
    EXCESSES,
    MOST,
    Comparison,
    Limit,
    SampleRatio,
    Wager,
    limit_factors,
    paired_bets,
    separate_bets,
    waiting,
)  # fmt: skip

shares = st.floats(0.001, 0.999)


@given(st.floats(0.0, 1.0), shares, st.floats(0.0, 1.0), st.booleans(), st.floats(0.0, 1.0))
def test_no_outcome_ever_bankrupts_a_bet(margin, weight, centre, theirs, x):
    z = (x - centre) / weight if theirs else (centre - x) / (1.0 - weight)
    assert all(1.0 + b * (z - margin) > 0.0 for b in separate_bets(margin, weight, centre))
    assert all(1.0 + b * (sign - margin) > 0.0 for b in paired_bets(margin) for sign in (-1, 0, 1))
    assert all(f > 0.0 for f in limit_factors(margin, x))


@given(st.floats(0.0, 1.0), shares, st.floats(0.0, 0.99), st.floats(0.0, 1.0))
def test_at_the_limit_of_what_is_allowed_a_separate_bet_gains_nothing(margin, weight, centre, rate):
    """The mean factor is 1 when the candidate's rate is the champion's plus the margin, whatever the rate is."""
    champion, candidate = rate * (1.0 - margin), rate * (1.0 - margin) + margin
    for bet in separate_bets(margin, weight, centre):
        mean = 0.0
        for arm_chance, own, sign in ((weight, candidate, 1.0), (1.0 - weight, champion, -1.0)):
            for x, chance in ((1.0, own), (0.0, 1.0 - own)):
                mean += arm_chance * chance * (1.0 + bet * (sign * (x - centre) / arm_chance - margin))
        assert mean == pytest.approx(1.0)


@given(shares)
def test_at_the_limit_of_what_is_allowed_a_limit_gains_nothing(bound):
    hits, misses = limit_factors(bound, 1.0), limit_factors(bound, 0.0)
    mean = [bound * hit + (1.0 - bound) * miss for hit, miss in zip(hits, misses, strict=True)]
    assert mean == pytest.approx([1.0] * len(EXCESSES))


@given(shares)
def test_at_the_configured_weight_the_sample_ratio_gains_nothing(weight):
    got = [SampleRatio().observe(arm, weight).e_value for arm in ("candidate", "champion")]
    assert weight * got[0] + (1.0 - weight) * got[1] == pytest.approx(1.0)


def test_capital_is_one_at_the_start_and_what_waits_is_conserved():
    wager = Wager()
    assert wager.e_value == pytest.approx(1.0)
    for _ in range(500):
        wager = wager.after((1.0,) * len(EXCESSES), True)
    assert wager.e_value == pytest.approx(1.0)
    assert waiting(300) == pytest.approx(waiting(0) / 2)


def test_a_bound_of_zero_is_refuted_at_once_and_one_of_one_never():
    assert Limit(bound=0.0).observe(0.0).e_value == pytest.approx(1.0)
    refuted = Limit(bound=0.0).observe(1.0)
    assert refuted.e_value > 1e6 and max(refuted.wager.capitals) <= MOST
    assert Limit(bound=1.0).observe(1.0).e_value == pytest.approx(1.0)


def test_capitals_stay_finite_numbers():
    test = Comparison(margin=0.0)
    for _ in range(3_000):
        test = test.paired(0.0, 1.0)
    assert test.wager.capitals[-1] == MOST
    assert msgspec.json.decode(msgspec.json.encode(test), type=Comparison) == test


def until(test, draw, most=20_000):
    """How many of the candidate's outcomes a difference takes to an e-value of 100; None if it does not."""
    for _ in range(most):
        test = draw(test)
        if test.e_value >= 100.0:
            return test.candidate.n
    return None


def test_what_turns_bad_late_is_found_about_as_fast_as_what_is_bad_at_once():
    def late(begin, seed):
        chance, seen = random.Random(seed), [0]

        def draw(test):
            seen[0] += 1
            bad = chance.random() < (0.05 if seen[0] <= begin else 0.3)
            return test.paired(float(chance.random() < 0.05), float(bad))

        return until(Comparison(margin=0.0), draw) - begin

    def median(begin):
        return sorted(late(begin, seed) for seed in range(9))[4]

    assert median(0) < 80
    assert median(2_000) < 140


def test_an_outage_of_both_arms_is_no_evidence():
    chance, test, most = random.Random(1), Comparison(margin=0.0), 0.0
    for n in range(6_000):
        rate = 0.5 if 2_000 < n < 3_000 else 0.01
        arm = "candidate" if chance.random() < 0.1 else "champion"
        test = test.separate(arm, float(chance.random() < rate), 0.1)
        most = max(most, test.e_value)
    assert most < 20.0


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_a_candidate_as_bad_as_allowed_is_seldom_found_worse(paired, margin):
    found = 0
    for seed in range(150):
        chance, test = random.Random(seed), Comparison(margin=margin)

        def draw(test, chance=chance):
            champion, candidate = float(chance.random() < 0.1), float(chance.random() < 0.1 + margin)
            if paired:
                return test.paired(champion, candidate)
            theirs = chance.random() < 0.25
            return test.separate("candidate" if theirs else "champion", candidate if theirs else champion, 0.25)

        for _ in range(400):
            test = draw(test)
            if test.e_value >= 5.0:  # level 0.2
                found += 1
                break
    assert found <= 0.2 * 150


def test_paired_evidence_takes_far_fewer_answers_than_separate():
    def course(paired):
        chance = random.Random(5)

        def draw(test):
            hard = chance.random()
            champion, candidate = float(hard < 0.10), float(hard < 0.15)  # wrong on the same inputs, and on more
            if paired:
                return test.paired(champion, candidate)
            theirs = chance.random() < 0.5
            return test.separate("candidate" if theirs else "champion", candidate if theirs else champion, 0.5)

        return until(Comparison(margin=0.0), draw)

    assert course(True) * 3 < course(False)


def test_non_inferiority_is_shown_within_the_margin_and_not_beyond():
    chance, good, bad = random.Random(2), Comparison(margin=0.1), Comparison(margin=0.1)
    for _ in range(400):
        good = good.paired(float(chance.random() < 0.1), float(chance.random() < 0.1))
        bad = bad.paired(float(chance.random() < 0.1), float(chance.random() < 0.25))
    assert good.shows(0.05) and not bad.shows(0.05)
    assert not good.anew().shows(0.05) and good.anew().wager == good.wager


def test_a_low_rate_is_shown_to_be_below_a_limit():
    test, n = Limit(bound=0.05), 0
    while not test.shows(0.05):
        test, n = test.observe(0.0), n + 1
    assert 50 < n < 90  # log(20) / -log(1 - 0.05) is 58


def test_a_split_that_is_not_the_configured_one_is_found_and_the_configured_one_is_not():
    def most(true, configured):
        chance, split, seen = random.Random(4), SampleRatio(), 0.0
        for _ in range(5_000):
            split = split.observe("candidate" if chance.random() < true else "champion", configured)
            seen = max(seen, split.e_value)
        return seen

    assert most(0.25, 0.25) < 100 < 1e6 < most(0.2, 0.25)
