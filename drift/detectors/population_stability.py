"""The population stability index, for categorical columns."""

from __future__ import annotations

import math

import numpy as np

from drift.detectors.contract import Counts, Detector, Floats

PRIOR = 0.5
"""Added to each count of a category, on both sides: an unseen category has a small share and not none, and how small
depends on how many rows did not show it (Krichevsky and Trofimov, IEEE Transactions on Information Theory 27, 1981).
A fixed tiny share would make the index depend on that constant alone."""


def effects(sides: Counts) -> Floats:
    """``sum (q - p) log(q / p)`` over the categories, in nats, 0 or more; S. Kullback and R. A. Leibler (1951)."""
    p, q = Counts(reference=sides.reference + PRIOR, window=sides.window + PRIOR).shares
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=1))


DETECTOR = Detector(
    name="population_stability",
    kind="categorical",
    unit="nats",
    upper=math.inf,
    least=lambda distance: 8.0 * math.log(2.0) * distance**2,
    measure=effects,
)
