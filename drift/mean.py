"""The mean of a bounded number over rows, with bounds: what the gate judges of cosines and of neighbours found."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drift.confidence_sequence import anytime_bound
from drift.paired import MOST_LABELS, POWER, PRICE_OF_LOOKS, Side
from drift.quality import effective_size, standard_error

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A weighted mean of ``values`` that all lie between ``least`` and ``most``.

    Its bounds are by Student's t, which is asymptotic; where all values are equal, and t would say that nothing is
    uncertain, they are as wide as those of as many equal outcomes of a share (Clopper and Pearson). ``anytime``: they
    are a confidence sequence, valid however often it is looked at, in the rows' order. ``paired``: values are
    differences between two models, and the rows that are needed are those at which an equally good one passes.

    >>> mean = Mean(values=(0.9, 0.8, 1.0, 0.7), weights=(1.0, 1.0, 1.0, 1.0), least=0.0)
    >>> round(mean.value, 2), round(mean.bound("lower", 0.95), 2)
    (0.85, 0.7)
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
        from scipy.special import stdtrit

        worst = self.least if side == "lower" else self.most
        if not self.n:
            return worst
        if self.anytime:
            scaled = np.clip((self._x - self.least) / (self.most - self.least), 0.0, 1.0)
            return self.least + (self.most - self.least) * anytime_bound(scaled.tolist(), side, confidence)
        deviation, freedom = self._spread()
        if deviation > 0.0:
            reach = float(stdtrit(freedom, confidence)) * deviation
        else:
            reach = abs(worst - self.value) * (1.0 - (1.0 - confidence) ** (1.0 / (freedom + 1.0)))
        low, high = min(worst, self.value), max(worst, self.value)
        return min(high, max(low, self.value + (reach if side == "upper" else -reach)))

    def breaks(self, limit: float, side: Side) -> float:
        """The p-value of the one-sided t-test; of equal values the level at which the other side's bound crosses."""
        from scipy.special import stdtr

        beyond = self.value - limit if side == "upper" else limit - self.value
        if not self.n or beyond <= 0.0:
            return 1.0
        if self.anytime:
            return self._crossing(limit, side)
        deviation, freedom = self._spread()
        if not math.isfinite(deviation):
            return 1.0
        if deviation <= 0.0:
            room = abs((self.least if side == "upper" else self.most) - self.value)
            return max(0.0, 1.0 - beyond / room) ** (freedom + 1.0) if room > 0.0 else 1.0
        return float(stdtr(freedom, -beyond / deviation))

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
        from scipy.special import ndtri

        deviation, _ = self._spread() if self.n else (math.inf, 1.0)
        distance = limit if self.paired else abs(self.value - limit)
        if not (math.isfinite(deviation) and distance > 0.0):
            return None
        z = float(ndtri(confidence)) + (float(ndtri(1.0 - (1.0 - POWER) / of)) if self.paired else 0.0)
        total = math.ceil((PRICE_OF_LOOKS if self.anytime else 1.0) * self.n * (z * deviation / distance) ** 2)
        return max(total, 2) if total <= MOST_LABELS else None

    @property
    def _x(self) -> Floats:
        return np.asarray(self.values, dtype=np.float64)

    @property
    def _w(self) -> Floats:
        return np.asarray(self.weights, dtype=np.float64)

    def _spread(self) -> tuple[float, float]:
        """Standard error and degrees of freedom; an infinite error of fewer than two rows."""
        if self.n < 2:
            return math.inf, 1.0
        freedom = max(effective_size(list(self.weights)) - 1.0, 1.0)
        return float(standard_error(self._x, self._w, self.value)), freedom
