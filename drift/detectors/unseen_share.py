"""The share of rows whose category the reference lacks, for categorical columns: sees new categories among many."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from drift.detectors.contract import Counts, Detector, Floats
from drift.detectors.jensen_shannon import effects as jensen_shannon


def effects(sides: Counts) -> Floats:
    """The window's share of rows in categories without any row of the reference, in [0, 1].

    Chi-squared spreads its power over all categories; this has all of it here. Dealing out the pooled rows says how
    often a split leaves the reference without a category that occurs so often: of *k* rows that are all in a window of
    *m* among *n* reference rows, about ``(m / (n + m))^k`` of the splits. So one row of a new category is no drift in
    a window that is a tenth of its reference, and three are; the handicap keeps splits that have the one from hiding
    what chi-squared sees beside it.
    """
    return np.asarray((sides.window * (sides.reference == 0.0)).sum(axis=1) / sides.window.sum(axis=1))


@lru_cache(maxsize=64)
def least(distance: float) -> float:
    """The share of a new category that makes this Jensen-Shannon distance."""
    low, high = 0.0, 1.0
    for _ in range(50):
        share = (low + high) / 2.0
        sides = Counts(reference=np.array([[1.0, 0.0]]), window=np.array([[1.0 - share, share]]))
        low, high = (share, high) if jensen_shannon(sides)[0] < distance else (low, share)
    return high


DETECTOR = Detector(
    name="unseen_share",
    kind="categorical",
    unit="share of rows",
    upper=1.0,
    least=least,
    measure=effects,
    handicap=1.0,
)
