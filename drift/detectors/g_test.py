"""The likelihood-ratio (G) statistic as an uncertainty coefficient, for categorical columns."""

from __future__ import annotations

import numpy as np

from drift.detectors.contract import Counts, Detector, Floats


def statistics(sides: Counts) -> Floats:
    """The likelihood-ratio statistic of the 2 x K table, 0 or more, in nats: twice its mutual information times N."""
    n, m = sides.reference.sum(axis=1), sides.window.sum(axis=1)
    rows = _log_sum(sides.reference) + _log_sum(sides.window)
    margins = _log_sum(sides.reference + sides.window) + n * np.log(n) + m * np.log(m)
    return np.asarray(np.maximum(2.0 * (rows - margins + (n + m) * np.log(n + m)), 0.0))


def _log_sum(counts: Floats) -> Floats:
    return np.asarray((counts * np.log(np.where(counts > 0.0, counts, 1.0))).sum(axis=1))


def effects(sides: Counts) -> Floats:
    """How much of the entropy of "reference or window?" the category tells, in [0, 1]: Theil's coefficient.

    H. Theil, "On the estimation of relationships involving qualitative variables" (American Journal of Sociology 76,
    1970).
    """
    n, m = sides.reference.sum(axis=1), sides.window.sum(axis=1)
    p = m / (n + m)
    entropy = -(p * np.log(p) + (1.0 - p) * np.log(1.0 - p))
    return np.asarray(np.minimum(statistics(sides) / (2.0 * (n + m) * entropy), 1.0))


DETECTOR = Detector(
    name="g_test",
    kind="categorical",
    unit="share of the side's entropy that the category tells",
    upper=1.0,
    least=lambda distance: distance**2,
    measure=effects,
)
