"""A rank test of location that suits the shape of the values, for numeric columns: sees shifts, of heavy tails, too."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from drift.detectors.contract import Detector, Floats, Gaps, normal_shift
from drift.detectors.scores import Scores, contrast, contrasts, normal, normal_function, quantiles

LIGHT, HEAVY = 3.1, 4.0
"""Widths of the middle 95 % in interquartile ranges between which tails are neither light nor heavy: 2.9 of a normal
column, 3.3 of a logistic, 4.3 of a Laplace, 5.3 of Student's t with two degrees of freedom."""

LOPSIDED = 0.4
"""The middle of the middle 95 %, from the median, in halves of its width: from here on the column is a skewed one."""


def effects(sides: Gaps) -> Floats:
    """The difference of the two sides' mean scores, without its sign, in standard deviations of the scores.

    The scores are the best ones for a shift of values of this tail: normal scores (B. L. van der Waerden, 1952) for
    light tails, ranks (F. Wilcoxon, 1945) for longer or skewed ones, and those of Student's t with two degrees of
    freedom for heavy ones. The choice looks at the pooled values alone, hence is the same for every split and costs the
    level nothing: R. V. Hogg, "Adaptive robust procedures" (Journal of the American Statistical Association 69, 1974).
    """
    return np.abs(contrasts(sides, chosen(sides)))


def chosen(sides: Gaps) -> Scores:
    """The scores for these values."""
    if not len(sides.points):
        return wilcoxon
    low, first, middle, third, high = quantiles(sides, (0.025, 0.25, 0.5, 0.75, 0.975))
    if not (third > first and np.isfinite(high - low)):
        return wilcoxon
    tail, lean = (high - low) / (third - first), (high + low - 2.0 * middle) / (high - low)
    if abs(lean) > LOPSIDED or LIGHT < tail <= HEAVY:
        return wilcoxon
    return student if tail > HEAVY else normal


def wilcoxon(ranks: Floats) -> Floats:
    """The ranks themselves."""
    return ranks


def student(ranks: Floats) -> Floats:
    """The optimal scores of a shift of Student's t with two degrees of freedom: far values hardly count."""
    return np.asarray((2.0 * ranks - 1.0) * np.sqrt(ranks * (1.0 - ranks)))


@lru_cache(maxsize=64)
def least(distance: float) -> float:
    """The effect on sides of one size of a normal shift that has this Kolmogorov-Smirnov distance."""
    shift = normal_shift(min(distance, 1.0 - 1e-6))
    x = np.linspace(-9.0, 9.0 + shift, 2_001)
    f, g = normal_function(x), normal_function(x - shift)
    return abs(float(contrast((f - g)[np.newaxis], (f + g) / 2.0, normal)[0]))


DETECTOR = Detector(
    name="rank_location",
    kind="numeric",
    unit="standard deviations of the scores",
    upper=np.inf,
    least=least,
    measure=effects,
)
