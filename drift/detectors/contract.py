"""What every detector is: a formula for how far two samples of a column are apart, and what its number means.

A detector measures; whether a number is beyond chance is decided by :mod:`drift.calibration`, which asks the same
formula about many other splits of the pooled rows. So a detector takes S splits at once, in the form that suits the
kind of its column: :class:`Gaps` of distribution functions, :class:`Counts` of categories, or the vectors themselves.
The first two also come out of sketches (:mod:`drift.sketch`), so that large windows are measured by the same formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Splits = npt.NDArray[np.bool_]
"""Shape (S, N): which of the N pooled rows each of S splits puts into the window; at least one and not all."""

Kind = Literal["numeric", "categorical", "vectors"]
Measure = Callable[[Splits], Floats]
"""From S splits to S effects."""

MOST_POINTS = 512
"""Points at which distribution functions are compared; with more distinct values, neighbours of equal total weight are
taken together, which changes a distance by 1/512 at most and is the same for every split."""


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """Distribution functions of a numeric column on both sides, of the values that are present.

    ``points`` (T,), rising; ``reference`` and ``window`` (S, T): share of each side's values up to each point;
    ``pooled`` (T,): that of both sides together. A side without any value takes the pooled function, so that it shows
    no gap. ``missing_reference``, ``missing_window`` (S,): shares of missing values; ``share`` (S,): the
    window's share of the values that are present; ``scale``: standard deviation of
    the pooled values, 1 where they do not vary.
    """

    points: Floats
    reference: Floats
    window: Floats
    pooled: Floats
    missing_reference: Floats
    missing_window: Floats
    share: Floats
    scale: float

    @cached_property
    def gaps(self) -> Floats:
        """The window's function minus the reference's, (S, T)."""
        return self.window - self.reference


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How often each category occurs on each side, shape (S, K); every category occurs on one side at least."""

    reference: Floats
    window: Floats

    @property
    def shares(self) -> tuple[Floats, Floats]:
        """The category mixes of reference and window, each row summing to one."""
        return (
            self.reference / self.reference.sum(axis=1, keepdims=True),
            self.window / self.window.sum(axis=1, keepdims=True),
        )


@dataclass(frozen=True, kw_only=True)
class Detector:
    """One way of measuring change.

    ``unit`` and ``upper`` state what an effect is and its range, [0, upper]. ``least`` translates the spec's minimum
    effect, given as a Kolmogorov-Smirnov distance *d* in [0, 1], into this detector's unit: the effect of the shift of
    a normal column that has this distance, or for categories, of the mix that has this Jensen-Shannon distance.
    ``measure`` takes :class:`Gaps` or :class:`Counts` and returns S effects; for vectors it takes the pooled values
    (N, D) and returns a :data:`Measure`. ``handicap``: normal deviations by which it must stand out further than
    others of a look: a detector of rarer or more visible changes leaves the others most of the alarms by chance that a
    look may raise, hence nearly all of their power.
    """

    name: str
    kind: Kind
    unit: str
    upper: float
    least: Callable[[float], float]
    measure: Callable[[Any], Any]
    handicap: float = 0.0

    def prepare(self, pooled: npt.NDArray[Any]) -> Measure:
        """The effects of any splits of ``pooled``: (N,) numbers (NaN is missing), (N,) codes from 0, or (N, D)."""
        if self.kind == "vectors":
            measure: Measure = self.measure(pooled)
            return measure
        sides: Callable[[Splits], Any] = (gaps_of if self.kind == "numeric" else counts_of)(pooled)
        return lambda current: np.asarray(self.measure(sides(current)))

    def fit(self, reference: npt.NDArray[Any]) -> Fitted:
        """Take a reference sample, of which windows are then measured."""
        return Fitted(detector=self, reference=np.array(reference))


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A detector with its reference sample."""

    detector: Detector
    reference: npt.NDArray[Any]

    def effect(self, window: npt.NDArray[Any]) -> float:
        """How far the window is from the reference, in the detector's unit."""
        pooled = np.concatenate([self.reference, window])
        true = np.arange(len(pooled)) >= len(self.reference)
        return float(self.detector.prepare(pooled)(true[np.newaxis])[0])


def normal_shift(distance: float) -> float:
    """The shift, in standard deviations, of a normal column whose Kolmogorov-Smirnov distance this is.

    >>> round(normal_shift(0.1), 3)
    0.251
    """
    return 2.0 * NormalDist().inv_cdf((1.0 + min(max(distance, 0.0), 1.0 - 1e-12)) / 2.0)


def gaps_of(values: Floats) -> Callable[[Splits], Gaps]:
    """How to compare the two sides of a numeric column; ``values`` (N,) are both pooled, NaN is missing."""
    present = np.flatnonzero(~np.isnan(values))
    order = present[np.argsort(values[present], kind="stable")]
    ordered = values[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(order) else order
    if len(ends) > MOST_POINTS:
        wanted = np.searchsorted(ends, np.arange(1, MOST_POINTS + 1) * len(order) / MOST_POINTS - 1)
        ends = ends[np.unique(np.minimum(wanted, len(ends) - 1))]
    starts = np.append(0, ends[:-1] + 1)
    scale = _scale(ordered)

    def sides(current: Splits) -> Gaps:
        size = current.sum(axis=1, dtype=np.int64)
        if not len(order):
            nothing, all_missing = np.zeros((len(current), 0)), np.ones(len(current))
            return Gaps(
                points=ordered, reference=nothing, window=nothing, pooled=ordered,
                missing_reference=all_missing, missing_window=all_missing, share=all_missing / 2.0, scale=1.0,
            )  # fmt: skip
        counts = np.add.reduceat(current[:, order], starts, axis=1, dtype=np.int32)
        seen = np.cumsum(counts, axis=1, dtype=np.int32)
        inside = seen[:, -1]
        pooled = (ends + 1) / len(order)
        return Gaps(
            points=ordered[ends],
            reference=_share(ends + 1 - seen, len(order) - inside, pooled),
            window=_share(seen, inside, pooled),
            pooled=pooled,
            missing_reference=1.0 - (len(order) - inside) / (len(values) - size),
            missing_window=1.0 - inside / size,
            share=inside / len(order),
            scale=scale,
        )

    return sides


def _share(seen: npt.NDArray[Any], total: npt.NDArray[Any], pooled: Floats) -> Floats:
    shares = seen / np.maximum(total, 1)[:, np.newaxis]
    return shares if total.all() else np.where((total > 0)[:, np.newaxis], shares, pooled)


def _scale(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = float(finite.std())
    return deviation if 0.0 < deviation < np.inf else 1.0


def counts_of(codes: npt.NDArray[np.int64]) -> Callable[[Splits], Counts]:
    """How to compare the two sides of a categorical column; ``codes`` (N,) are both pooled, as 0, 1, ..."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    total = np.diff(np.append(starts, len(codes)))

    def sides(current: Splits) -> Counts:
        inside = np.add.reduceat(current[:, order], starts, axis=1, dtype=np.int32)
        return Counts(reference=(total - inside).astype(np.float64), window=inside.astype(np.float64))

    return sides
