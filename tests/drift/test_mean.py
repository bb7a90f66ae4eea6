import numpy as np
import pytest

from drift.mean import Mean


def mean(values, **more):
    return Mean(values=tuple(values), weights=(1.0,) * len(values), **more)


@pytest.mark.parametrize("anytime", [False, True])
def test_the_bounds_hold_as_often_as_they_say(anytime):
    chance, missed = np.random.default_rng(5), {"lower": 0, "upper": 0}
    for _ in range(100):
        found = mean(chance.beta(4.0, 2.0, 60), least=0.0, anytime=anytime)
        missed["lower"] += found.bound("lower", 0.95) > 4.0 / 6.0
        missed["upper"] += found.bound("upper", 0.95) < 4.0 / 6.0
    assert max(missed.values()) <= 11  # 5 are expected of an exact bound


def test_a_bound_narrows_with_rows_and_never_leaves_what_is_possible():
    chance = np.random.default_rng(1)
    few, many = (mean(chance.normal(0.5, 0.1, n)) for n in (10, 1_000))
    widths = [m.bound("upper", 0.95) - m.bound("lower", 0.95) for m in (few, many)]
    assert widths[0] > 5.0 * widths[1] > 0.0 and many.bound("lower", 0.95) < many.value < many.bound("upper", 0.95)
    assert mean([1.0, 0.9, 1.0]).bound("upper", 0.99) == 1.0


def test_equal_values_are_no_certainty():
    one = mean([1.0] * 20, least=0.0)
    assert one.bound("lower", 0.95) == pytest.approx(0.05 ** (1 / 20), abs=0.01)  # as twenty hits of twenty
    assert one.bound("upper", 0.95) == 1.0
    assert 0.0 < mean([0.2] * 20, least=0.0).breaks(0.5, "lower") < 1e-6
    assert mean([0.2] * 2, least=0.0).breaks(0.25, "lower") > 0.5


def test_nothing_and_one_row_say_nothing():
    none, single = mean([]), mean([0.9])
    assert (none.bound("lower", 0.95), none.bound("upper", 0.95)) == (-1.0, 1.0)
    assert (single.bound("lower", 0.95), single.bound("upper", 0.95)) == (-1.0, 1.0)
    assert none.breaks(0.5, "lower") == single.breaks(0.95, "lower") == 1.0
    assert none.needed(0.5, "lower", 0.95) is None


@pytest.mark.parametrize("anytime", [False, True])
def test_a_limit_is_broken_where_the_other_bound_crosses_it(anytime):
    found = mean(np.random.default_rng(2).normal(0.6, 0.1, 100).clip(-1, 1), anytime=anytime)
    for side, other in (("lower", "upper"), ("upper", "lower")):
        assert found.breaks(found.bound(other, 0.97), side) == pytest.approx(0.03, rel=0.01)
    assert min(found.breaks(0.5, "lower"), found.breaks(0.7, "upper")) > 0.99


def test_the_rows_that_are_needed_decide():
    chance = np.random.default_rng(3)
    found = mean(chance.normal(0.6, 0.2, 50).clip(-1, 1))
    wanted = found.needed(0.57, "lower", 0.95)
    assert wanted is not None and wanted > 50
    more = mean(tuple(found.values) * (2 * wanted // 50 + 1))
    assert found.bound("lower", 0.95) < 0.57 < more.bound("lower", 0.95)
    drop = mean(chance.normal(0.0, 0.2, 50).clip(-2, 2), least=-2.0, most=2.0, paired=True)
    assert drop.needed(0.05, "upper", 0.95) > drop.needed(0.1, "upper", 0.95)


def test_a_worse_row_never_makes_a_better_bound():
    perfect, almost = mean([1.0] * 100, least=0.0), mean([*[1.0] * 99, 0.9], least=0.0)
    assert perfect.bound("lower", 0.95) > almost.bound("lower", 0.95) > 0.96
    chance = np.random.default_rng(6)
    for values in ([1.0] * 50, chance.beta(6.0, 2.0, 50), chance.choice([0.8, 1.0], 50), chance.beta(50.0, 1.0, 50)):
        before = mean(values, least=0.0).bound("lower", 0.95)
        for at in range(50):
            for worse in (values[at] - 1e-6, 0.9 * values[at], 0.0):
                lowered = [*values[:at], worse, *values[at + 1 :]]
                assert mean(lowered, least=0.0).bound("lower", 0.95) <= before


@pytest.mark.parametrize("anytime", [False, True])
@pytest.mark.parametrize("spread", [0.0, 0.05, 0.3])
def test_with_the_rows_that_are_needed_an_equally_good_model_passes(spread, anytime):
    chance = np.random.default_rng(8)

    def drawn(n):
        return mean(chance.normal(0.0, spread, n), least=-2.0, most=2.0, paired=True, anytime=anytime)

    wanted = drawn(400).needed(0.1, "upper", 0.95, now=True)
    assert wanted is not None
    kept = sum(drawn(wanted).bound("upper", 0.95) <= 0.1 for _ in range(20))
    assert kept >= 16, "nine of ten are to be expected"
    assert drawn(wanted // 4).bound("upper", 0.95) > 0.1, "no fewer than are needed"


def test_weights_count():
    assert Mean(values=(0.0, 1.0), weights=(3.0, 1.0), least=0.0).value == 0.25
    with pytest.raises(ValueError, match="equal weight"):
        Mean(values=(0.0, 1.0), weights=(3.0, 1.0), anytime=True)
    with pytest.raises(ValueError, match="1 weights for 2 rows"):
        Mean(values=(0.0, 1.0), weights=(3.0,))
