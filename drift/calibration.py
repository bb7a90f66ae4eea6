"""Thresholds by resampling: how large the statistics of several columns get where nothing has changed.

Reference and window are pooled, and their rows are dealt out again into a reference and a window of the same sizes,
``resamples`` times. If nothing has changed, the true split is one like any other, so a permutation test of all columns
together holds its level exactly, at any sample size, with ties, rare and never seen categories and dependent columns
(drawing pairs from the reference alone does not: with 200 unevenly frequent categories it alarms on 90 % of unchanged
windows, since it cannot draw a category that the reference happens to lack).

The columns are judged together by the largest standardised statistic: the single-step max-T method of P. H. Westfall
and S. S. Young, "Resampling-Based Multiple Testing" (1993). Its smallest p-value is 1 / (resamples + 1) whatever the
number of columns, where Bonferroni over *C* columns would ask for *C* times as many resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLOCK = 2_000_000
"""Cells (splits times rows) in memory at a time: about 20 MB with what a detector makes of them."""

SLACK = 1e-9
"""Differences of statistics below this are rounding: ties of the true split with a resampled one count as ties."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Per column, shape (C,): p-values adjusted for all columns, and limits; ``p <= alpha`` where beyond the limit."""

    p_values: npt.NDArray[np.float64]
    limits: npt.NDArray[np.float64]


def least_resamples(alpha: float) -> int:
    """The fewest resamples with which a p-value can be as small as ``alpha``."""
    return math.ceil(1.0 / alpha - SLACK) - 1


def splits(reference: int, window: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.bool_]]:
    """The true split of ``reference`` rows followed by ``window`` rows, then random ones: True is in the window.

    Yields blocks of shape (S, reference + window) whose S sum to ``1 + resamples``.
    """
    chance = np.random.default_rng([seed, reference, window])
    true = np.arange(reference + window) >= reference
    yield true[np.newaxis]
    size = max(1, BLOCK // len(true))
    for start in range(0, resamples, size):
        block = np.broadcast_to(true, (min(size, resamples - start), len(true)))
        yield chance.permuted(block, axis=1)


def calibrate(statistics: npt.NDArray[np.float64], alpha: float) -> Calibration:
    """Judge the columns' statistics, shape (1 + resamples, C): first those of the true split, then the resampled ones.

    The chance that any column of an unchanged window gets a p-value of at most ``alpha`` is at most ``alpha``.

    Raises:
        ValueError: there are too few resamples for ``alpha``.

    """
    total = len(statistics)
    rank = math.floor(alpha * total + SLACK)
    if rank < 1:
        least = least_resamples(alpha)
        raise ValueError(f"{total - 1} resamples cannot show a rate of {alpha}: at least {least} are needed")
    means, deviations = statistics.mean(axis=0), statistics.std(axis=0)
    scale = np.where(deviations > SLACK, deviations, 1.0)
    standardised = (statistics - means) / scale
    largest = standardised[1:].max(axis=1)
    reached = (largest[:, np.newaxis] >= standardised[0] - SLACK).sum(axis=0)
    limit = np.sort(largest)[-rank]
    return Calibration(p_values=(1 + reached) / total, limits=means + limit * scale)
