"""The mean of a bounded number over rows, with bounds: what the gate judges of cosines and of neighbours found."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drift.confidence_sequence import anytime_bound
from drift.measured import normal_quantile, rows_beside, t_quantile, t_tail
from drift.paired import MOST_LABELS, POWER, PRICE_OF_LOOKS, Side
from drift.quality import effective_size, standard_error

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A weighted mean of ``values`` that all lie between ``least`` and ``most``.

    Its bounds are by Student's t, which is asymptotic, with one row added of mean weight that has everything against
    the side that is asked for: so rows that are all equal do not make a bound without width, and a worse row does not
    make a better one. ``anytime``: they are a confidence sequence, valid however often it is looked at, in the rows'
    order. ``paired``: values are differences between two models, and the rows that are needed are those at which an
    equally good one passes.

    >>> mean = Mean(values=(0.9, 0.8, 1.0, 0.7) * 10, weights=(1.0,) * 40, least=0.0)
    >>> round(mean.value, 2), round(mean.bound("lower", 0.95), 2)
    (0.85, 0.78)
    """

    values: tuple[float, ...]
    weights: tuple[float, ...]
    least: float = -1.0
    most: float = 1.0
    anytime: bool = False
    paired: bool = False

    def __post_init__(self) -> None:
        if len(self.values) != len(self.weights):
            raise ValueError(f"{len(self.weights)} weights for {len(self.values)} rows")
        if self.anytime and len(set(self.weights)) > 1:
            raise ValueError("a sequence that is looked at repeatedly needs rows of equal weight")

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.values)

    @property
    def value(self) -> float:
        """The mean; NaN of nothing."""
        return float(np.average(self._x, weights=self._w)) if self.n else math.nan

    def bound(self, side: Side, confidence: float) -> float:
        """One-sided bound."""
        if not self.n:
            return self._worst(side)
        if self.anytime:
            scaled = np.clip((self._x - self.least) / (self.most - self.least), 0.0, 1.0)
            return self.least + (self.most - self.least) * anytime_bound(scaled.tolist(), side, confidence)
        value, deviation, freedom = self._against(side)
        if not math.isfinite(deviation):
            return self._worst(side)
        reach = t_quantile(confidence, freedom) * deviation
        return max(self.least, value - reach) if side == "lower" else min(self.most, value + reach)

    def breaks(self, limit: float, side: Side) -> float:
        """The level at which the bound on the other side crosses the limit."""
        if not self.n:
            return 1.0
        if self.anytime:
            return self._crossing(limit, side)
        value, deviation, freedom = self._against("lower" if side == "upper" else "upper")
        return t_tail(value - limit if side == "upper" else limit - value, deviation, freedom)

    def _crossing(self, limit: float, side: Side) -> float:
        other: Side = "lower" if side == "upper" else "upper"
        low, high = math.log(2.0), 300.0
        for _ in range(40):
            middle = (low + high) / 2.0
            bound = self.bound(other, min(-math.expm1(-middle), 1.0 - 1e-15))
            crossed = bound > limit if side == "upper" else bound < limit
            low, high = (middle, high) if crossed else (low, middle)
        return math.exp(-low) if low > math.log(2.0) else 1.0

    def needed(self, limit: float, side: Side, confidence: float, *, of: int = 1, now: bool = False) -> int | None:
        """Rows at which this mean, if it stays what it is, is shown to keep or to break the limit."""
        if self.n < 2:
            return None
        keeps = self.paired or (self.value <= limit if side == "upper" else self.value >= limit)
        shown: Side = side if keeps else "lower" if side == "upper" else "upper"
        centre = 0.0 if self.paired else self.value
        distance = (limit if side == "upper" else -limit) if self.paired else abs(self.value - limit)
        z = normal_quantile(confidence) + (normal_quantile(1.0 - (1.0 - POWER) / of) if self.paired else 0.0)
        size = effective_size(list(self.weights))
        spread = standard_error(self._x, self._w, self.value) * math.sqrt(size)
        equal = rows_beside(z, spread, abs(self._worst(shown) - centre), distance)
        if equal is None:
            return None
        total = math.ceil((PRICE_OF_LOOKS if self.anytime else 1.0) * equal * self.n / size)
        return max(total, 2) if total <= MOST_LABELS else None

    def _worst(self, side: Side) -> float:
        return self.least if side == "lower" else self.most

    def _against(self, side: Side) -> tuple[float, float, float]:
        """Mean, standard error and degrees of freedom with the worst row added; an infinite error of fewer than two."""
        if self.n < 2:
            return self.value, math.inf, 1.0
        x, w = np.append(self._x, self._worst(side)), np.append(self._w, self._w.mean())
        value = float(np.average(x, weights=w))
        return value, standard_error(x, w, value), max(effective_size(w.tolist()) - 1.0, 1.0)

    @property
    def _x(self) -> Floats:
        return np.asarray(self.values, dtype=np.float64)

    @property
    def _w(self) -> Floats:
        return np.asarray(self.weights, dtype=np.float64)
