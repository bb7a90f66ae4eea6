"""One joint verdict on whether a window still looks like the reference, with thresholds calibrated on the reference.

Thresholds are not quoted from a table: pairs of a reference and a window are drawn again and again from the
reference itself, whole rows at a time, so that sample sizes, ties, rare categories and the dependence of the columns
are all in them. Every column's statistic is standardised by its resampled mean and deviation, and a column drifts
when it passes the (1 - alpha) quantile of the resampled *largest* standardised statistic: the chance that any column
of an unchanged window does is alpha (the max-T method of Westfall & Young, "Resampling-based multiple testing", 1993).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from drift import jensen_shannon, kolmogorov_smirnov

Outcome = Literal["drift", "none", "not_enough_data"]
Column = Sequence[float | str | None]

MIN_ROWS = 30
"""Rows below which neither a reference nor a window says anything: the resampled tails would be guesswork."""

FLOOR = 1e-9
"""Least deviation of a resampled statistic: a constant column has none, and any change of it is then far out."""


@dataclass(frozen=True, kw_only=True)
class ColumnFinding:
    """One column's statistic (a distance in [0, 1]), the threshold that it was held against, and its own p-value."""

    column: str
    detector: str
    statistic: float
    threshold: float
    p_value: float
    drifted: bool


@dataclass(frozen=True, kw_only=True)
class DriftVerdict:
    """The joint verdict on one window of ``rows``."""

    outcome: Outcome
    rows: int
    findings: tuple[ColumnFinding, ...] = ()

    @property
    def drifted(self) -> tuple[str, ...]:
        """The columns that drifted, the furthest beyond its threshold first."""
        ordered = sorted(self.findings, key=lambda f: f.threshold - f.statistic)
        return tuple(f.column for f in ordered if f.drifted)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for records and reports."""
        findings = [asdict(f) for f in self.findings]
        return {"outcome": self.outcome, "rows": self.rows, "drifted": list(self.drifted), "findings": findings}


@dataclass(frozen=True, kw_only=True)
class _Calibration:
    means: npt.NDArray[np.float64]
    deviations: npt.NDArray[np.float64]
    critical: float
    resampled: npt.NDArray[np.float64]


@dataclass(kw_only=True)
class Reference:
    """A reference sample, and the thresholds for windows of each size that was asked for."""

    alpha: float
    min_effect: float
    resamples: int
    seed: int
    rows: int
    numeric: dict[str, npt.NDArray[np.float64]]
    categorical: dict[str, npt.NDArray[np.int64]]
    codes: dict[str, dict[str | None, int]]
    _calibrations: dict[int, _Calibration] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, columns: Mapping[str, Column], *, window: int, alpha: float, min_effect: float, resamples: int, seed: int
    ) -> Reference:
        """Take a reference sample and calibrate thresholds for windows of ``window`` rows.

        A column is categorical when any of its values is text, else numeric; None and NaN are missing values.

        Raises:
            ValueError: no columns, columns of different lengths, or too few resamples to reach ``alpha``.
        """
        lengths = {len(c) for c in columns.values()}
        if len(lengths) != 1:
            raise ValueError(f"a reference needs columns of one length, not of {sorted(lengths)}")
        if resamples * alpha < 1:
            raise ValueError(f"{resamples} resamples cannot show a rate of {alpha}: at least {math.ceil(1 / alpha)}")
        texts = [n for n, c in columns.items() if any(isinstance(v, str) for v in c)]
        codes = {n: {v: i for i, v in enumerate(sorted({_text(v) for v in columns[n]}, key=str))} for n in texts}
        reference = cls(
            alpha=alpha,
            min_effect=min_effect,
            resamples=resamples,
            seed=seed,
            rows=lengths.pop(),
            numeric={n: _numbers(c) for n, c in columns.items() if n not in codes},
            categorical={n: _coded(columns[n], codes[n]) for n in texts},
            codes=codes,
        )
        if reference.rows >= MIN_ROWS and window >= MIN_ROWS:
            reference._calibrate(window)
        return reference

    @property
    def names(self) -> list[str]:
        """The columns, numeric ones first."""
        return [*self.numeric, *self.categorical]

    def assess(self, columns: Mapping[str, Column]) -> DriftVerdict:
        """Judge a window that has the reference's columns.

        Raises:
            ValueError: a column of the reference is missing.
        """
        if missing := [n for n in self.names if n not in columns]:
            raise ValueError(f"the window lacks the columns {missing}")
        rows = len(columns[self.names[0]])
        if rows < MIN_ROWS or self.rows < MIN_ROWS:
            return DriftVerdict(outcome="not_enough_data", rows=rows)
        numeric = {n: _numbers(columns[n]) for n in self.numeric}
        categorical = {n: _coded(columns[n], self.codes[n]) for n in self.categorical}
        statistics = self._statistics(self.numeric, self.categorical, numeric, categorical)
        known = self._calibrate(rows)
        findings = tuple(self._find(j, s, known) for j, s in enumerate(statistics))
        outcome: Outcome = "drift" if any(f.drifted for f in findings) else "none"
        return DriftVerdict(outcome=outcome, rows=rows, findings=findings)

    def _find(self, j: int, statistic: float, known: _Calibration) -> ColumnFinding:
        threshold = max(self.min_effect, float(known.means[j] + known.critical * known.deviations[j]))
        beyond = int((known.resampled[:, j] >= statistic).sum())
        return ColumnFinding(
            column=self.names[j],
            detector="kolmogorov_smirnov" if j < len(self.numeric) else "jensen_shannon",
            statistic=statistic,
            threshold=threshold,
            p_value=(1 + beyond) / (1 + len(known.resampled)),
            drifted=statistic > threshold,
        )

    def _calibrate(self, window: int) -> _Calibration:
        if window not in self._calibrations:
            chance = np.random.default_rng([self.seed, window])
            resampled = np.array([self._resample(window, chance) for _ in range(self.resamples)])
            means, deviations = resampled.mean(axis=0), np.maximum(resampled.std(axis=0), FLOOR)
            largest = ((resampled - means) / deviations).max(axis=1)
            critical = float(np.quantile(largest, 1 - self.alpha, method="higher"))
            self._calibrations[window] = _Calibration(
                means=means, deviations=deviations, critical=critical, resampled=resampled
            )
        return self._calibrations[window]

    def _resample(self, window: int, chance: np.random.Generator) -> list[float]:
        left, right = chance.integers(self.rows, size=self.rows), chance.integers(self.rows, size=window)
        return self._statistics(
            {n: v[left] for n, v in self.numeric.items()},
            {n: v[left] for n, v in self.categorical.items()},
            {n: v[right] for n, v in self.numeric.items()},
            {n: v[right] for n, v in self.categorical.items()},
        )

    def _statistics(
        self,
        numeric: Mapping[str, npt.NDArray[np.float64]],
        categorical: Mapping[str, npt.NDArray[np.int64]],
        numeric_now: Mapping[str, npt.NDArray[np.float64]],
        categorical_now: Mapping[str, npt.NDArray[np.int64]],
    ) -> list[float]:
        ks = [kolmogorov_smirnov.distance(numeric[n], numeric_now[n]) for n in self.numeric]
        js = [
            jensen_shannon.distance(categorical[n], categorical_now[n], len(self.codes[n]) + 1)
            for n in self.categorical
        ]
        return ks + js


def _text(value: float | str | None) -> str | None:
    return None if value is None or value != value else str(value)


def _numbers(values: Column) -> npt.NDArray[np.float64]:
    return np.array([math.nan if v is None else float(v) for v in values], dtype=np.float64)


def _coded(values: Column, codes: Mapping[str | None, int]) -> npt.NDArray[np.int64]:
    """Category codes; everything that the reference never had shares one code of its own."""
    return np.array([codes.get(_text(v), len(codes)) for v in values], dtype=np.int64)
