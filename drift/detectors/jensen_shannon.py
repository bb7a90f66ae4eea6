"""The Jensen-Shannon distance, for categorical columns: sees changes of the large shares."""

from __future__ import annotations

import numpy as np

from drift.detectors.contract import Counts, Detector, Floats


def effects(sides: Counts) -> Floats:
    """Distance of the two category mixes, in [0, 1]; a category that one side lacks counts like any other.

    The square root of the divergence in bits, which makes it a metric: J. Lin, "Divergence measures based on the
    Shannon entropy" (IEEE Transactions on Information Theory 37, 1991).
    """
    p, q = sides.shares
    divergence = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return np.asarray(np.sqrt(np.clip(divergence, 0.0, 1.0)))


def _entropy(shares: Floats) -> Floats:
    terms = np.where(shares > 0, -shares * np.log2(np.where(shares > 0, shares, 1.0)), 0.0)
    return np.asarray(terms.sum(axis=1))


DETECTOR = Detector(
    name="jensen_shannon",
    kind="categorical",
    unit="root of the divergence in bits",
    upper=1.0,
    least=lambda distance: distance,
    measure=effects,
)
