"""The Wasserstein distance of values without their far tails, for numeric columns: sees any change of the bulk."""

from __future__ import annotations

import math

import numpy as np

from drift.detectors import wasserstein
from drift.detectors.contract import Detector, Floats, Gaps
from drift.detectors.scores import quantiles

REACH = 2.0
"""Interquartile ranges from the median, 2.7 deviations of a normal column, beyond which values count as lying there:
in heavy tails, where a few far ones would be all that a distance is made of, it then still sees shifts."""


def effects(sides: Gaps) -> Floats:
    """The area between the distribution functions over the pooled deviation, both of clipped values; 0 or more.

    Unclipped, and as :mod:`drift.detectors.wasserstein`, where half of the values or more are equal.
    """
    if not len(sides.points):
        return np.zeros(len(sides.window))
    first, middle, third = quantiles(sides, (0.25, 0.5, 0.75))
    reach = REACH * (third - first)
    if not (reach > 0.0 and math.isfinite(reach)):
        return wasserstein.effects(sides)
    clipped = np.clip((sides.points - middle) / reach, -1.0, 1.0)
    shares = np.diff(sides.pooled, prepend=0.0)
    deviation = math.sqrt(float(shares @ clipped**2) - float(shares @ clipped) ** 2)
    return np.asarray(np.abs(sides.gaps) @ (np.diff(clipped, append=clipped[-1]) / deviation))


DETECTOR = Detector(
    name="clipped_wasserstein",
    kind="numeric",
    unit="standard deviations of the clipped pooled values",
    upper=math.inf,
    least=wasserstein.least,
    measure=effects,
)
