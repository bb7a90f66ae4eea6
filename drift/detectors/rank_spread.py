"""A rank test of spread, for numeric columns: sees values that lie farther from the middle, or nearer to it."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from drift.detectors.contract import Detector, Floats, Gaps
from drift.detectors.scores import contrast, contrasts, normal, normal_function

WIDEST = 1e6


def effects(sides: Gaps) -> Floats:
    """The difference of the two sides' mean scores, without its sign, in standard deviations of the scores.

    The scores are squared normal ones, the best for a normal column's change of scale: J. Klotz, "Nonparametric tests
    for scale" (Annals of Mathematical Statistics 33, 1962).
    """
    return np.abs(contrasts(sides, squares))


def squares(ranks: Floats) -> Floats:
    """Squared normal scores."""
    return np.asarray(normal(ranks) ** 2)


@lru_cache(maxsize=64)
def least(distance: float) -> float:
    """The effect on sides of one size of a normal column's widening that has this Kolmogorov-Smirnov distance."""
    ratio = widening(distance)
    x = np.concatenate([np.linspace(-9.0, 9.0, 2_001) * s for s in (1.0, ratio)])
    x.sort()
    f, g = normal_function(x), normal_function(x / ratio)
    return abs(float(contrast((f - g)[np.newaxis], (f + g) / 2.0, squares)[0]))


def widening(distance: float) -> float:
    """The ratio of two normal columns' deviations whose distance this is: at most 0.5, where one is a million times."""
    low, high = 0.0, math.log(WIDEST)
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _apart(math.exp(middle)) < distance else (low, middle)
    return math.exp(high)


def _apart(ratio: float) -> float:
    """Kolmogorov-Smirnov distance of two centred normal columns: the densities cross at ``x``."""
    if ratio <= 1.0 + 1e-9:
        return 0.0
    x = math.sqrt(2.0 * math.log(ratio) / (1.0 - ratio**-2))
    return (math.erf(x / math.sqrt(2.0)) - math.erf(x / ratio / math.sqrt(2.0))) / 2.0


DETECTOR = Detector(
    name="rank_spread",
    kind="numeric",
    unit="standard deviations of the scores",
    upper=math.inf,
    least=least,
    measure=effects,
    handicap=1.0,
)
