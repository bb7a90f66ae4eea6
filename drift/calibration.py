"""Thresholds by resampling: how large the statistics of several columns get where nothing has changed.

Reference and window are pooled, and their rows are dealt out again into a reference and a window of the same sizes,
``resamples`` times. If nothing has changed, the true split is one like any other, so a permutation test of all columns
together holds its level exactly, at any sample size, with ties, rare and never seen categories and dependent columns
(drawing pairs from the reference alone does not: with 200 unevenly frequent categories it alarms on 90 % of unchanged
windows, since it cannot draw a category that the reference happens to lack). Where neighbouring rows depend on each
other, blocks of neighbours are dealt instead of rows (:mod:`drift.block_length`); the level is then approximate.

The columns are judged together by the largest statistic: the single-step max-T method of P. H. Westfall and
S. S. Young, "Resampling-Based Multiple Testing" (1993). Its smallest p-value is 1 / (resamples + 1) whatever the number
of columns, where Bonferroni over *C* columns would ask for *C* times as many resamples. For statistics of different
shapes to weigh the same, each is first made normal by its own mean, deviation and skewness over the splits: the
cube-root transform of E. B. Wilson and M. M. Hilferty (PNAS 17, 1931). These moments treat the true split like all
others, and the transform keeps the order, so that the level stays exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

BLOCK = 2_000_000
"""Cells (splits times rows) in memory at a time: about 20 MB with what a detector makes of them."""

KEPT = 8_000_000
"""Cells (one byte each) of a deal that is kept for the next window of the same sizes; larger ones are dealt anew."""

SLACK = 1e-9
"""Differences of statistics below this are rounding: ties of the true split with a resampled one count as ties."""

TRIMMED = 0.01
"""Share of each statistic's largest values, at least one, that its moments leave out: a true split that is far away
must not widen the scale that it is measured by."""

MOST_SKEW = 2.5
"""The cube-root transform loses its order beyond a skewness of about 3."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What resampling says of statistics (K,) in columns (C,).

    ``p_values`` (K,) are adjusted for all statistics, ``limits`` (K,) what they exceed with ``p <= alpha``, and
    ``scores`` (K,) normal scores by which statistics of different units compare. ``column_p_values`` (C,) are for each
    column alone, over all of its statistics.
    """

    p_values: Floats
    limits: Floats
    scores: Floats
    column_p_values: Floats


def least_resamples(alpha: float) -> int:
    """The fewest resamples with which a p-value can be as small as ``alpha``."""
    return math.ceil(1.0 / alpha - SLACK) - 1


def splits(reference: int, window: int, resamples: int, seed: int, block: int = 1) -> Iterator[npt.NDArray[np.bool_]]:
    """The true split of ``reference`` rows followed by ``window`` rows, then random ones: True is in the window.

    ``block`` neighbouring rows stay together; the last block of each side may be shorter, and a random window then a
    few rows larger or smaller. Yields arrays of shape (S, reference + window) whose S sum to ``1 + resamples``. They
    depend on the parameters alone; small ones are kept, and must not be written to.
    """
    if (1 + resamples) * (reference + window) <= KEPT:
        yield from _kept(reference, window, resamples, seed, block)
    else:
        yield from _dealt(reference, window, resamples, seed, block)


@lru_cache(maxsize=4)
def _kept(reference: int, window: int, resamples: int, seed: int, block: int) -> tuple[npt.NDArray[np.bool_], ...]:
    return tuple(_dealt(reference, window, resamples, seed, block))


def _dealt(reference: int, window: int, resamples: int, seed: int, block: int) -> Iterator[npt.NDArray[np.bool_]]:
    chance = np.random.default_rng([seed, reference, window])
    lengths = np.array([*_lengths(reference, block), *_lengths(window, block)])
    true = np.arange(len(lengths)) >= len(_lengths(reference, block))
    yield _rows(true[np.newaxis], lengths)
    size = max(1, BLOCK // (reference + window))
    for start in range(0, resamples, size):
        dealt = np.broadcast_to(true, (min(size, resamples - start), len(true)))
        yield _rows(chance.permuted(dealt, axis=1), lengths)


def _lengths(rows: int, block: int) -> list[int]:
    return [min(block, rows - start) for start in range(0, rows, block)]


def _rows(blocks: npt.NDArray[np.bool_], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    rows = np.repeat(blocks, lengths, axis=1) if lengths.max() > 1 else blocks
    rows.flags.writeable = False
    return rows


def calibrate(
    statistics: Floats, alpha: float, columns: Sequence[int] | None = None, handicaps: Sequence[float] | None = None
) -> Calibration:
    """Judge statistics, shape (1 + resamples, K): first those of the true split, then the resampled ones.

    ``columns``: to which of the columns 0, 1, ... each statistic belongs; by default each to its own. ``handicaps``:
    what is taken off each one's normal scores before they are compared; by default nothing. The chance that
    any statistic of an unchanged window gets a p-value of at most ``alpha`` is at most ``alpha``.

    Raises:
        ValueError: there are too few resamples for ``alpha``.

    """
    total = len(statistics)
    rank = math.floor(alpha * total + SLACK)
    if rank < 1:
        least = least_resamples(alpha)
        raise ValueError(f"{total - 1} resamples cannot show a rate of {alpha}: at least {least} are needed")
    means, scale, skew = _moments(statistics)
    handicap = np.zeros(len(means)) if handicaps is None else np.asarray(handicaps)
    scores = _normal((statistics - means) / scale, skew) - handicap
    largest = scores[1:].max(axis=1)
    reached = (largest[:, np.newaxis] >= scores[0] - SLACK).sum(axis=0)
    limit = np.sort(largest)[-rank]
    return Calibration(
        p_values=(1 + reached) / total,
        limits=means + scale * _inverse(limit + handicap, skew),
        scores=scores[0],
        column_p_values=_column_p_values(scores, columns if columns is not None else range(len(means))),
    )


def _column_p_values(scores: Floats, columns: Sequence[int]) -> Floats:
    starts = np.flatnonzero(np.diff(columns, prepend=-1))
    largest = np.maximum.reduceat(scores, starts, axis=1)
    return np.asarray((1 + (largest[1:] >= largest[0] - SLACK).sum(axis=0)) / len(scores))


def _moments(statistics: Floats) -> tuple[Floats, Floats, Floats]:
    kept = np.sort(statistics, axis=0)[: len(statistics) - max(1, math.ceil(TRIMMED * len(statistics)))]
    means, deviations = kept.mean(axis=0), kept.std(axis=0)
    deviations = np.where(deviations > SLACK, deviations, statistics.std(axis=0))
    scale = np.where(deviations > SLACK, deviations, 1.0)
    skew = (((kept - means) / scale) ** 3).mean(axis=0)
    return means, scale, np.where(deviations > SLACK, np.clip(skew, 0.0, MOST_SKEW), 0.0)


def _normal(standardised: Floats, skew: Floats) -> Floats:
    g = np.where(skew > 1e-3, skew, 1.0)
    score = 6.0 / g * (np.cbrt(np.maximum(1.0 + standardised * g / 2.0, 0.0)) - 1.0 + g**2 / 36.0)
    return np.where(skew > 1e-3, score, standardised)


def _inverse(scores: Floats, skew: Floats) -> Floats:
    g = np.where(skew > 1e-3, skew, 1.0)
    standardised = ((scores * g / 6.0 + 1.0 - g**2 / 36.0) ** 3 - 1.0) * 2.0 / g
    return np.where(skew > 1e-3, standardised, scores)


def false_discovery(p_values: Floats, *, dependent: bool = False) -> Floats:
    """Adjusted p-values (q-values): naming the columns with ``q <= rate`` keeps the expected share of wrong names.

    Y. Benjamini and Y. Hochberg (Journal of the Royal Statistical Society B 57, 1995), for columns that are independent
    or positively dependent; ``dependent``: any dependence, Y. Benjamini and D. Yekutieli (Annals of Statistics 29,
    2001).

    >>> false_discovery(np.array([0.01, 0.04, 0.03, 0.5])).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    count = len(p_values)
    order = np.argsort(p_values)[::-1]
    factor = sum(1.0 / i for i in range(1, count + 1)) if dependent else 1.0
    raised = p_values[order] * count * factor / np.arange(count, 0, -1)
    out = np.empty(count)
    out[order] = np.minimum(np.minimum.accumulate(raised), 1.0)
    return out


def holm(p_values: Floats) -> Floats:
    """P-values adjusted so that any is below ``alpha`` by chance with at most ``alpha``, under any dependence.

    S. Holm, "A simple sequentially rejective multiple test procedure" (Scandinavian Journal of Statistics 6, 1979).

    >>> holm(np.array([0.01, 0.04, 0.03])).round(4).tolist()
    [0.03, 0.06, 0.06]
    """
    count = len(p_values)
    order = np.argsort(p_values)
    out = np.empty(count)
    out[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(count, 0, -1)), 1.0)
    return out
