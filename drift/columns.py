"""Columns as users have them, made into the arrays that detectors take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from drift.detectors.contract import Kind

Column = Sequence[float | str | None] | npt.NDArray[Any]
"""Numbers or text, None and NaN being missing values; as a sequence, a numpy array, a pandas series or an arrow array.
A two-dimensional numpy array holds one vector a row."""

LEAST_COUNT = 5
"""Pooled occurrences below which categories are counted together as rare ones: by themselves they are noise, and the
choice is the same for every split. One that only the window has is not rare once it occurs this often."""

MOST_RANKED = 10_000
"""Rows up to which a column's autocorrelation is that of its ranks."""

TEXT_DIMENSIONS = 256
"""Dimensions that the character n-grams of a text are hashed into."""


def kept(column: Column) -> Column:
    """A copy that the owner's later changes do not reach."""
    if isinstance(column, list | tuple):
        return tuple(column)
    return np.array(arrayed(column))


def arrayed(column: Any) -> npt.NDArray[Any]:
    """A column as a numpy array, without a copy where that can be."""
    if isinstance(column, np.ndarray):
        return column
    if hasattr(column, "to_numpy"):
        arrow = type(column).__module__.partition(".")[0] == "pyarrow"
        return np.asarray(column.to_numpy(zero_copy_only=False) if arrow and _chunk(column) else column.to_numpy())
    return np.array(column, dtype=object)


def _chunk(column: Any) -> bool:
    return not hasattr(column, "chunks")  # a ChunkedArray's to_numpy always copies, and takes no such option


def is_numeric(column: Column) -> bool:
    """Whether a column has no text: numbers and missing values only."""
    column = column if isinstance(column, list | tuple) else arrayed(column)
    if isinstance(column, np.ndarray) and column.dtype != object:
        return column.dtype.kind in "fiub"
    return not any(isinstance(v, str) for v in column)


def taken(column: Column, rows: npt.NDArray[np.int64]) -> Column:
    """Some rows of a column."""
    if isinstance(column, list | tuple):
        return [column[i] for i in rows]
    array = arrayed(column)
    return array if len(rows) == len(array) else array[rows]


def floats(column: Column) -> npt.NDArray[np.float64]:
    """Numbers as float64, missing ones as NaN."""
    column = column if isinstance(column, list | tuple) else arrayed(column)
    if isinstance(column, np.ndarray) and column.dtype != object:
        return column.astype(np.float64, copy=False)
    return np.array([math.nan if v is None else float(v) for v in column], dtype=np.float64)


def categories(column: Column) -> list[str | None]:
    """Categories as text, missing ones as None."""
    values = column if isinstance(column, list | tuple) else arrayed(column).tolist()
    return [None if v is None or v != v else str(v) for v in values]


def pooled(reference: Column, window: Column, *, vectors: bool = False) -> tuple[Kind, npt.NDArray[Any]]:
    """Both sides in one array, and its kind: numbers (N,), codes of categories (N,), or vectors (N, D).

    Text on either side makes a column categorical, so that a number that became text is a change; with ``vectors`` its
    texts are hashed into :data:`TEXT_DIMENSIONS` dimensions, and missing ones are empty.
    """
    sides = [c if isinstance(c, list | tuple) else arrayed(c) for c in (reference, window)]
    if all(isinstance(s, np.ndarray) and s.ndim == 2 for s in sides):
        return "vectors", np.nan_to_num(np.concatenate(sides).astype(np.float64))
    if all(is_numeric(s) for s in sides):
        return "numeric", np.concatenate([floats(s) for s in sides])
    texts = [*categories(sides[0]), *categories(sides[1])]
    if vectors:
        return "vectors", hashed([t or "" for t in texts])
    return "categorical", coded(texts)


def coded(texts: Sequence[str | None]) -> npt.NDArray[np.int64]:
    """Categories as 0, 1, ..., those with fewer than :data:`LEAST_COUNT` occurrences as one."""
    names: dict[str | None, int] = {}
    codes = np.array([names.setdefault(t, len(names)) for t in texts], dtype=np.int64)
    counts = np.bincount(codes)
    rare = counts < LEAST_COUNT
    if rare.sum() < 2:
        return codes
    merged = np.where(rare, 0, np.cumsum(~rare))
    return np.asarray(merged[codes] if (~rare).any() else codes)


def hashed(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Character 2- to 4-grams of words, hashed, each row of length one (or zero where there is no text)."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hasher = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=TEXT_DIMENSIONS)
    return np.asarray(hasher.transform(texts).toarray(), dtype=np.float64)


def together(numeric: Mapping[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Pooled numeric columns as vectors of mid-ranks, each from -1 to 1; missing values are 0."""
    return np.stack([_ranks(values) for values in numeric.values()], axis=1)


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    present = ~np.isnan(values)
    _, place, counts = np.unique(values[present], return_inverse=True, return_counts=True)
    out = np.zeros(len(values))
    if len(counts):
        middle = np.cumsum(counts) - counts / 2.0
        out[present] = 2.0 * middle[place] / present.sum() - 1.0
    return out


def _clipped(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """From -1 to 1: the distance from the median in interquartile ranges; as robust as ranks, without sorting all."""
    some = values[:: len(values) // MOST_RANKED]
    some = some[np.isfinite(some)]
    low, middle, high = np.quantile(some, (0.25, 0.5, 0.75)) if len(some) else (0.0, 0.0, 0.0)
    if not high > low:
        return _ranks(values)
    out = (values - middle) / (high - low)
    np.clip(out, -1.0, 1.0, out=out)
    out[np.isnan(out)] = 0.0
    return np.asarray(out)


def series(column: Column) -> list[npt.NDArray[np.float64]]:
    """A column in the order of its rows as series whose autocorrelation is its own.

    Ranks of numbers (of more than :data:`MOST_RANKED`, their distances from the median, bounded), or whether a row has
    one of the few most frequent categories; none of vectors.
    """
    values = column if isinstance(column, list | tuple) else arrayed(column)
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return []
    if is_numeric(values):
        numbers = floats(values)
        return [_ranks(numbers) if len(numbers) <= MOST_RANKED else _clipped(numbers)]
    codes = coded(categories(values))
    frequent = np.argsort(np.bincount(codes), kind="stable")[::-1][:3]
    return [(codes == c).astype(np.float64) for c in frequent]
