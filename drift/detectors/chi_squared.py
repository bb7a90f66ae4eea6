"""Cramér's V of Pearson's chi-squared statistic, for categorical columns: sees new categories in a small window."""

from __future__ import annotations

import math

import numpy as np

from drift.detectors.contract import Counts, Detector, Floats


def statistics(sides: Counts) -> Floats:
    """Pearson's chi-squared statistic of the 2 x K table, 0 or more."""
    total = sides.reference + sides.window
    size, window = total.sum(axis=1, keepdims=True), sides.window.sum(axis=1, keepdims=True)
    gap = sides.window - total * window / size
    terms = gap**2 / np.where(total > 0.0, total, 1.0)
    return np.asarray(terms.sum(axis=1) * (size**2 / (window * (size - window)))[:, 0])


def effects(sides: Counts) -> Floats:
    """Cramér's V, ``sqrt(chi-squared / N)``, times ``N / (2 sqrt(n m))``, 0 or more.

    The factor makes small changes of the mix count the same whatever the sizes n and m of the sides; for equal ones it
    is 1, and 1 is then reached where the sides have no category in common. H. Cramér, "Mathematical Methods of
    Statistics" (1946), chapter 21.
    """
    n, m = sides.reference.sum(axis=1), sides.window.sum(axis=1)
    return np.asarray(np.sqrt(statistics(sides) * (n + m) / (4.0 * n * m)))


DETECTOR = Detector(
    name="chi_squared",
    kind="categorical",
    unit="Cramér's V of sides of one size",
    upper=math.inf,
    least=lambda distance: math.sqrt(2.0 * math.log(2.0)) * distance,
    measure=effects,
)
