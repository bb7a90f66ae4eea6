import numpy as np
import pytest

from drift.gap import Difference
from drift.gate import Criterion, assess
from drift.measured import Share
from drift.membership import advantage, auc


def share(hits, n):
    return Share(hits=(True,) * hits + (False,) * (n - hits), weights=(1.0,) * n)


def test_losses_that_tell_nothing_gain_nothing_and_the_bound_is_broken_at_most_at_its_level():
    chance, wrong, draws = np.random.default_rng(0), 0, 400
    for _ in range(draws):
        members, others = chance.exponential(size=60).tolist(), chance.exponential(size=40).tolist()
        wrong += advantage(members, others).bound("lower", 0.95) > 0.0
    assert wrong / draws <= 0.075  # the level, and 2.3 standard errors of so many draws


def test_a_student_that_remembers_is_found_out():
    chance = np.random.default_rng(1)
    members, others = (0.1 * chance.exponential(size=200)).tolist(), chance.exponential(size=200).tolist()
    found = advantage(members, others)
    assert 0.3 < found.bound("lower", 0.95) < found.value < found.bound("upper", 0.95)
    assert auc(members, others) > 0.85
    wanted = [Criterion(measure="membership_advantage", at_most=0.2, confidence=0.95)]
    assert assess({"membership_advantage": found}, wanted).decision == "reject"


def test_the_threshold_is_chosen_on_other_rows_than_it_is_judged_on():
    members, others = [0.0, 5.0] * 30, [1.0, 5.0] * 30
    assert advantage(members, others).value == 0.0, "odd places alone are judged, and there nothing tells them apart"
    assert advantage([5.0, 0.0] * 30, [5.0, 1.0] * 30).value == 0.0, "nor is what they have known to the threshold"


def test_of_nothing_there_is_no_advantage_and_no_auc():
    assert auc([], [1.0]) is None and auc([1.0], [1.0]) == 0.5
    empty = advantage([], [])
    assert np.isnan(empty.value) and empty.bound("upper", 0.95) == 1.0
    assert assess({"a": empty}, [Criterion(measure="a", at_most=0.2, confidence=0.95)]).decision == "hold"


def test_a_difference_has_bounds_on_both_sides_of_it():
    made = Difference(one=share(30, 50), two=share(20, 50))
    assert made.value == pytest.approx(0.2) and made.n == 100
    assert made.bound("lower", 0.95) < 0.2 < made.bound("upper", 0.95)
    turned = Difference(one=share(20, 50), two=share(30, 50))
    assert turned.bound("lower", 0.95) == -made.bound("upper", 0.95)
    for limit in (0.0, 0.1, 0.3):
        assert (made.breaks(limit, "upper") <= 0.05) == (made.bound("lower", 0.95) > limit)
    assert made.breaks(0.5, "lower") <= 0.05 < made.breaks(0.3, "lower")
    more = made.needed(0.3, "upper", 0.95)
    grown = Difference(one=share(round(0.3 * more), more // 2), two=share(round(0.2 * more), more // 2))
    assert more > made.n and grown.bound("upper", 0.95) <= 0.305 and made.needed(0.1, "upper", 0.95) is None
