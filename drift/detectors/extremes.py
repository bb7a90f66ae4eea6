"""A rank test of the ends, for numeric columns: sees a few rows that lie beyond nearly all others, on either side."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from drift.detectors.contract import Detector, Floats, Gaps
from drift.detectors.scores import contrast, contrasts

POWER = 3
"""Of an exponential's score: four fifths of what the third power varies by come from the last percent of the ranks."""


def effects(sides: Gaps) -> Floats:
    """The larger of the upper and the lower end's difference of mean scores, in their standard deviations; at least 0.

    A score is a power of an exponential distribution's quantile; the quantile itself (I. R. Savage, "Contributions to
    the theory of rank order statistics", Annals of Mathematical Statistics 27, 1956) weighs the end of a side less.
    More rows at an end of the window count, fewer do not.
    """
    up, down = contrasts(sides, upper), contrasts(sides, lower)
    return np.asarray(np.maximum(np.maximum(up, down), 0.0))


def upper(ranks: Floats) -> Floats:
    """Scores that rise towards the largest rank."""
    return np.asarray((-np.log1p(-ranks)) ** POWER)


def lower(ranks: Floats) -> Floats:
    """Scores that rise towards the smallest rank."""
    return np.asarray((-np.log(ranks)) ** POWER)


@lru_cache(maxsize=64)
def least(distance: float) -> float:
    """The effect on sides of one size where this share of the window, its distance, has moved beyond all others."""
    pooled = np.linspace(0.0, 1.0, 4_097)[1:]
    beyond = min(max(distance, 0.0), 1.0)
    window = np.where(pooled < 1.0 - beyond / 2.0, pooled * (1.0 - beyond) / (1.0 - beyond / 2.0), 2.0 * pooled - 1.0)
    return max(0.0, float(contrast((2.0 * (window - pooled))[np.newaxis], pooled, upper)[0]))


DETECTOR = Detector(
    name="extremes",
    kind="numeric",
    unit="standard deviations of the scores",
    upper=math.inf,
    least=least,
    measure=effects,
    handicap=1.2,
)
