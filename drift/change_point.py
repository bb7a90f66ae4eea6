"""Change points in an endless stream, at a known rate of false alarms: an e-detector that bets on every row.

Windows and repeated looks spend their error budget over and over; an e-detector does not, so that it may be asked after
every row. It sums, over all rows at which a change might have begun, the capital of a bettor who began there against
"the mean is still what the reference says": the Shiryaev-Roberts recursion ``M <- e (M + 1)``. While nothing has
changed, ``M - n`` is a supermartingale, hence the mean number of rows to a false alarm is at least ``run_length``, and
the chance of one within n rows is at most ``n / run_length``. J. Shin, A. Ramdas and A. Rinaldo, "E-detectors: a
nonparametric framework for sequential change detection" (New England Journal of Statistics in Data Science 2, 2023).

When the change began is another question: a sum over all possible beginnings keeps for long what was won and lost
before. So each bet is also summed as E. S. Page's CUSUM ("Continuous inspection schemes", Biometrika 41, 1954),
``c <- max(c, 0) + log e``, whose last return to zero is the likeliest beginning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from drift import columns as column_types
from drift.betting import FRACTIONS
from drift.columns import Column

MOST_CATEGORIES = 8
"""Categories of a column that are watched by name; the others, and unseen ones, are watched as one."""

DOUBT = 0.01
"""Chance that a mean of the reference sample lies outside the margin that is left for its own error, over all means."""

MOST_VALUES = 10_000
"""Values of a reference column, evenly spaced in rank, that ranks are taken among."""

MOST = 500.0
"""Logarithms of evidence stop here: the alarm is long raised."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """An alarm at row ``row``, counted from 1, in ``column``, probably since row ``since``, and its evidence's log."""

    row: int
    column: str
    what: str
    since: int
    log_evidence: float


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A number of the rows whose mean is watched, for being too large."""

    column: str
    what: str
    bound: float
    """The largest mean of the watched number, in [0, 1], that is no change."""


@dataclass
class ChangeDetector:
    """Watches a stream of rows; made by :meth:`fit`. Its memory and its time a row do not grow with the stream."""

    run_length: float
    watches: tuple[Watched, ...]
    ranked: Mapping[str, npt.NDArray[np.float64]]
    named: Mapping[str, tuple[str | None, ...]]
    row: int = 0
    log_evidence: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """Shape (watches, bets): logarithms of the Shiryaev-Roberts sums."""
    cusum: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """Of the same shape: the sum of each bet's gains since it last was not positive."""
    since: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Of the same shape: the row with which that sum began."""

    def __post_init__(self) -> None:
        shape = (len(self.watches), len(FRACTIONS))
        if self.log_evidence.shape != shape:
            self.log_evidence = np.full(shape, -np.inf)
            self.cusum = np.zeros(shape)
            self.since = np.ones(shape, dtype=np.int64)
        self._bounds = np.array([[w.bound] for w in self.watches])
        self._fractions = np.array([FRACTIONS])

    @classmethod
    def fit(cls, reference: Mapping[str, Column], *, run_length: float, min_effect: float) -> ChangeDetector:
        """Learn what is normal from a reference sample of numbers and text.

        ``run_length``: rows between false alarms, on the mean, at least; ``min_effect``: Kolmogorov-Smirnov distance,
        in [0, 1], below which a change is none. Of a numeric column, the mean rank among the reference's values (0 to
        1), the rank's distance from the middle (spread) and the share of missing values are watched in both directions;
        of a categorical one, the shares of the frequent categories and of all others.

        Raises:
            ValueError: a parameter is out of range, or there are no columns, no rows, or vectors.

        """
        if not run_length > 1.0:
            raise ValueError(f"run_length is {run_length}: it must be more than one row")
        if not 0.0 <= min_effect < 0.5:
            raise ValueError(f"min_effect is {min_effect}: it must be in [0, 0.5)")
        if not reference or not all(len(c) for c in reference.values()):
            raise ValueError("a reference needs a column and rows")
        ranked, named = {}, {}
        means: list[tuple[str, str, float, float | None]] = []
        for name, column in reference.items():
            if isinstance(column, np.ndarray) and column.ndim != 1:
                raise ValueError(f"column {name!r} holds vectors: watch numbers and categories")
            if column_types.is_numeric(column):
                values = column_types.floats(column)
                present = np.sort(values[~np.isnan(values)])
                ranked[name] = present[:: max(1, len(present) // MOST_VALUES)]
                rank, spread, missing = _ranks(values, ranked[name])  # with ties the spread's mean is not a half
                means += [
                    (name, "rank", _mean(rank), float(rank.var())),
                    (name, "spread", _mean(spread), float(spread.var())),
                ]
                means.append((name, "missing", _mean(missing), None))
            else:
                named[name], shares = _frequent(column_types.categories(column))
                means += [(name, _said(c), s, None) for c, s in zip((*named[name], "(other)"), shares, strict=True)]
        rows = len(next(iter(reference.values())))
        z = NormalDist().inv_cdf(1.0 - DOUBT / (2 * len(means)))
        watches = []
        for name, what, mean, variance in means:
            own = mean * (1.0 - mean) if variance is None else variance
            margin = min_effect * (1.0 if variance is None else 0.5) + z * math.sqrt(max(own, 1.0 / rows) / rows)
            watches.append(Watched(column=name, what=f"{what} up", bound=min(1.0, mean + margin)))
            watches.append(Watched(column=name, what=f"{what} down", bound=min(1.0, 1.0 - mean + margin)))
        return cls(run_length=run_length, watches=tuple(watches), ranked=ranked, named=named)

    def observe(self, rows: Mapping[str, Column]) -> Change | None:
        """Take rows in their order; the first alarm among them, or None. After an alarm the detector starts anew.

        Raises:
            ValueError: a column is missing, or has text where the reference had numbers.

        """
        found: Change | None = None
        for x in self._watched(rows):
            self.row += 1
            gain = np.log1p(self._fractions * (x[:, np.newaxis] / self._bounds - 1.0))
            self.since[self.cusum <= 0.0] = self.row
            self.cusum = np.maximum(self.cusum, 0.0) + gain
            self.log_evidence = np.minimum(gain + np.logaddexp(self.log_evidence, 0.0), MOST)
            if self.evidence >= math.log(self.run_length):
                found = found or self._change(self.evidence)
                self.log_evidence = np.full_like(self.log_evidence, -np.inf)
                self.cusum = np.zeros_like(self.cusum)
        return found

    @property
    def evidence(self) -> float:
        """The logarithm of the evidence for a change so far; it alarms at ``log(run_length)``."""
        most = float(self.log_evidence.max())
        return most + math.log(float(np.exp(self.log_evidence - most).mean())) if most > -np.inf else -np.inf

    def _change(self, evidence: float) -> Change:
        watch, bet = np.unravel_index(int(self.log_evidence.argmax()), self.log_evidence.shape)
        found = self.watches[int(watch)]
        return Change(
            row=self.row, column=found.column, what=found.what, since=int(self.since[watch, bet]), log_evidence=evidence
        )

    def _watched(self, rows: Mapping[str, Column]) -> npt.NDArray[np.float64]:
        """Shape (rows, watches): numbers in [0, 1] whose means were learnt, each in both directions."""
        if lacking := [n for n in (*self.ranked, *self.named) if n not in rows]:
            raise ValueError(f"the stream lacks the reference's columns {lacking}")
        parts: dict[str, list[npt.NDArray[np.float64]]] = {}
        for name, values in self.ranked.items():
            if not column_types.is_numeric(rows[name]):
                raise ValueError(f"column {name!r} was numeric in the reference and has text now")
            parts[name] = _ranks(column_types.floats(rows[name]), values)
        for name, known in self.named.items():
            texts = column_types.categories(rows[name])
            place = np.array([known.index(t) if t in known else len(known) for t in texts])
            parts[name] = [(place == i).astype(np.float64) for i in range(len(known) + 1)]
        order = dict.fromkeys(w.column for w in self.watches)
        return np.stack([x for name in order for up in parts[name] for x in (up, 1.0 - up)], axis=1)

    def as_dict(self) -> dict[str, Any]:
        """The place in the stream as plain JSON data, for :meth:`resume` of a detector fitted on the same reference."""
        finite = np.maximum(self.log_evidence, -1e300)
        place = {"row": self.row, "log_evidence": finite.tolist()}
        return place | {"cusum": self.cusum.tolist(), "since": self.since.tolist()}

    def resume(self, data: Mapping[str, Any]) -> ChangeDetector:
        """Go on where the detector was that :meth:`as_dict` described. Returns itself.

        A place of an older version has no ``cusum``: a change is then dated no earlier than here.

        Raises:
            ValueError: it watched other columns.

        """
        evidence = np.array(data["log_evidence"], dtype=np.float64)
        if evidence.shape != self.log_evidence.shape:
            raise ValueError("the stored evidence is of other columns: start the detector anew")
        self.row, self.log_evidence = int(data["row"]), np.where(evidence <= -1e300, -np.inf, evidence)
        self.cusum = np.array(data.get("cusum", np.zeros_like(evidence)), dtype=np.float64)
        self.since = np.array(data["since"], dtype=np.int64)
        return self


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean())


def _ranks(values: npt.NDArray[np.float64], among: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    missing = np.isnan(values)
    below, upto = np.searchsorted(among, values), np.searchsorted(among, values, side="right")
    rank = np.where(missing, 0.5, (below + upto) / (2.0 * max(1, len(among))))
    return [rank, np.where(missing, 0.5, np.abs(2.0 * rank - 1.0)), missing.astype(np.float64)]


def _frequent(texts: Sequence[str | None]) -> tuple[tuple[str | None, ...], list[float]]:
    counts: dict[str | None, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    known = tuple(sorted(counts, key=lambda c: (-counts[c], str(c)))[:MOST_CATEGORIES])
    shares = [counts[c] / len(texts) for c in known]
    return known, [*shares, max(0.0, 1.0 - sum(shares))]


def _said(category: str | None) -> str:
    return "(missing)" if category is None else category
