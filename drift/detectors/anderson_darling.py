"""The two-sample Anderson-Darling coefficient, for numeric columns: sees tails and spread as well as shifts."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from drift.detectors.contract import Detector, Floats, Gaps, normal_shift
from drift.detectors.scores import normal_function


def effects(sides: Gaps) -> Floats:
    """The root of the squared gap weighted by ``1 / (H (1 - H))``, as a share of that of disjoint samples: in [0, 1].

    ``H`` is the pooled distribution function. The rank-only weight makes tails count as much as the middle, whatever
    the scale: F. W. Scholz and M. A. Stephens, "K-sample Anderson-Darling tests" (Journal of the American Statistical
    Association 82, 1987).
    """
    h = sides.pooled[:-1]
    if not len(h):
        return np.zeros(len(sides.window))
    spread = h * (1.0 - h)  # none before the first value and behind the last, where bins may be empty
    weights = np.diff(sides.pooled, prepend=0.0)[:-1] / np.where(spread > 0.0, spread, np.inf)
    area = (sides.window[:, :-1] - sides.reference[:, :-1]) ** 2 @ weights
    share = np.clip(sides.share, 1e-9, 1.0 - 1e-9)
    return np.asarray(np.minimum(np.sqrt(area / _disjoint(share)), 1.0))


def _disjoint(share: Floats) -> Floats:
    rest = 1.0 - share
    return (-np.log(share) - rest) / rest**2 + (-np.log(rest) - share) / share**2


@lru_cache(maxsize=64)
def least(distance: float) -> float:
    """The coefficient, for sides of one size, of a normal shift that has this Kolmogorov-Smirnov distance."""
    shift = normal_shift(distance)
    x = np.linspace(-9.0, 9.0 + shift, 2_001)
    f, g = normal_function(x), normal_function(x - shift)
    h = np.clip((f + g) / 2.0, 1e-12, 1.0 - 1e-12)
    area = float(((f - g) ** 2 / (h * (1.0 - h)) * np.gradient(h)).sum())
    return min(1.0, math.sqrt(area / float(_disjoint(np.array(0.5)))))


DETECTOR = Detector(
    name="anderson_darling",
    kind="numeric",
    unit="share of the distance of disjoint samples",
    upper=1.0,
    least=least,
    measure=effects,
)
