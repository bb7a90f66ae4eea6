import numpy as np
import pytest
from scipy.special import ndtr

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


@pytest.mark.parametrize(("seed", "digits"), [(0, None), (1, 1), (2, 0)])
def test_the_area_is_that_of_another_implementation(seed, digits):
    from sklearn.metrics import roc_auc_score

    chance = np.random.default_rng(seed)
    members, others = chance.exponential(0.7, size=37), chance.exponential(1.3, size=58)
    if digits is not None:  # with ties
        members, others = members.round(digits), others.round(digits)
    area = Area.of(members.tolist(), others.tolist())
    known = roc_auc_score([1] * 37 + [0] * 58, [*-members, *-others])
    assert area.value == pytest.approx(known) == auc(members.tolist(), others.tolist())


def shifted(by):
    """Normal losses, members' smaller by so many deviations."""
    return lambda chance, m, n: (chance.normal(size=m), chance.normal(by, size=n))


def outlying(share):
    """Members with the least loss, but for a share of them, whose loss is the largest: the variance is its most."""
    return lambda chance, m, n: (np.where(chance.random(m) < share, 2.0, 0.0), np.ones(n))


def known_to_few(share):
    """The same of the others, a share of which has a smaller loss than any member."""
    return lambda chance, m, n: (np.ones(m), np.where(chance.random(n) < share, 0.0, 2.0))


@pytest.mark.parametrize(("m", "n"), [(50, 50), (100, 40), (40, 300)])
@pytest.mark.parametrize(
    ("drawn", "area"),
    [
        (shifted(0.0), 0.5), (shifted(1.0), float(ndtr(0.5**0.5))), (shifted(3.0), float(ndtr(3 * 0.5**0.5))),
        (outlying(0.05), 0.95), (outlying(0.02), 0.98), (known_to_few(0.05), 0.95), (known_to_few(0.02), 0.98),
        (outlying(0.98), 0.02),
    ],
)  # fmt: skip
def test_the_bounds_of_an_area_hold_it_as_often_as_they_say_near_perfect_separation_too(m, n, drawn, area):
    chance, draws, above, below = np.random.default_rng(3), 1000, 0, 0
    for _ in range(draws):
        members, others = drawn(chance, m, n)
        found = Area.of(members.tolist(), others.tolist())
        above += found.bound("lower", 0.95) > area
        below += found.bound("upper", 0.95) < area
    assert max(above, below) / draws <= 0.05 + 0.016, "the level, and 2.3 standard errors of so many draws"


def test_rows_that_are_parted_wholly_have_the_bound_of_a_share_without_a_failure():
    parted = Area.of([0.0] * 50, [1.0] * 200)
    assert parted.value == 1.0 and parted.bound("upper", 0.95) == 1.0
    assert parted.bound("lower", 0.95) == pytest.approx(0.05 ** (1 / 50))
    for limit in (0.8, 0.94, 0.945, 0.99):
        assert (parted.breaks(limit, "upper") <= 0.05) == (parted.bound("lower", 0.95) > limit)
    assert parted.breaks(0.8, "lower") == 1.0
    assert parted.needed(0.99, "upper", 0.95) == 5 * 299  # 0.99^299 is the first power below a twentieth
    turned = Area.of([1.0] * 50, [0.0] * 200)
    assert turned.value == 0.0 and turned.bound("upper", 0.95) == pytest.approx(1.0 - 0.05 ** (1 / 50))


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
    assert (few.bound("lower", 0.95), few.bound("upper", 0.95)) == (pytest.approx(0.05), 1.0)
    empty = Area.of([], [])
    assert np.isnan(empty.value) and empty.needed(0.5, "upper", 0.95) is None
    assert (empty.bound("lower", 0.95), empty.bound("upper", 0.95), empty.breaks(0.2, "upper")) == (0.0, 1.0, 1.0)
