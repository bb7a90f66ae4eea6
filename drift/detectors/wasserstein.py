"""The first Wasserstein distance in standard deviations, for numeric columns: sees shifts and a few far values."""

from __future__ import annotations

import math

import numpy as np

from drift.detectors.contract import Detector, Floats, Gaps, normal_shift


def effects(sides: Gaps) -> Floats:
    """The area between the two distribution functions over the pooled values' standard deviation, 0 or more.

    How far the values have to be moved, on the mean, to turn one sample into the other: L. V. Kantorovich (1942).
    Infinite values are left out, since nothing can be moved there.
    """
    finite = np.flatnonzero(np.isfinite(sides.points))
    if len(finite) < 2:
        return np.zeros(len(sides.window))
    steps = np.diff(sides.points[finite] / sides.scale)
    gaps = np.abs(sides.window[:, finite[:-1]] - sides.reference[:, finite[:-1]])
    return np.asarray(gaps @ np.minimum(steps, 1e12))


def least(distance: float) -> float:
    """The Wasserstein distance of a shift that has this Kolmogorov-Smirnov distance."""
    shift = normal_shift(distance)
    return shift / math.sqrt(1.0 + shift**2 / 4.0)


DETECTOR = Detector(
    name="wasserstein",
    kind="numeric",
    unit="standard deviations of the pooled values",
    upper=math.inf,
    least=least,
    measure=effects,
)
