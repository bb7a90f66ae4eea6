"""How far a share differs between groups of rows, with bounds: two independent shares, or the farthest of many.

That the gap between groups is *small* is shown where it is for every pair of them by itself, which needs no correction
(R. L. Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24, 1982). That some pair is
far apart is a claim about the worst of many, and every pair has its part of the level (Bonferroni).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
import numpy.typing as npt

from drift.measured import Share
from drift.paired import MOST_LABELS, PRICE_OF_LOOKS, Side
from drift.quality import effective_size, standard_error

Floats = npt.NDArray[np.float64]
Counts = tuple[int, int, int, int]
"""Hits and rows of a first group, hits and rows of a second one."""

EXACT_OUTCOMES = 5_000
"""Pairs of counts up to which tests are exact; the score test is close by then (about 70 rows a group)."""

NUISANCE = 65
"""Shares of the second group at which an exact test looks for the largest chance."""

ABOVE = tuple(sorted({*(0.001 * i for i in range(1, 51)), *(0.005 * i for i in range(11, 31))}))
"""How far above a bound differences are looked at, too: an exact p-value need not fall all the way, and what is refuted
at one difference may not be at a larger one."""

HALVINGS = 20
"""Halvings of an interval of differences: a bound is exact to 2e-6 there."""

SLACK = 1e-9


def score(counts: Counts, margin: float) -> float:
    """The score statistic of the hypothesis that the first share less the second is ``margin``, in (-1, 1).

    C. P. Farrington & G. Manning, "Test statistics and sample size formulae for comparative binomial trials with null
    hypothesis of non-zero risk difference or non-unity relative risk" (Statistics in Medicine 9, 1990).
    """
    x1, n1, x2, n2 = counts
    return float(_scores(np.array([float(x1)]), n1, np.array([float(x2)]), n2, margin)[0])


def _scores(x1: Floats, n1: int, x2: Floats, n2: int, margin: float) -> Floats:
    p1, p2, ratio = x1 / n1, x2 / n2, n2 / n1
    a = 1.0 + ratio
    b = -(1.0 + ratio + p1 + ratio * p2 + margin * (ratio + 2.0))
    c = margin**2 + margin * (2.0 * p1 + ratio + 1.0) + p1 + ratio * p2
    d = -p1 * margin * (1.0 + margin)
    v = (b / (3.0 * a)) ** 3 - b * c / (6.0 * a * a) + d / (2.0 * a)
    u = np.copysign(np.sqrt(np.maximum((b / (3.0 * a)) ** 2 - c / (3.0 * a), 0.0)), v)
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = np.where(np.abs(u) > 0.0, v / u**3, 1.0)
    first = 2.0 * u * np.cos((math.pi + np.arccos(np.clip(turn, -1.0, 1.0))) / 3.0) - b / (3.0 * a)
    first = np.clip(first, max(0.0, margin), min(1.0, 1.0 + margin))
    second = np.clip(first - margin, 0.0, 1.0)
    variance = first * (1.0 - first) / n1 + second * (1.0 - second) / n2
    distance = p1 - p2 - margin
    with np.errstate(divide="ignore", invalid="ignore"):
        z = distance / np.sqrt(variance)
    return np.where(variance > SLACK, z, np.where(np.abs(distance) < SLACK, 0.0, np.copysign(np.inf, distance)))


@lru_cache(maxsize=4096)
def chance_of_as_little(counts: Counts, margin: float) -> float:
    """The p-value of the hypothesis that the first share exceeds the second by at least ``margin``.

    Exact up to :data:`EXACT_OUTCOMES` pairs of counts: the largest chance, over all shares of the second group, of a
    score as low as the observed one (I. S. F. Chan & Z. Zhang, "Test-based exact confidence intervals for the
    difference of two binomial proportions", Biometrics 55, 1999); beyond them that of the score test.
    """
    if margin >= 1.0:
        return 0.0
    if margin <= -1.0:
        return 1.0
    x1, n1, x2, n2 = counts
    if not n1 or not n2:
        return 1.0
    if (n1 + 1) * (n2 + 1) > EXACT_OUTCOMES:
        return 0.5 * math.erfc(-score(counts, margin) / math.sqrt(2.0))
    scores = _scores(np.arange(n1 + 1.0)[:, np.newaxis], n1, np.arange(n2 + 1.0)[np.newaxis, :], n2, margin)
    tail = (scores <= scores[x1, x2] + SLACK).astype(np.float64)
    shares = np.linspace(max(0.0, -margin), min(1.0, 1.0 - margin), NUISANCE)
    chances = (_chances(n1, np.clip(shares + margin, 0.0, 1.0)) * (tail @ _chances(n2, shares))).sum(axis=0)
    return min(1.0, float(chances.max()))


def _chances(n: int, shares: Floats) -> Floats:
    """The chance of every count of ``n`` rows, at every share: (n + 1, shares)."""
    from scipy.special import gammaln, xlog1py, xlogy

    k = np.arange(n + 1.0)[:, np.newaxis]
    ways = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    found: Floats = np.exp(ways + xlogy(k, shares) + xlog1py(n - k, -shares))
    return found


@lru_cache(maxsize=4096)
def upper_bound(counts: Counts, confidence: float) -> float:
    """The largest difference of the first share and the second that is not refuted at level ``1 - confidence``.

    In [-1, 1]; 1 where one of the groups has no row.

    >>> round(upper_bound((45, 50, 45, 50), 0.95), 3)
    0.112
    """
    x1, n1, x2, n2 = counts
    if not n1 or not n2:
        return 1.0
    level = 1.0 - confidence
    low, high = max(-1.0, x1 / n1 - x2 / n2), 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if chance_of_as_little(counts, middle) <= level else (middle, high)
    if (n1 + 1) * (n2 + 1) > EXACT_OUTCOMES:
        return high
    kept = (high + over + 0.001 for over in reversed(ABOVE) if chance_of_as_little(counts, high + over) > level)
    return min(1.0, next(kept, high))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The share of ``one`` less that of ``two``, of different rows, in [-1, 1]; NaN where either has none."""

    one: Share
    two: Share

    @property
    def n(self) -> int:
        """Rows of both."""
        return self.one.n + self.two.n

    @property
    def value(self) -> float:
        """The observed difference."""
        return self.one.value - self.two.value

    def bound(self, side: Side, confidence: float) -> float:
        """One-sided bound."""
        return _upper(self.one, self.two, confidence) if side == "upper" else -_upper(self.two, self.one, confidence)

    def breaks(self, limit: float, side: Side) -> float:
        """The p-value of the hypothesis that the limit is kept: small where the difference is shown to break it."""
        return _p(self.two, self.one, -limit) if side == "upper" else _p(self.one, self.two, limit)

    def needed(self, limit: float, side: Side, confidence: float, *, of: int = 1, now: bool = False) -> int | None:
        """Rows, in the present proportion, with which this difference, if it stays, is shown to keep the limit."""
        distance = limit - self.value if side == "upper" else self.value - limit
        return _rows(self.n, _variance(self.one) + _variance(self.two), distance, confidence, self.one.anytime)


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The largest difference between the shares of any two ``groups``, in [0, 1]; NaN of fewer than two.

    Weighted rows count as so many equal ones as say as much; fractions of rows are rounded to the disadvantage of what
    is to be shown. Shares that are looked at repeatedly have a confidence sequence each, at half of the level.
    """

    groups: tuple[Share, ...]

    @property
    def n(self) -> int:
        """Rows, of all groups together."""
        return sum(share.n for share in self.groups)

    @property
    def value(self) -> float:
        """The largest observed difference."""
        values = [share.value for share in self.groups]
        return max(values) - min(values) if len(values) > 1 and all(map(math.isfinite, values)) else math.nan

    def bound(self, side: Side, confidence: float) -> float:
        """One-sided: ``upper`` over all pairs without correction, ``lower`` with each pair's part of the level."""
        if len(self.groups) < 2:
            return 1.0 if side == "upper" else 0.0
        if side == "upper":
            return max(0.0, *(_upper(one, two, confidence) for one, two in self._pairs()))
        level = (1.0 - confidence) / len(self._pairs())
        return max(0.0, *(-_upper(two, one, 1.0 - level) for one, two in self._pairs()))

    def breaks(self, limit: float, side: Side) -> float:
        """The p-value of the hypothesis that the limit is kept: small where the gap is shown to break it."""
        if len(self.groups) < 2:
            return 1.0
        if side == "lower":
            return max(_p(one, two, limit) for one, two in self._pairs())
        return min(1.0, len(self._pairs()) * min(_p(two, one, -limit) for one, two in self._pairs()))

    def needed(self, limit: float, side: Side, confidence: float, *, of: int = 1, now: bool = False) -> int | None:
        """Rows, in the groups' present proportions, with which this gap, if it stays, is shown to keep the limit.

        None where it does not keep it: then there is none that would, or it will be shown to be broken.
        """
        if len(self.groups) < 2:
            return None
        distance = limit - self.value if side == "upper" else self.value - limit
        widest = max(sum(_variance(share) for share in pair) for pair in self._pairs())
        return _rows(self.n, widest, distance, confidence, any(share.anytime for share in self.groups))

    def _pairs(self) -> list[tuple[Share, Share]]:
        return list(permutations(self.groups, 2))


def _upper(one: Share, two: Share, confidence: float) -> float:
    if one.anytime or two.anytime:
        half = (1.0 + confidence) / 2.0
        return one.bound("upper", half) - two.bound("lower", half)
    return upper_bound(_counts(one, two), confidence)


def _p(one: Share, two: Share, margin: float) -> float:
    """The p-value of the hypothesis that ``one`` exceeds ``two`` by at least ``margin``."""
    if not (one.anytime or two.anytime):
        return chance_of_as_little(_counts(one, two), margin)
    low, high = math.log(2.0), 60.0  # the level at which the sequences' bound crosses the margin
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        below = _upper(one, two, 1.0 - math.exp(-middle)) < margin
        low, high = (middle, high) if below else (low, middle)
    return math.exp(-low) if low > math.log(2.0) else 1.0


def _counts(one: Share, two: Share) -> Counts:
    """Whole rows, rounded so that the first share looks larger and the second smaller."""
    n1, n2 = _size(one), _size(two)
    x1 = min(n1, math.ceil(one.value * n1 - SLACK)) if n1 else 0
    return x1, n1, math.floor(two.value * n2 + SLACK) if n2 else 0, n2


def _size(share: Share) -> int:
    """Equal rows that say as much of a share as its weighted ones (as :func:`drift.quality.weighted_proportion`)."""
    if not share.n or len(set(share.weights)) == 1:
        return share.n
    size, value = effective_size(share.weights), share.value
    deviation = standard_error(np.asarray(share.hits, dtype=np.float64), np.asarray(share.weights), value)
    if deviation > 0.0:
        size = min(size, value * (1.0 - value) / deviation**2)
    return math.floor(size + SLACK)


def _variance(share: Share) -> float:
    """Of the share; of one that is 0 or 1 as if there were half a row more on each side."""
    size = max(1, _size(share))
    smooth = (share.value * size + 0.5) / (size + 1.0)
    return smooth * (1.0 - smooth) / size


def _rows(n: int, variance: float, distance: float, confidence: float, anytime: bool) -> int | None:
    """Rows at which a normal bound is no farther than ``distance``, where ``n`` have this variance."""
    from scipy.special import ndtri

    if not distance > 0.0:
        return None
    total = (PRICE_OF_LOOKS if anytime else 1.0) * n * variance * (float(ndtri(confidence)) / distance) ** 2
    return max(n + 1, math.ceil(total)) if total <= MOST_LABELS else None
