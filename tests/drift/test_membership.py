import numpy as np
import pytest

from drift.gap import Difference
from drift.gate import Criterion, assess
from drift.measured import Share
from drift.membership import Area, advantage, auc


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


def written_out(members, others):
    """The area and DeLong's variance of it as the paper has them: every pair, and the two covariances of one curve."""
    psi = [[1.0 if x < y else 0.5 if x == y else 0.0 for y in others] for x in members]
    m, n = len(members), len(others)
    theta = sum(map(sum, psi)) / (m * n)
    v10 = [sum(row) / n for row in psi]
    v01 = [sum(psi[i][j] for i in range(m)) / m for j in range(n)]
    s10 = sum((v - theta) ** 2 for v in v10) / (m - 1)
    s01 = sum((v - theta) ** 2 for v in v01) / (n - 1)
    return theta, s10 / m + s01 / n


@pytest.mark.parametrize(("seed", "digits"), [(0, None), (1, 1), (2, 0)])
def test_the_area_and_its_variance_are_those_of_another_implementation(seed, digits):
    from sklearn.metrics import roc_auc_score

    chance = np.random.default_rng(seed)
    members, others = chance.exponential(0.7, size=37), chance.exponential(1.3, size=58)
    if digits is not None:  # with ties
        members, others = members.round(digits), others.round(digits)
    area = Area.of(members.tolist(), others.tolist())
    theta, variance = written_out(members.tolist(), others.tolist())
    assert area.value == pytest.approx(theta) and area.deviation**2 == pytest.approx(variance)
    known = roc_auc_score([1] * 37 + [0] * 58, [*-members, *-others])
    assert area.value == pytest.approx(known) == auc(members.tolist(), others.tolist())
    assert area.bound("upper", 0.95) == pytest.approx(min(1.0, theta + 1.6448536 * variance**0.5))


def test_the_bounds_of_an_area_hold_it_as_often_as_they_say():
    """Members' losses are half of others' on average: the area is 2/3."""
    chance, missed, draws = np.random.default_rng(3), 0, 500
    for _ in range(draws):
        area = Area.of(chance.exponential(0.5, size=80).tolist(), chance.exponential(1.0, size=120).tolist())
        missed += not area.bound("lower", 0.95) <= 2 / 3 <= area.bound("upper", 0.95)
    assert 0.07 < missed / draws < 0.13  # a tenth on both sides, and 2.3 standard errors of so many draws


def test_an_area_without_any_spread_has_the_bounds_of_hoeffding():
    parted = Area.of([0.0] * 50, [1.0] * 200)
    assert parted.value == 1.0 and parted.deviation == 0.0 and parted.bound("upper", 0.95) == 1.0
    assert parted.bound("lower", 0.95) == pytest.approx(1.0 - (np.log(20) / 100) ** 0.5)
    assert (parted.breaks(0.8, "upper") <= 0.05) == (parted.bound("lower", 0.95) > 0.8)
    assert parted.needed(0.9, "upper", 0.95) == 749  # 250 times log(20) / (2 * 50 * 0.1^2)


def test_an_area_is_judged_as_any_measure_with_bounds():
    chance = np.random.default_rng(4)
    area = Area.of(chance.exponential(0.3, size=100).tolist(), chance.exponential(1.0, size=100).tolist())
    for limit, decision in ((0.6, "reject"), (0.95, "promote"), (area.value, "hold")):
        wanted = [Criterion(measure="auc", at_most=limit, confidence=0.95)]
        assert assess({"auc": area}, wanted).decision == decision
        assert (area.breaks(limit, "upper") <= 0.05) == (area.bound("lower", 0.95) >= limit)
    more = area.needed(0.85, "upper", 0.95)
    assert more > 0 and area.needed(area.value, "upper", 0.95) is None
    few = Area.of([1.0], [2.0, 3.0])
    assert (few.bound("lower", 0.95), few.bound("upper", 0.95), few.breaks(0.2, "upper")) == (0.0, 1.0, 1.0)
    assert np.isnan(Area.of([], []).value) and few.needed(0.5, "upper", 0.95) is None
