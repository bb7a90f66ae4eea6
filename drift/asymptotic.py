"""P-values of large samples in closed form, from sketches: where permuting all rows would cost too much.

A numeric column is tested twice: the Kolmogorov-Smirnov distance at the edges of the bins against the limiting law
(conservative, since the bins can hide a part of it), and Pearson's chi-squared over :data:`CELLS` cells of about equal
weight, which sees spread and tails. A categorical column is tested by chi-squared over its categories, those that are
expected too rarely counted in groups. A column's p-value is the smallest of its tests times their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from drift.detectors import chi_squared, kolmogorov_smirnov
from drift.detectors.contract import Counts
from drift.sketch import LEAST_EXPECTED, Sketch

CELLS = 32


def p_value(reference: Sketch, window: Sketch, name: str) -> float:
    """The p-value of one column, in [0, 1]."""
    if name in reference.grid.texts:
        return _chi_squared(reference.mix(name, window))
    before, now = reference.counts[name], window.counts[name]
    tests = [
        _kolmogorov(
            float(kolmogorov_smirnov.effects(reference.gaps(name, window))[0]), before[:-1].sum(), now[:-1].sum()
        ),
        _chi_squared(_cells(before[:-1], now[:-1])),
    ]
    if before[-1] + now[-1]:
        tests.append(_chi_squared(_sides([before[:-1].sum(), before[-1]], [now[:-1].sum(), now[-1]])))
    return min(1.0, len(tests) * min(tests))


def _kolmogorov(distance: float, reference: int, window: int) -> float:
    from scipy.special import kolmogorov

    if not reference or not window:
        return 1.0
    return float(kolmogorov(math.sqrt(reference * window / (reference + window)) * distance))


def _chi_squared(sides: Counts) -> float:
    """The p-value over cells that both sides together have at least :data:`LEAST_EXPECTED` times on the smaller."""
    from scipy.special import chdtrc

    n, m = sides.reference.sum(), sides.window.sum()
    if not n or not m:
        return 1.0
    expected = (sides.reference + sides.window)[0] * min(n, m) / (n + m)
    rare = expected < LEAST_EXPECTED
    if rare.sum() > 1:
        sides = Counts(reference=_merged(sides.reference, rare), window=_merged(sides.window, rare))
    free = int((sides.reference + sides.window > 0).sum()) - 1
    return float(chdtrc(free, chi_squared.statistics(sides)[0])) if free else 1.0


def _merged(counts: npt.NDArray[np.float64], rare: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    return np.append(counts[:, ~rare], counts[:, rare].sum(axis=1, keepdims=True), axis=1)


def _sides(reference: Sequence[int], window: Sequence[int]) -> Counts:
    return Counts(
        reference=np.asarray(reference, dtype=np.float64)[np.newaxis],
        window=np.asarray(window, dtype=np.float64)[np.newaxis],
    )


def _cells(reference: npt.NDArray[np.int64], window: npt.NDArray[np.int64]) -> Counts:
    total = np.cumsum(reference + window)
    cell = np.minimum((total - 1) * CELLS // max(1, int(total[-1])), CELLS - 1)
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    sides = _sides(np.add.reduceat(reference, starts).tolist(), np.add.reduceat(window, starts).tolist())
    there = (sides.reference + sides.window)[0] > 0
    return Counts(reference=sides.reference[:, there], window=sides.window[:, there])
