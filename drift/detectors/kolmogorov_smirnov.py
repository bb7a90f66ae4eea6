"""The two-sample Kolmogorov-Smirnov distance, for numeric columns: sees shifts of the middle, whatever the scale."""

from __future__ import annotations

import numpy as np

from drift.detectors.contract import Detector, Floats, Gaps


def effects(sides: Gaps) -> Floats:
    """The largest difference of the two distribution functions, in [0, 1]; ties are exact.

    N. V. Smirnov, "Table for estimating the goodness of fit of empirical distributions" (Annals of Mathematical
    Statistics 19, 1948).
    """
    return np.asarray(np.abs(sides.window - sides.reference).max(axis=1, initial=0.0))


DETECTOR = Detector(
    name="kolmogorov_smirnov",
    kind="numeric",
    unit="largest difference of the distribution functions",
    upper=1.0,
    least=lambda distance: distance,
    measure=effects,
)
