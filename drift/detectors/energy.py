"""The energy coefficient, for numeric columns: sees shifts and changes of spread."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from drift.detectors.contract import Detector, Floats, Gaps, normal_shift


def effects(sides: Gaps) -> Floats:
    """The energy distance as a share of the largest that values so far apart can have, in [0, 1].

    ``(2 E|X-Y| - E|X-X'| - E|Y-Y'|) / (2 E|X-Y|)``, which on a line is the area of the squared difference of the
    distribution functions over that of ``F + G - 2 F G``. G. J. Székely and M. L. Rizzo, "Energy statistics: a class
    of statistics based on distances" (Journal of Statistical Planning and Inference 143, 2013). Infinite values are
    left out.
    """
    finite = np.flatnonzero(np.isfinite(sides.points))
    if len(finite) < 2:
        return np.zeros(len(sides.window))
    steps = np.minimum(np.diff(sides.points[finite] / sides.scale), 1e12)
    f, g = sides.reference[:, finite[:-1]], sides.window[:, finite[:-1]]
    apart = (f + g - 2.0 * f * g) @ steps
    return np.asarray((f - g) ** 2 @ steps / np.where(apart > 0.0, apart, 1.0))


def least(distance: float) -> float:
    """The energy coefficient of a normal shift that has this Kolmogorov-Smirnov distance."""
    shift = normal_shift(distance)
    across = 2.0 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4.0)
    across += shift * (2.0 * NormalDist().cdf(shift / math.sqrt(2.0)) - 1.0)
    return 1.0 - 2.0 / math.sqrt(math.pi) / across


DETECTOR = Detector(
    name="energy", kind="numeric", unit="share of the largest energy distance", upper=1.0, least=least, measure=effects
)
