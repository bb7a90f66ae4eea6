"""One joint verdict on whether a window of rows still looks like a reference.

A column drifts when its distance from the reference is beyond what resampling allows (:mod:`drift.calibration`) *and*
at least the minimum effect: with many rows any difference is significant, and only a large one matters. Rows are taken
as exchangeable; where neighbours depend on each other, an alarm says that, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from drift import jensen_shannon, kolmogorov_smirnov
from drift.calibration import calibrate, least_resamples, splits

Outcome = Literal["drift", "none", "not_enough_data"]
Detector = Literal["kolmogorov_smirnov", "jensen_shannon"]
Column = Sequence[float | str | None]

LEAST_ROWS = 30
"""Rows below which neither a reference nor a window says anything: only gross changes would be seen, at random."""

MOST_ROWS = 5_000
"""Rows of a side that are looked at; more are thinned at random. The resampled distances of 5,000 rows from 5,000 stay
below 0.04 on numeric columns, and a look stays under a second."""


@dataclass(frozen=True, kw_only=True)
class ColumnFinding:
    """What came of one column.

    ``statistic``: distance from the reference, in [0, 1]; ``threshold``: the larger of the calibrated limit and the
    minimum effect; ``p_value``: adjusted for all columns of the look, so that it compares with ``alpha`` directly.
    """

    column: str
    detector: Detector
    statistic: float
    threshold: float
    p_value: float
    drifted: bool


@dataclass(frozen=True, kw_only=True)
class DriftVerdict:
    """The joint verdict on a window of ``rows`` against ``reference_rows``; no findings where there is too little."""

    outcome: Outcome
    reason: str
    rows: int
    reference_rows: int
    findings: tuple[ColumnFinding, ...] = ()

    @property
    def drifted(self) -> tuple[str, ...]:
        """The columns that drifted, the furthest beyond its threshold first."""
        found = [f for f in self.findings if f.drifted]
        return tuple(f.column for f in sorted(found, key=lambda f: f.threshold - f.statistic))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data, for records and reports."""
        findings = [asdict(f) for f in self.findings]
        return {**asdict(self), "drifted": list(self.drifted), "findings": findings}


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A reference sample and how windows are judged against it; made by :meth:`fit`."""

    columns: Mapping[str, tuple[float | str | None, ...]]
    window: int
    alpha: float
    min_effect: float
    resamples: int
    seed: int

    @classmethod
    def fit(
        cls, columns: Mapping[str, Column], *, window: int, alpha: float, min_effect: float, resamples: int, seed: int
    ) -> Reference:
        """Take a reference sample: columns of numbers or of text, of one length; None and NaN are missing values.

        ``window``: rows of a whole window, fewer are not enough data; ``alpha``: chance, in (0, 1), that one look at
        an unchanged window alarms, all columns together; ``min_effect``: least distance, in [0, 1], that is called
        drift; ``resamples``: at least ``1 / alpha - 1``; ``seed``: >= 0; equal inputs give equal verdicts.

        Raises:
            ValueError: no columns, columns of different lengths, or a parameter out of its range.

        """
        _rows_of(columns, "reference")
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha is {alpha}: it must be in (0, 1)")
        if not 0.0 <= min_effect <= 1.0:
            raise ValueError(f"min_effect is {min_effect}: it must be in [0, 1]")
        if resamples < least_resamples(alpha):
            raise ValueError(f"resamples is {resamples}: a rate of {alpha} needs at least {least_resamples(alpha)}")
        if seed < 0:
            raise ValueError(f"seed is {seed}: it must be 0 or more")
        kept = {name: tuple(column) for name, column in columns.items()}
        return cls(columns=kept, window=window, alpha=alpha, min_effect=min_effect, resamples=resamples, seed=seed)

    @property
    def rows(self) -> int:
        """Rows of the reference."""
        return len(next(iter(self.columns.values())))

    def assess(self, columns: Mapping[str, Column]) -> DriftVerdict:
        """Judge a window that has the reference's columns; columns that the reference lacks are not looked at.

        A column with text on either side is categorical, any other numeric, so that a number that became text drifts.

        Raises:
            ValueError: a column of the reference is missing, or the columns have different lengths.

        """
        if lacking := [name for name in self.columns if name not in columns]:
            raise ValueError(f"the window lacks the reference's columns {lacking}")
        rows, needed = _rows_of({n: columns[n] for n in self.columns}, "window"), max(self.window, LEAST_ROWS)
        if rows < needed or self.rows < LEAST_ROWS:
            reason = f"{rows} rows (needs {needed}) against a reference of {self.rows} (needs {LEAST_ROWS})"
            return self._verdict("not_enough_data", reason, rows, ())
        findings = self._findings(columns, rows)
        found = [f for f in findings if f.drifted]
        said = [
            f"{f.column}: {f.detector} {f.statistic:.3g} beyond {f.threshold:.3g}, p {f.p_value:.2g}" for f in found
        ]
        none = f"no column of {len(findings)} is beyond its threshold"
        return self._verdict("drift" if found else "none", "; ".join(said) or none, rows, findings)

    def _verdict(self, outcome: Outcome, reason: str, rows: int, findings: tuple[ColumnFinding, ...]) -> DriftVerdict:
        return DriftVerdict(outcome=outcome, reason=reason, rows=rows, reference_rows=self.rows, findings=findings)

    def _findings(self, columns: Mapping[str, Column], rows: int) -> tuple[ColumnFinding, ...]:
        before, now = _thinned(self.rows, self.seed), _thinned(rows, self.seed)
        pooled = [
            _encoded([*(old[i] for i in before), *(columns[name][i] for i in now)])
            for name, old in self.columns.items()
        ]
        deals = splits(len(before), len(now), self.resamples, self.seed)
        statistics = np.concatenate([np.stack([_distances(p, deal) for p in pooled], axis=1) for deal in deals])
        known = calibrate(statistics, self.alpha)
        return tuple(
            ColumnFinding(
                column=name,
                detector=_detector(pooled[j]),
                statistic=float(statistics[0, j]),
                threshold=max(self.min_effect, float(known.limits[j])),
                p_value=float(known.p_values[j]),
                drifted=bool(known.p_values[j] <= self.alpha and statistics[0, j] >= self.min_effect),
            )
            for j, name in enumerate(self.columns)
        )


Encoded = npt.NDArray[np.float64] | npt.NDArray[np.int64]
"""A pooled column: numbers (NaN is missing), or codes of categories."""


def _encoded(values: Sequence[float | str | None]) -> Encoded:
    if not any(isinstance(v, str) for v in values):
        return np.array([math.nan if v is None else float(v) for v in values], dtype=np.float64)
    codes: dict[str | None, int] = {}
    return np.array([codes.setdefault(_category(v), len(codes)) for v in values], dtype=np.int64)


def _category(value: float | str | None) -> str | None:
    return None if value is None or value != value else str(value)


def _detector(encoded: Encoded) -> Detector:
    return "kolmogorov_smirnov" if encoded.dtype == np.float64 else "jensen_shannon"


def _distances(encoded: Encoded, current: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    if _detector(encoded) == "kolmogorov_smirnov":
        return kolmogorov_smirnov.distances(encoded.astype(np.float64, copy=False), current)
    return jensen_shannon.distances(encoded.astype(np.int64, copy=False), current)


def _thinned(rows: int, seed: int) -> list[int]:
    if rows <= MOST_ROWS:
        return list(range(rows))
    kept = np.random.default_rng([seed, rows]).choice(rows, size=MOST_ROWS, replace=False)
    return [int(i) for i in np.sort(kept)]


def _rows_of(columns: Mapping[str, Column], what: str) -> int:
    lengths = {len(c) for c in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"a {what} needs columns of one length, not of {sorted(lengths)}")
    return lengths.pop()
