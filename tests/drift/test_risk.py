import math

import numpy as np
import pytest

from drift.betting import FRACTIONS, EProcess
from drift.risk import MOST, RiskTest


def after(test, observations):
    for x in observations:
        test = test.observe(x)
    return test


def first_rejection(test, observations, alpha=0.05):
    for n, x in enumerate(observations, start=1):
        test = test.observe(x)
        if test.rejects(alpha):
            return n
    return None


def left(k):
    return 1 / (1 + math.log(k + 1))


def test_it_is_the_mixture_of_tests_that_begin_at_every_observation():
    x = np.random.default_rng(0).random(40)
    each = []
    for k in range(len(x)):
        one = EProcess(bound=0.4)
        for value in x[k:]:
            one = one.observe(value)
        each.append(one.e_value * (left(k) - left(k + 1)))
    expected = math.log(sum(each) + left(len(x)))
    assert after(RiskTest(bound=0.4), x).log_e_value == pytest.approx(expected)


def test_at_the_start_there_is_no_evidence():
    assert RiskTest(bound=0.2).log_e_value == pytest.approx(0.0)


@pytest.mark.parametrize("bound", [0.05, 0.75])
def test_a_share_at_the_bound_is_rejected_in_few_streams_however_long_they_are(bound):
    """Three standard errors above 5 % of 200 streams would be 10 %."""
    chance = np.random.default_rng(1)
    streams = (chance.random((200, 500)) < bound).astype(float)
    assert sum(first_rejection(RiskTest(bound=bound), s) is not None for s in streams) <= 0.1 * 200


def test_a_change_is_seen_soon_however_long_all_was_well():
    quiet = (np.random.default_rng(2).random(3_000) < 0.05).astype(float)
    test = after(RiskTest(bound=0.25), quiet)
    assert not test.rejects(0.05)
    assert first_rejection(test, [1.0] * 100) < 20
    plain = after(EProcess(bound=0.25), quiet)
    for _ in range(200):
        plain = plain.observe(1.0)
    assert not plain.rejects(0.05), "this is what the restarts are for"


def test_its_numbers_stay_finite():
    test = after(RiskTest(bound=0.001, n=10, log_capitals=(MOST - 1.0,) * len(FRACTIONS)), [1.0, 1.0])
    assert all(math.isfinite(c) for c in test.log_capitals) and test.rejects(1e-9)


@pytest.mark.parametrize("bad", [{"bound": 0.0}, {"bound": 1.0}, {"bound": 0.5, "log_capitals": (0.0,)}])
def test_what_is_no_test_is_refused(bad):
    with pytest.raises(ValueError, match=r"bound is|capitals for"):
        RiskTest(**bad)


def test_an_observation_is_a_share():
    with pytest.raises(ValueError, match="observation"):
        RiskTest(bound=0.5).observe(1.5)
