import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

from drift.ratio import Ratio, RatioLoss


def f1(true, said, *, macro=False, weights=None):
    tops, bottoms = 2.0 * (true & said), true.astype(float) + said
    if not macro:
        tops, bottoms = tops.sum(1, keepdims=True), bottoms.sum(1, keepdims=True)
    w = [1.0] * len(true) if weights is None else weights
    return Ratio(tops=tuple(map(tuple, tops.tolist())), bottoms=tuple(map(tuple, bottoms.tolist())), weights=tuple(w))


def drawn(n, wrong, seed=0, classes=4):
    chance = np.random.default_rng(seed)
    true = chance.random((n, classes)) < 0.3
    return true, true ^ (chance.random((n, classes)) < wrong)


def test_it_is_the_f1_of_scikit_learn():
    true, said = drawn(80, 0.2)
    assert f1(true, said).value == pytest.approx(f1_score(true, said, average="micro"))
    assert f1(true, said, macro=True).value == pytest.approx(f1_score(true, said, average="macro"))
    weights = np.random.default_rng(1).random(80)
    found = f1(true, said, weights=weights.tolist()).value
    assert found == pytest.approx(f1_score(true, said, average="micro", sample_weight=weights))


@pytest.mark.parametrize("n", [30, 100, 300])
def test_where_all_is_right_the_bound_is_about_the_exact_one_of_a_share(n):
    true, _ = drawn(n, 0.0)
    whole = f1(true, true)
    assert whole.value == 1.0 and whole.bound("upper", 0.9) == 1.0
    assert whole.bound("lower", 0.9) == pytest.approx(0.1 ** (1 / whole.n), abs=0.003)
    loss = RatioLoss(candidate=whole, champion=whole)
    assert loss.value == 0.0 and 0.0 < loss.bound("upper", 0.9) < 2.5 / whole.n and loss.bound("lower", 0.9) < 0.0


@pytest.mark.parametrize("macro", [False, True])
@pytest.mark.parametrize("wrong", [0.02, 0.1])
def test_bounds_miss_as_rarely_as_they_say(macro, wrong):
    truth = f1(*drawn(100_000, wrong, seed=1), macro=macro).value
    samples = [f1(*drawn(60, wrong, seed=s), macro=macro) for s in range(200, 500)]
    assert np.mean([s.bound("lower", 0.9) > truth for s in samples]) < 0.13
    assert np.mean([s.bound("upper", 0.9) < truth for s in samples]) < 0.13


def test_a_loss_is_paired():
    true, said = drawn(200, 0.15)
    same = RatioLoss(candidate=f1(true, said), champion=f1(true, said))
    other = RatioLoss(candidate=f1(true, said), champion=f1(true, drawn(200, 0.15, seed=0)[0] ^ drawn(200, 0.15, 5)[1]))
    assert same.value == 0.0 and same.bound("upper", 0.95) < 0.03
    assert other.n == 196 and other.bound("lower", 0.95) < other.value < other.bound("upper", 0.95)


def test_what_breaks_a_limit_and_how_many_rows_would_decide():
    true, said = drawn(100, 0.3)
    poor = f1(true, said)
    assert poor.breaks(0.9, "lower") < 0.001 and poor.breaks(0.2, "lower") > 0.99
    assert poor.needed(poor.value - 0.01, "lower", 0.95) > 1_000 > poor.needed(0.2, "lower", 0.95)
    lost = RatioLoss(candidate=poor, champion=f1(true, true))
    assert lost.breaks(0.1, "upper") < 0.001 and lost.breaks(0.9, "upper") > 0.99
    assert lost.needed(0.01, "upper", 0.95) > lost.needed(0.1, "upper", 0.95) > 0
    assert lost.needed(0.0, "upper", 0.95) is None


def test_nothing_has_no_ratio():
    empty = np.zeros((5, 3), dtype=bool)
    nothing = f1(empty, empty)
    assert math.isnan(nothing.value) and [nothing.bound(side, 0.9) for side in ("lower", "upper")] == [0.0, 1.0]
    assert math.isnan(Ratio(tops=(), bottoms=(), weights=()).value)
    one = f1(np.ones((1, 2), dtype=bool), np.ones((1, 2), dtype=bool))
    assert one.bound("lower", 0.9) == 0.0
    with pytest.raises(ValueError, match="counts of 2 rows"):
        Ratio(tops=((1.0,),), bottoms=((1.0,),), weights=(1.0, 1.0))


def test_a_class_that_nobody_has_counts_for_nothing():
    true, said = drawn(50, 0.1, classes=2)
    more = [np.hstack([x, np.zeros((50, 1), dtype=bool)]) for x in (true, said)]
    assert f1(*more, macro=True).value == f1(true, said, macro=True).value


def spans(there, right):
    """One true span in each row that has one, which is found or is not, and nothing in the others."""
    found = [bool(a and b) for a, b in zip(there, right, strict=True)]
    bottoms = tuple((float(a) + float(b),) for a, b in zip(there, found, strict=True))
    return Ratio(tops=tuple((2.0 * b,) for b in found), bottoms=bottoms, weights=(1.0,) * len(found))


@pytest.mark.parametrize(("dense", "level"), [(0.03, 0.75), (0.1, 0.9), (0.1, 0.75)])
def test_bounds_miss_as_rarely_as_they_say_where_most_rows_are_empty(dense, level):
    """Of 400 samples 5 % and three deviations of chance may be beyond a bound of 95 %."""
    chance, truth, missed = np.random.default_rng(7), 2.0 * level / (1.0 + level), np.zeros(4)
    for _ in range(400):
        there, mine, theirs = (chance.random(200) < p for p in (dense, level, level))
        one = spans(there, mine)
        lost = RatioLoss(candidate=one, champion=spans(there, theirs))
        missed += [
            one.bound("lower", 0.95) > truth, one.bound("upper", 0.95) < truth,
            lost.bound("lower", 0.95) > 0.0, lost.bound("upper", 0.95) < 0.0,
        ]  # fmt: skip
    assert missed.max() <= 20 + 3 * math.sqrt(400 * 0.05 * 0.95)


@pytest.mark.parametrize("rows", [1, 3, 10])
def test_rows_with_nothing_below_change_nothing(rows):
    bare, padded = (spans([True] * rows + [False] * n, [True] * (rows + n)) for n in (0, 190))
    losses = [RatioLoss(candidate=ratio, champion=ratio) for ratio in (bare, padded)]
    for one, other in ((bare, padded), losses):
        assert one.n == other.n == rows
        assert one.bound("lower", 0.95) == other.bound("lower", 0.95)
        assert one.bound("upper", 0.95) == other.bound("upper", 0.95)
    assert bare.bound("lower", 0.95) <= 0.05 ** (1 / rows) + 0.005  # the exact one of a share


def test_a_loss_counts_the_rows_that_either_side_has_something_of():
    nothing, one = ((0.0,), (0.0,)), ((0.0,), (1.0,))
    candidate = Ratio(tops=((0.0,),) * 4, bottoms=(*nothing, *one), weights=(1.0,) * 4)
    champion = Ratio(tops=((0.0,),) * 4, bottoms=(*one, *one), weights=(1.0,) * 4)
    assert (candidate.n, champion.n, RatioLoss(candidate=candidate, champion=champion).n) == (1, 2, 2)
