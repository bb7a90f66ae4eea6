"""One joint verdict on whether a window of rows still looks like a reference.

A column drifts when its distance from the reference is beyond what resampling allows (:mod:`drift.calibration`) *and*
at least the minimum effect: with many rows any difference is significant, and only a large one matters. Where the
reference's rows are autocorrelated, blocks of neighbours are resampled (:mod:`drift.block_length`); windows too large
to resample are counted in one pass and judged in closed form (:mod:`drift.asymptotic`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from drift import asymptotic
from drift import columns as column_types
from drift.block_length import block_length
from drift.calibration import calibrate, false_discovery, holm, least_resamples, splits
from drift.columns import Column
from drift.detectors import DEFAULTS, DETECTORS, Detector, Detectors, Kind, checked
from drift.detectors.contract import Floats, Splits, counts_of, gaps_of
from drift.sketch import Grid, Sketch

Outcome = Literal["drift", "none", "not_enough_data"]
Method = Literal["permutation", "block_permutation", "asymptotic"]

LEAST_ROWS = 30
"""Rows below which neither a reference nor a window says anything: only gross changes would be seen, at random."""

MOST_ROWS = 5_000
"""Rows of a side that are resampled; more are thinned. The resampled distances of 5,000 rows from 5,000 stay below 0.04
on numeric columns, and a look at ten columns stays under a second."""

LARGE_ROWS, LARGE_SIDE = 20_000, 1_000
"""Rows of both sides together, and of the smaller, from which closed forms are used on all rows instead."""

LEAST_BLOCKS = 5
"""Independent blocks that a side needs: with fewer, dealing them out has too few outcomes to tell chance from drift."""

TOGETHER = "(together)"
"""The column of findings on the ranks of the numeric columns together, by "correlation" unless the spec names other
detectors of vectors for it; it is called drifted only where no numeric column drifts by itself."""


@dataclass(frozen=True, kw_only=True)
class ColumnFinding:
    """What came of one column, by the detector that stands out most.

    ``statistic``: distance from the reference in ``unit``; ``threshold``: the larger of the calibrated limit and the
    minimum effect; ``p_value``: adjusted for all columns of the look, so that it compares with ``alpha`` directly;
    ``q_value``: the column's false-discovery rate, which names further columns once the joint verdict is drift.
    """

    column: str
    detector: str
    statistic: float
    threshold: float
    p_value: float
    drifted: bool
    q_value: float = 1.0
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class DriftVerdict:
    """The joint verdict on a window of ``rows`` against ``reference_rows``; no findings where there is too little.

    ``method``: where the thresholds come from; ``block``: rows that were kept together in resampling.
    """

    outcome: Outcome
    reason: str
    rows: int
    reference_rows: int
    findings: tuple[ColumnFinding, ...] = ()
    method: Method = "permutation"
    block: int = 1

    @property
    def drifted(self) -> tuple[str, ...]:
        """The columns that drifted, the furthest beyond its threshold first."""
        found = [f for f in self.findings if f.drifted]
        return tuple(f.column for f in sorted(found, key=lambda f: f.threshold / max(f.statistic, 1e-12)))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data, for records and reports."""
        findings = [asdict(f) for f in self.findings]
        return {**asdict(self), "drifted": list(self.drifted), "findings": findings}


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A reference sample and how windows are judged against it; made by :meth:`fit`."""

    columns: Mapping[str, Column]
    window: int
    alpha: float
    min_effect: float
    resamples: int
    seed: int
    detectors: Detectors = field(default_factory=dict)
    block: int | Literal["auto"] = "auto"
    joint: bool = True

    @classmethod
    def fit(
        cls,
        columns: Mapping[str, Column],
        *,
        window: int,
        alpha: float,
        min_effect: float,
        resamples: int,
        seed: int,
        detectors: Detectors | None = None,
        block: int | Literal["auto"] = "auto",
        joint: bool = True,
    ) -> Reference:
        """Take a reference sample: columns of numbers, text or vectors, of one length; None and NaN are missing values.

        ``window``: rows of a whole window, fewer are not enough data; ``alpha``: chance, in (0, 1), that one look at
        an unchanged window alarms, all columns together; ``min_effect``: least Kolmogorov-Smirnov or Jensen-Shannon
        distance, in [0, 1], that is called drift, which each detector translates into its unit; ``resamples``: at
        least ``1 / alpha - 1``; ``seed``: >= 0; equal inputs give equal verdicts. ``detectors``: names of
        :data:`drift.detectors.DETECTORS` for a column, or for a kind ("numeric", "categorical", "vectors"), instead of
        :data:`drift.detectors.DEFAULTS`; a text column that is given a detector of vectors is hashed. ``block``:
        neighbouring rows that depend on each other, 1 for independent rows, ``"auto"`` to learn it from the reference.
        ``joint``: whether the numeric columns are also looked at together, which sees a change of their correlation.

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
        if block != "auto" and block < 1:
            raise ValueError(f"block is {block}: it must be 1 or more, or 'auto'")
        return cls(
            columns={name: column_types.kept(column) for name, column in columns.items()},
            window=window, alpha=alpha, min_effect=min_effect, resamples=resamples, seed=seed,
            detectors=checked(detectors or {}), block=block, joint=joint,
        )  # fmt: skip

    @cached_property
    def rows(self) -> int:
        """Rows of the reference."""
        return len(next(iter(self.columns.values())))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the reference's rows and all settings: verdicts of one digest are comparable."""
        content = [(n, c.tolist() if isinstance(c, np.ndarray) else c) for n, c in self.columns.items()]
        settings = (
            self.window, self.alpha, self.min_effect, self.resamples, self.seed, self.block, self.joint,
            sorted((n, tuple(d)) for n, d in self.detectors.items()),
        )  # fmt: skip
        return hashlib.sha256(repr((content, settings)).encode()).hexdigest()

    @cached_property
    def block_rows(self) -> int:
        """Rows that are kept together in resampling."""
        if self.block != "auto":
            return self.block
        return block_length(s for column in self.columns.values() for s in column_types.series(column))

    @cached_property
    def sketch(self) -> Sketch:
        """The reference's histograms, against which large windows are judged."""
        return Sketch(grid=Grid.fit(self.columns)).add(self.columns)

    def assess(self, columns: Mapping[str, Column]) -> DriftVerdict:
        """Judge a window that has the reference's columns; columns that the reference lacks are not looked at.

        A column with text on either side is categorical, any other numeric, so that a number that became text drifts.

        Raises:
            ValueError: a column of the reference is missing, or the columns have different lengths.

        """
        if lacking := [name for name in self.columns if name not in columns]:
            raise ValueError(f"the window lacks the reference's columns {lacking}")
        columns = {name: columns[name] for name in self.columns}
        rows, needed = _rows_of(columns, "window"), max(self.window, LEAST_ROWS)
        if rows < needed or self.rows < LEAST_ROWS:
            reason = f"{rows} rows (needs {needed}) against a reference of {self.rows} (needs {LEAST_ROWS})"
            return DriftVerdict(outcome="not_enough_data", reason=reason, rows=rows, reference_rows=self.rows)
        block = self.block_rows
        if block > 1 and min(rows, self.rows) < LEAST_BLOCKS * block:
            reason = (
                f"{rows} rows against a reference of {self.rows}: up to {block} neighbouring rows depend on "
                f"each other, so that each side needs {LEAST_BLOCKS * block}"
            )
            return DriftVerdict(
                outcome="not_enough_data", reason=reason, rows=rows, reference_rows=self.rows, block=block
            )
        if self._is_large(columns, rows):
            return self.assess_sketch(Sketch(grid=self.sketch.grid).add(columns))
        method: Method = "permutation" if block == 1 else "block_permutation"
        return self._verdict(self._permuted(columns, rows, block), rows, method, block)

    def assess_sketch(self, window: Sketch) -> DriftVerdict:
        """Judge a window that was counted over the bins of :attr:`sketch`, with rows taken as independent.

        Raises:
            ValueError: the window was counted over other bins.

        """
        if window.grid.digest != self.sketch.grid.digest:
            raise ValueError("the window was counted over other bins than the reference's: use Reference.sketch.grid")
        if window.rows < max(self.window, LEAST_ROWS) or self.rows < LEAST_ROWS:
            reason = f"{window.rows} rows against a reference of {self.rows}"
            return DriftVerdict(outcome="not_enough_data", reason=reason, rows=window.rows, reference_rows=self.rows)
        names = list(self.columns)
        raw = np.array([asymptotic.p_value(self.sketch, window, name) for name in names])
        adjusted, rates = holm(raw), false_discovery(raw, dependent=True)
        findings = []
        for name, p, q in zip(names, adjusted, rates, strict=True):
            kind: Kind = "numeric" if name in self.sketch.grid.edges else "categorical"
            sides: Any = self.sketch.gaps(name, window) if kind == "numeric" else self.sketch.mix(name, window)
            measured = [(d, float(d.measure(sides)[0]), d.least(self.min_effect)) for d in self._detectors(name, kind)]
            detector, effect, least = max(measured, key=lambda m: m[1] / max(m[2], 1e-12))
            findings.append(
                ColumnFinding(
                    column=name,
                    detector=detector.name,
                    statistic=effect,
                    threshold=least,
                    p_value=float(p),
                    drifted=bool(p <= self.alpha and effect >= least),
                    q_value=float(q),
                    unit=detector.unit,
                )
            )
        return self._verdict(self._named(findings), window.rows, "asymptotic", 1)

    def _is_large(self, columns: Mapping[str, Column], rows: int) -> bool:
        large = rows + self.rows > LARGE_ROWS and min(rows, self.rows) >= LARGE_SIDE and self.block_rows == 1
        return large and not any(
            self._is_vectors(n) or (n in self.sketch.grid.edges and not column_types.is_numeric(c))
            for n, c in columns.items()
        )

    def _is_vectors(self, name: str) -> bool:
        column = self.columns[name]
        asked = any(DETECTORS[d].kind == "vectors" for d in self.detectors.get(name, ()))
        return asked or (isinstance(column, np.ndarray) and column.ndim == 2)

    def _verdict(self, findings: tuple[ColumnFinding, ...], rows: int, method: Method, block: int) -> DriftVerdict:
        found = [f for f in findings if f.drifted]
        said = [
            f"{f.column}: {f.detector} {f.statistic:.3g} beyond {f.threshold:.3g}, p {f.p_value:.2g}" for f in found
        ]
        none = f"no column of {len(findings)} is beyond its threshold"
        return DriftVerdict(
            outcome="drift" if found else "none", reason="; ".join(said) or none, rows=rows, reference_rows=self.rows,
            findings=findings, method=method, block=block,
        )  # fmt: skip

    def _permuted(self, window: Mapping[str, Column], rows: int, block: int) -> tuple[ColumnFinding, ...]:
        before, now = _thinned(self.rows, self.seed, block), _thinned(rows, self.seed, block)
        looks = self._looks(window, before, now)
        step = max(-(-self.rows // MOST_ROWS), -(-rows // MOST_ROWS)) if block > 1 else 1
        deals = splits(len(before), len(now), self.resamples, self.seed, max(1, block // step))
        statistics = np.concatenate([np.stack([e for k in looks for e in k.effects(deal)], axis=1) for deal in deals])
        owners = [i for i, look in enumerate(looks) for _ in look.detectors]
        known = calibrate(statistics, self.alpha, owners, [d.handicap for look in looks for d in look.detectors])
        rates = false_discovery(known.column_p_values, dependent=True)
        findings, start = [], 0
        for look, rate in zip(looks, rates, strict=True):
            mine = range(start, start + len(look.detectors))
            start = mine.stop
            least = dict(zip(mine, (d.least(self.min_effect) for d in look.detectors), strict=True))
            best = max(mine, key=lambda j: (bool(statistics[0, j] >= least[j]), float(known.scores[j])))
            detector, effect, p = look.detectors[mine.index(best)], float(statistics[0, best]), known.p_values[best]
            findings.append(
                ColumnFinding(
                    column=look.column,
                    detector=detector.name,
                    statistic=effect,
                    threshold=max(least[best], float(known.limits[best])),
                    p_value=float(p),
                    drifted=bool(p <= self.alpha and effect >= least[best]),
                    q_value=float(rate),
                    unit=detector.unit,
                )
            )
        return self._named(findings)

    def _named(self, findings: Sequence[ColumnFinding]) -> tuple[ColumnFinding, ...]:
        """Once any column drifted, those of a small false-discovery rate are named too, and the joint one is not."""
        if not any(f.drifted for f in findings):
            return tuple(findings)
        least = {f.column: DETECTORS[f.detector].least(self.min_effect) for f in findings}
        named = [
            replace(f, drifted=True, threshold=least[f.column])
            if not f.drifted and f.q_value <= self.alpha and f.statistic >= least[f.column]
            else f
            for f in findings
        ]
        alone = any(f.drifted and DETECTORS[f.detector].kind == "numeric" for f in named)
        return tuple(replace(f, drifted=False) if f.column == TOGETHER and alone else f for f in named)

    def _looks(
        self, window: Mapping[str, Column], before: npt.NDArray[np.int64], now: npt.NDArray[np.int64]
    ) -> list[_Look]:
        looks, numeric = [], {}
        for name, old in self.columns.items():
            sides = column_types.taken(old, before), column_types.taken(window[name], now)
            kind, values = column_types.pooled(*sides, vectors=self._is_vectors(name))
            chosen = self._detectors(name, kind)
            if kind == "numeric":
                numeric[name] = values
                if np.isnan(values).any():
                    chosen = [*chosen, DETECTORS["missing_share"]]
            looks.append(_look(name, kind, values, chosen))
        if self.joint and len(numeric) > 1:
            chosen = [DETECTORS[n] for n in self.detectors.get(TOGETHER, ("correlation",))]
            looks.append(_look(TOGETHER, "vectors", column_types.together(numeric), chosen))
        return looks

    def _detectors(self, column: str, kind: Kind) -> list[Detector]:
        own = [DETECTORS[n] for n in self.detectors.get(column, ()) if DETECTORS[n].kind == kind]
        return own or [DETECTORS[n] for n in self.detectors.get(kind, DEFAULTS[kind])]


@dataclass(frozen=True, kw_only=True)
class _Look:
    """One column of a look, its detectors, and their effects for any splits, in that order."""

    column: str
    detectors: Sequence[Detector]
    effects: Callable[[Splits], list[Floats]]


def _look(column: str, kind: Kind, values: npt.NDArray[Any], detectors: Sequence[Detector]) -> _Look:
    if kind == "vectors":
        measures = [d.prepare(values) for d in detectors]
        return _Look(column=column, detectors=detectors, effects=lambda deal: [m(deal) for m in measures])
    sides: Callable[[Splits], Any] = (gaps_of if kind == "numeric" else counts_of)(values)

    def effects(deal: Splits) -> list[Floats]:
        both = sides(deal)
        return [np.asarray(d.measure(both)) for d in detectors]

    return _Look(column=column, detectors=detectors, effects=effects)


def _thinned(rows: int, seed: int, block: int) -> npt.NDArray[np.int64]:
    """At random, or evenly where neighbours have to stay neighbours."""
    if rows <= MOST_ROWS:
        return np.arange(rows)
    if block > 1:
        return np.arange(0, rows, -(-rows // MOST_ROWS))
    return np.sort(np.random.default_rng([seed, rows]).choice(rows, size=MOST_ROWS, replace=False))


def _rows_of(columns: Mapping[str, Column], what: str) -> int:
    lengths = {len(c) for c in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"a {what} needs columns of one length, not of {sorted(lengths)}")
    return lengths.pop()
