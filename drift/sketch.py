"""Sketches of columns: histograms over bins that are fitted once on a reference, and that add up.

A sketch takes rows in batches and in one pass, its memory depends on the columns alone, and sketches of partitions
merge by addition: the result is the same in whatever order. Distances of distribution functions are exact at the edges
of the bins and off by the share of one bin at most (1/256) in between.

Categories are counted in cells that their text's hash names, whatever the reference holds: cells that were chosen
because the reference had many rows in them (or some) have fewer of the next draw, from the same source, by that choice
alone. Cells too rare to be compared one by one are put together by rules that see both sides' rows together only.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from drift import columns as column_types
from drift.columns import Column
from drift.detectors.contract import Counts, Gaps

BINS = 256
CELLS = 1 << 16
"""Cells of a column of text. Of a hundred categories two share one in a column of thirteen, and are then one."""

LEAST_EXPECTED = 5.0
"""Expected occurrences on the smaller side below which chi-squared's limit does not hold: W. G. Cochran (1954)."""

GROUP_EXPECTED = 10.0
"""Mean expected occurrences on the smaller side of a group of rare cells: nearly all then have the least, and few
categories share a group, in which changes of theirs would cancel out."""

FITTED_ROWS = 100 * BINS
"""Rows of a larger reference, drawn at random, that the edges of the bins are taken from: a bin then holds its share
to a tenth or so, and the counts in it are those of all rows."""

SEED = 19_470_101


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The bins of every column: rising upper edges of a numeric one, the cells of the hash for one of text."""

    edges: Mapping[str, npt.NDArray[np.float64]]
    scales: Mapping[str, float]
    texts: tuple[str, ...]
    digest: str

    @classmethod
    def fit(cls, reference: Mapping[str, Column]) -> Grid:
        """Take quantiles of numbers, or all distinct values where they are few; cells of text are always the same.

        Raises:
            ValueError: a column holds vectors, which have no histogram.

        """
        edges, scales, texts = {}, {}, []
        for name, column in reference.items():
            values = _one_dimensional(name, column)
            if column_types.is_numeric(values):
                edges[name], scales[name] = _edges(_some(column_types.floats(values)))
            else:
                texts.append(name)
        content = repr([(n, e.tobytes()) for n, e in edges.items()] + [(n, CELLS) for n in texts])
        digest = hashlib.sha256(content.encode()).hexdigest()
        return cls(edges=edges, scales=scales, texts=tuple(texts), digest=digest)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return (*self.edges, *self.texts)


def _one_dimensional(name: str, column: Column) -> Any:
    values = column if isinstance(column, list | tuple) else column_types.arrayed(column)
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ValueError(f"column {name!r} holds vectors: a sketch takes numbers and categories")
    return values


def _some(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Not every so-manieth: a column with a period would show one phase of it."""
    if len(values) <= FITTED_ROWS:
        return values
    return np.asarray(values[np.random.default_rng([SEED, len(values)]).integers(0, len(values), FITTED_ROWS)])


def _edges(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    ordered = np.sort(values[np.isfinite(values)])
    if not len(ordered):
        return np.zeros(1), 1.0
    distinct = ordered[np.append(True, ordered[1:] != ordered[:-1])]
    if len(distinct) > BINS - 1:
        distinct = np.unique(ordered[-(-np.arange(1, BINS) * len(ordered) // BINS) - 1])
    return distinct, float(ordered.std()) or 1.0


def _counted(values: Any) -> dict[str | None, int]:
    if isinstance(values, np.ndarray) and values.dtype.kind == "U":
        found, counts = np.unique(values, return_counts=True)
        return dict(zip(map(str, found), map(int, counts), strict=True))
    out: dict[str | None, int] = {}
    for value in column_types.categories(values):
        out[value] = out.get(value, 0) + 1
    return out


@dataclass
class Sketch:
    """Counts of the rows so far, in the bins of ``grid``."""

    grid: Grid
    rows: int = 0
    counts: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """Numeric: ``len(edges) + 1`` bins and the missing values; of text: :data:`CELLS`."""

    def __post_init__(self) -> None:
        for name, edges in self.grid.edges.items():
            self.counts.setdefault(name, np.zeros(len(edges) + 2, dtype=np.int64))
        for name in self.grid.texts:
            self.counts.setdefault(name, np.zeros(CELLS, dtype=np.int64))

    def add(self, batch: Any) -> Sketch:
        """Count a batch: a mapping of columns, a pandas frame, or an arrow record batch or table. Returns itself.

        Raises:
            ValueError: a column of the grid is missing, or lengths differ; nothing is then counted.

        """
        found = {name: _one_dimensional(name, _of(batch, name)) for name in self.grid.columns}
        if len({len(c) for c in found.values()}) > 1:
            raise ValueError("a batch needs columns of one length")
        new = {name: self._count(name, values) for name, values in found.items()}
        for name, counts in new.items():
            self.counts[name] += counts
        self.rows += len(next(iter(found.values())))
        return self

    def _count(self, name: str, values: Any) -> npt.NDArray[np.int64]:
        if name in self.grid.edges:
            if not column_types.is_numeric(values):
                raise ValueError(f"column {name!r} was numeric in the reference and has text now")
            return _histogram(column_types.floats(values), self.grid.edges[name])
        counts = np.zeros(CELLS, dtype=np.int64)
        for category, count in _counted(values).items():
            counts[cell(category)] += count
        return counts

    def merge(self, other: Sketch) -> Sketch:
        """The sketch of both sketches' rows.

        Raises:
            ValueError: they were not made over the same bins.

        """
        if self.grid.digest != other.grid.digest:
            raise ValueError("sketches over different bins do not add up: fit one grid and sketch all partitions on it")
        counts = {name: self.counts[name] + other.counts[name] for name in self.grid.columns}
        return Sketch(grid=self.grid, rows=self.rows + other.rows, counts=counts)

    def gaps(self, name: str, window: Sketch) -> Gaps:
        """Both sides' distribution functions of a numeric column, this sketch being the reference."""
        before, now = self.counts[name][:-1], window.counts[name][:-1]
        pooled = np.cumsum(before + now) / max(1, (before + now).sum())
        return Gaps(
            points=np.append(self.grid.edges[name], np.inf),
            reference=_function(before, pooled),
            window=_function(now, pooled),
            pooled=pooled,
            missing_reference=self.counts[name][-1:] / max(1, self.rows),
            missing_window=window.counts[name][-1:] / max(1, window.rows),
            share=np.array([now.sum() / max(1, (before + now).sum())]),
            scale=self.grid.scales[name],
        )

    def mix(self, name: str, window: Sketch) -> Counts:
        """Both sides' counts of a column of text, of cells that are expected often enough, and of groups of the others.

        Which cells these are depends on both sides' rows together, so that any dealing out of them has the same ones.
        """
        before, now = self.counts[name], window.counts[name]
        place = _grouped(before + now, min(self.rows, window.rows) / max(1, self.rows + window.rows))
        reference, current = (
            np.bincount(place, weights=counts).astype(np.float64, copy=False) for counts in (before, now)
        )
        there = reference + current > 0
        return Counts(reference=reference[there][np.newaxis], window=current[there][np.newaxis])


def cell(category: str | None) -> int:
    """The cell of a category; the same one in every process."""
    return 0 if category is None else zlib.crc32(category.encode("utf-8", "surrogatepass")) % CELLS


def _grouped(pooled: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.int64]:
    """The place of every cell: its own, or that of a group of rare ones; ``share``: of the smaller side."""
    expected = pooled * share
    rare = expected < LEAST_EXPECTED
    groups = max(1, int(expected[rare].sum() / GROUP_EXPECTED))
    return np.where(rare, np.arange(len(pooled)) % groups, groups + np.cumsum(~rare))


def _of(batch: Any, name: str) -> Column:
    try:
        column: Column = batch[name]
    except KeyError:
        raise ValueError(f"the batch lacks column {name!r}") from None
    return column


def _function(counts: npt.NDArray[np.int64], pooled: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    total = counts.sum()
    return (np.cumsum(counts) / total if total else pooled)[np.newaxis]


def _histogram(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    missing = int(np.count_nonzero(values != values))
    upto = np.searchsorted(np.sort(values), edges, side="right")  # five times as fast as a search for every value
    return np.diff(np.concatenate([[0], upto, [len(values) - missing, len(values)]])).astype(np.int64)
