"""Gaps between groups: the stated rates hold by an exact sum over all outcomes, and every bound can fail."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.special import gammaln, xlog1py, xlogy

from drift.gap import EXACT_OUTCOMES, Gap, chance_of_as_little, score, upper_bound
from drift.gate import Criterion, assess
from drift.measured import Share

ALPHA = 0.05


def share(hits, n, weights=None, **more):
    made = tuple(float(w) for w in weights) if weights is not None else (1.0,) * n
    return Share(hits=(True,) * hits + (False,) * (n - hits), weights=made, **more)


def gap(*counts, **more):
    return Gap(groups=tuple(share(x, n, **more) for x, n in counts))


def chances(n, p):
    k = np.arange(n + 1.0)
    return np.exp(gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0) + xlogy(k, p) + xlog1py(n - k, -p))


def test_the_score_is_that_of_the_likelihood_where_the_difference_is_given():
    chance = np.random.default_rng(0)
    for _ in range(60):
        n1, n2 = (int(n) for n in chance.integers(2, 40, 2))
        x1, x2 = int(chance.integers(0, n1 + 1)), int(chance.integers(0, n2 + 1))
        margin = float(chance.uniform(-0.9, 0.9))
        second = np.linspace(max(0.0, -margin) + 1e-9, min(1.0, 1.0 - margin) - 1e-9, 20_001)
        first = second + margin
        likely = xlogy(x1, first) + xlog1py(n1 - x1, -first) + xlogy(x2, second) + xlog1py(n2 - x2, -second)
        p, q = first[likely.argmax()], second[likely.argmax()]
        z = (x1 / n1 - x2 / n2 - margin) / math.sqrt(p * (1 - p) / n1 + q * (1 - q) / n2)
        assert score((x1, n1, x2, n2), margin) == pytest.approx(z, rel=0.01, abs=0.01)


@pytest.mark.parametrize(("n1", "n2"), [(7, 7), (12, 5), (5, 20)])
def test_of_all_outcomes_at_most_the_level_has_a_bound_below_the_truth(n1, n2):
    bounds = np.array([[upper_bound((x1, n1, x2, n2), 1 - ALPHA) for x2 in range(n2 + 1)] for x1 in range(n1 + 1)])
    worst = max(
        float(chances(n1, p) @ (bounds < p - q) @ chances(n2, q))
        for p, q in product(np.linspace(0.0, 1.0, 33), repeat=2)
    )
    assert 0.02 < worst <= ALPHA


def rate(sizes, shares, wanted):
    """The chance of outcomes of groups with these true shares, exactly."""
    total = 0.0
    dealt = [chances(n, p) for n, p in zip(sizes, shares, strict=True)]
    for counts in product(*(range(n + 1) for n in sizes)):
        if wanted(counts):
            total += math.prod(float(d[x]) for d, x in zip(dealt, counts, strict=True))
    return total


@pytest.mark.parametrize("shares", [(0.9, 0.6, 0.75), (1.0, 0.7, 0.7), (0.3, 0.3, 0.0)])
def test_a_gap_as_large_as_the_limit_passes_at_most_at_the_level(shares):
    sizes, limit = (7, 6, 5), 0.3
    kept = {}

    def passes(counts):
        if counts not in kept:
            kept[counts] = gap(*zip(counts, sizes, strict=True)).bound("upper", 1 - ALPHA) <= limit
        return kept[counts]

    assert rate(sizes, shares, passes) <= ALPHA


@pytest.mark.parametrize("shares", [(0.7, 0.4, 0.55), (0.3, 0.0, 0.3), (0.5, 0.5, 0.5), (1.0, 0.7, 1.0)])
def test_a_gap_that_keeps_the_limit_is_called_broken_at_most_at_the_level(shares):
    sizes, limit = (7, 6, 5), 0.3
    broken = rate(sizes, shares, lambda counts: gap(*zip(counts, sizes, strict=True)).breaks(limit, "upper") <= ALPHA)
    assert broken <= ALPHA


def test_the_bounds_and_the_p_value_say_the_same():
    made = gap((45, 50), (30, 50), (40, 50))
    assert made.value == pytest.approx(0.3) and made.n == 150
    assert made.bound("lower", 0.95) < 0.3 < made.bound("upper", 0.95)
    for limit in (0.05, 0.1, 0.2, 0.3):
        p = made.breaks(limit, "upper")
        assert (p <= ALPHA) == (made.bound("lower", 0.95) > limit + 1e-5)
        assert (made.breaks(limit + 0.2, "lower") <= ALPHA) == (made.bound("upper", 0.95) < limit + 0.2)


def test_the_farthest_pair_decides_whatever_the_order():
    one, two = gap((45, 50), (30, 50), (40, 50)), gap((30, 50), (40, 50), (45, 50))
    assert one.bound("upper", 0.95) == two.bound("upper", 0.95) >= gap((45, 50), (40, 50)).bound("upper", 0.95)
    assert one.bound("upper", 0.95) >= gap((45, 50), (30, 50)).bound("upper", 0.95)


def test_many_rows_are_judged_by_the_score_and_agree_with_the_exact_test():
    exact, score_test = upper_bound((62, 69, 64, 69), 0.95), upper_bound((65, 72, 67, 72), 0.95)
    assert 70 * 70 <= EXACT_OUTCOMES < 73 * 73 and exact == pytest.approx(score_test, abs=0.02)
    assert chance_of_as_little((500, 1000, 500, 1000), 0.0) == pytest.approx(0.5)


def test_a_group_without_rows_shows_nothing():
    assert upper_bound((0, 0, 5, 5), 0.95) == 1.0 and math.isnan(gap((5, 5)).value)
    assert gap((5, 5)).bound("upper", 0.95) == 1.0 and gap((5, 5)).bound("lower", 0.95) == 0.0
    assert gap((5, 5)).breaks(0.1, "upper") == 1.0 and gap((5, 5)).needed(0.1, "upper", 0.95) is None


def test_weighted_rows_say_less_than_their_number():
    uneven = [1.0] * 45 + [9.0] * 5
    made = Gap(groups=(share(45, 50, uneven), share(45, 50)))
    equal = Gap(groups=(share(45, 50, [3.0] * 50), share(45, 50)))
    assert equal.bound("upper", 0.95) == gap((45, 50), (45, 50)).bound("upper", 0.95)
    assert made.value == pytest.approx(0.9 - 0.5) and made.bound("upper", 0.95) > made.value


def test_shares_that_are_looked_at_repeatedly_have_wider_bounds():
    hits = [tuple(i % every != 0 for i in range(50)) for every in (10, 5)]
    often = Gap(groups=tuple(Share(hits=h, weights=(1.0,) * 50, anytime=True) for h in hits))
    once = gap((45, 50), (40, 50))
    assert often.bound("upper", 0.95) > once.bound("upper", 0.95) and often.bound("lower", 0.95) == 0.0
    far = gap((50, 50), (0, 50), anytime=True)
    assert far.breaks(0.1, "upper") < 1e-3 and often.breaks(0.1, "upper") == 1.0
    assert often.needed(0.2, "upper", 0.95) > once.needed(0.2, "upper", 0.95)


def test_the_gate_passes_holds_and_rejects_by_a_gap():
    wanted = [Criterion(measure="accuracy_gap[x]", at_most=0.1, confidence=0.95, family="accuracy_gap")]

    def decision(*counts):
        return assess({"accuracy_gap[x]": gap(*counts)}, wanted)

    assert decision((470, 500), (470, 500)).decision == "promote"
    assert decision((95, 100), (60, 100)).decision == "reject"
    held = decision((47, 50), (46, 50))
    assert held.decision == "hold" and "more labels would decide" in held.reasons[0]
    more = held.findings[0].more + 100
    assert decision((round(0.94 * more / 2), more // 2), (round(0.92 * more / 2), more // 2)).decision == "promote"
    assert decision((45, 50), (40, 50)).findings[0].more is None
