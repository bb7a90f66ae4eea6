"""The change of the share of missing values, for numeric columns; categories count a missing value as one of them."""

from __future__ import annotations

import numpy as np

from drift.detectors.contract import Detector, Floats, Gaps


def effects(sides: Gaps) -> Floats:
    """The difference of the two shares of missing values, without its sign, in [0, 1]."""
    return np.asarray(np.abs(sides.missing_window - sides.missing_reference))


DETECTOR = Detector(
    name="missing_share",
    kind="numeric",
    unit="difference of shares",
    upper=1.0,
    least=lambda distance: distance,
    measure=effects,
)
