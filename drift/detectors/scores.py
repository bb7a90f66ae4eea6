"""Linear rank statistics: the difference of the two sides' mean scores, a score being a function of the pooled rank.

Which function decides which change is seen: J. Hájek, Z. Šidák and P. K. Sen, "Theory of Rank Tests" (1999).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from statistics import NormalDist

import numpy as np

from drift.detectors.contract import Floats, Gaps

Scores = Callable[[Floats], Floats]
"""From pooled ranks in (0, 1) to scores; their mean and unit do not matter."""

TABLE = 4_096


def contrasts(sides: Gaps, scores: Scores) -> Floats:
    """Shape (S,): the window's mean score minus the reference's, in standard deviations of the pooled scores.

    Tied values have the score of their middle rank.
    """
    return contrast(sides.gaps, sides.pooled, scores)


def contrast(gaps: Floats, pooled: Floats, scores: Scores) -> Floats:
    """Of distribution functions' ``gaps`` (S, T), window minus reference, where the pooled one is ``pooled`` (T,)."""
    shares = np.diff(pooled, prepend=0.0)
    there = shares > 0.0
    if there.sum() < 2:
        return np.zeros(len(gaps))
    found = scores((pooled - shares / 2.0)[there])
    weights = shares[there] / shares.sum()
    found = found - weights @ found
    deviation = float(np.sqrt(weights @ found**2))
    if not deviation > 0.0:
        return np.zeros(len(gaps))
    steps = np.zeros(len(pooled))
    steps[np.flatnonzero(there)[:-1]] = np.diff(found / deviation)
    return np.asarray(gaps @ -steps)  # Abel's sum: the last gap is none


def quantiles(sides: Gaps, at: tuple[float, ...]) -> Floats:
    """Of the pooled values."""
    return np.asarray(sides.points[np.minimum(np.searchsorted(sides.pooled, at), len(sides.points) - 1)])


def normal(ranks: Floats) -> Floats:
    """Quantiles of the normal distribution, interpolated between :data:`TABLE` ranks."""
    at, values = _table()
    return np.interp(ranks, at, values)


def normal_function(x: Floats) -> Floats:
    """The distribution function of the standard normal."""
    from scipy.special import ndtr

    return np.asarray(ndtr(x))


@cache
def _table() -> tuple[Floats, Floats]:
    at = (np.arange(TABLE) + 0.5) / TABLE
    return at, np.array([NormalDist().inv_cdf(p) for p in at])
