"""Measures that know how sure they are: what the gate judges by a bound instead of by an estimate.

Each is made from rows and answers four questions: its ``value`` and the ``n`` rows it rests on, a one-sided ``bound``
at a confidence, the p-value with which it ``breaks`` a limit, and how many rows are ``needed`` to decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from drift.confidence_sequence import anytime_bound
from drift.paired import MOST_LABELS, POWER, PRICE_OF_LOOKS, PairedLoss, Side
from drift.quality import effective_size, standard_error, weighted_proportion

__all__ = ["ErrorLevel", "ErrorRise", "Measured", "PairedLoss", "Share", "Side"]

Floats = npt.NDArray[np.float64]

STEPS = 60
"""Halvings in the search for a bound or for a p-value: exact to the last digits of a float."""

LEAST_ERROR = 1e-12
"""Stands for an error of zero as the base of a relative change."""

MOST_EXPONENT = 600.0
"""Logarithms of bounds stop here, below the largest float's."""

MOST_RISE = 1e6
"""A relative rise of an error beyond this is not told from others."""


class Measured(Protocol):
    """A measure with its uncertainty.

    ``side`` names the bound that a limit is compared with: ``lower`` for a limit that the measure must reach, ``upper``
    for one that it must not exceed.
    """

    @property
    def value(self) -> float:
        """The estimate; NaN of nothing."""

    @property
    def n(self) -> int:
        """Rows that it rests on."""

    def bound(self, side: Side, confidence: float) -> float:
        """One-sided: the truth is beyond it with a chance of at most ``1 - confidence``."""

    def breaks(self, limit: float, side: Side) -> float:
        """The p-value of the hypothesis that the limit is kept: small where the measure is shown to break it."""

    def needed(self, limit: float, side: Side, confidence: float, *, of: int = 1, now: bool = False) -> int | None:
        """Rows that would decide, of which a model as good as it is compared with passes; None: no number would."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A weighted share with the exact bounds of Clopper and Pearson, or of Korn and Graubard where weights differ.

    ``anytime``: the bounds are a confidence sequence, valid however often they are looked at, in the rows' order.
    """

    hits: tuple[bool, ...]
    weights: tuple[float, ...]
    anytime: bool = False

    def __post_init__(self) -> None:
        if len(self.hits) != len(self.weights):
            raise ValueError(f"{len(self.weights)} weights for {len(self.hits)} rows")
        if self.anytime and len(set(self.weights)) > 1:
            raise ValueError("a sequence that is looked at repeatedly needs rows of equal weight")

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.hits)

    @property
    def value(self) -> float:
        """The weighted share, in [0, 1]; NaN of nothing."""
        return weighted_proportion(self.hits, self.weights).value

    def bound(self, side: Side, confidence: float) -> float:
        """One-sided bound."""
        if not self.n:
            return 0.0 if side == "lower" else 1.0
        if self.anytime:
            return anytime_bound([float(h) for h in self.hits], side, confidence)
        found = weighted_proportion(self.hits, self.weights, 2.0 * confidence - 1.0)
        return found.lower if side == "lower" else found.upper

    def breaks(self, limit: float, side: Side) -> float:
        """The level at which the bound on the other side crosses the limit."""
        other: Side = "upper" if side == "lower" else "lower"
        low, high = math.log(2.0), 600.0
        for _ in range(STEPS):
            middle = (low + high) / 2.0
            bound = self.bound(other, _confidence(middle))
            crossed = bound < limit if side == "lower" else bound > limit
            low, high = (middle, high) if crossed else (low, middle)
        return math.exp(-low) if low > math.log(2.0) else 1.0

    def needed(self, limit: float, side: Side, confidence: float, *, of: int = 1, now: bool = False) -> int | None:
        """Rows at which this share, if it stays what it is, is shown to keep or to break the limit."""
        from scipy.special import betaincinv

        share = self.value
        if not self.n or share == limit:
            return None
        keeps = share > limit if side == "lower" else share < limit
        below = (side == "lower") == keeps  # the bound that has to pass the limit lies below the share

        def decided(n: float) -> bool:
            hits = share * n
            if below:
                return hits > 0 and float(betaincinv(hits, n - hits + 1.0, 1.0 - confidence)) >= limit
            return hits < n and float(betaincinv(hits + 1.0, n - hits, confidence)) <= limit

        size = effective_size(self.weights)
        low, high = 1.0, max(2.0, size)
        while not decided(high):
            low, high = high, 2.0 * high
            if high > MOST_LABELS:
                return None
        while high - low > 1.0:
            middle = (low + high) / 2.0
            low, high = (low, middle) if decided(middle) else (middle, high)
        looks = PRICE_OF_LOOKS if self.anytime else 1.0
        return math.ceil(looks * high * self.n / size)


def _confidence(level: float) -> float:
    """1 - exp(-level), kept below one."""
    return min(-math.expm1(-level), 1.0 - 1e-15)


@dataclass(frozen=True, kw_only=True)
class ErrorLevel:
    """A root mean squared error (``power`` 2) or a mean absolute error (1), with bounds by Student's t.

    The bounds are asymptotic, since no exact ones exist for errors without a largest one, and taken on the logarithm,
    where a mean of squares is less skewed. ``errors``: absolute, in the
    target's unit.
    """

    errors: tuple[float, ...]
    weights: tuple[float, ...]
    power: int = 2

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.errors)

    @property
    def value(self) -> float:
        """The error in the target's unit; NaN of nothing."""
        return self._root(_mean_of(self._terms(), self._w)) if self.n else math.nan

    def bound(self, side: Side, confidence: float) -> float:
        """One-sided bound."""
        mean, deviation, freedom = _mean(self._terms(), self._w)
        if not math.isfinite(deviation):
            return 0.0 if side == "lower" else math.inf
        reach = t_quantile(confidence, freedom) * deviation / max(mean, LEAST_ERROR)
        return self._root(mean * math.exp(-min(reach, MOST_EXPONENT) if side == "lower" else min(reach, MOST_EXPONENT)))

    def breaks(self, limit: float, side: Side) -> float:
        """The p-value of the one-sided t-test on the logarithm."""
        mean, deviation, freedom = _mean(self._terms(), self._w)
        mean, allowed = max(mean, LEAST_ERROR), max(limit, LEAST_ERROR) ** self.power
        distance = math.log(mean / allowed)
        return t_tail(distance if side == "upper" else -distance, deviation / mean, freedom)

    def needed(self, limit: float, side: Side, confidence: float, *, of: int = 1, now: bool = False) -> int | None:
        """Rows at which this error, if it stays what it is, is shown to keep or to break the limit."""
        mean, deviation, _ = _mean(self._terms(), self._w)
        return rows_for(normal_quantile(confidence), deviation, abs(mean - limit**self.power), self.n)

    @property
    def _w(self) -> Floats:
        return np.asarray(self.weights, dtype=np.float64)

    def _terms(self) -> Floats:
        return np.asarray(self.errors, dtype=np.float64) ** self.power

    def _root(self, mean: float) -> float:
        return float(mean ** (1.0 / self.power))


@dataclass(frozen=True, kw_only=True)
class ErrorRise:
    """The relative rise of a candidate's error over the champion's on the same rows; 0 where both are the same.

    A rise of at most *m* is the mean of ``candidate^p - (1 + m)^p champion^p`` being at most zero: a paired t-test at
    every *m*, whose inversion (E. C. Fieller, 1954) gives the bounds. Asymptotic, as for :class:`ErrorLevel`.
    """

    candidate: tuple[float, ...]
    champion: tuple[float, ...]
    weights: tuple[float, ...]
    power: int = 2

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.candidate)

    @property
    def value(self) -> float:
        """The relative rise; negative where the candidate is better; NaN of nothing."""
        if not self.n:
            return math.nan
        mine, theirs = (
            ErrorLevel(errors=e, weights=self.weights, power=self.power).value for e in (self.candidate, self.champion)
        )
        return (mine - theirs) / max(theirs, LEAST_ERROR)

    def bound(self, side: Side, confidence: float) -> float:
        """One-sided bound, at most :data:`MOST_RISE`."""
        if self.n < 2:
            return math.inf if side == "upper" else -1.0
        low, high = -1.0, MOST_RISE
        for _ in range(2 * STEPS):
            middle = (low + high) / 2.0
            mean, deviation, freedom = self._test(middle)
            reach = t_quantile(confidence, freedom) * deviation
            above = mean > reach if side == "lower" else mean > -reach  # a rise of ``middle`` is too small a one
            low, high = (middle, high) if above else (low, middle)
        return low if side == "lower" else high

    def breaks(self, limit: float, side: Side) -> float:
        """The p-value of the paired t-test."""
        mean, deviation, freedom = self._test(limit)
        return t_tail(mean if side == "upper" else -mean, deviation, freedom)

    def needed(self, limit: float, side: Side, confidence: float, *, of: int = 1, now: bool = False) -> int | None:
        """Rows with which a model of the champion's error is shown to keep the limit with the chance ``POWER``."""
        if limit <= 0.0 or self.n < 2:
            return None
        _, deviation, _ = self._test(limit)
        base = float(_mean_of(_terms(self.champion, self.power), self._w))
        distance = ((1.0 + limit) ** self.power - 1.0) * base
        return rows_for(
            normal_quantile(confidence) + normal_quantile(1.0 - (1.0 - POWER) / of), deviation, distance, self.n
        )

    @property
    def _w(self) -> Floats:
        return np.asarray(self.weights, dtype=np.float64)

    def _test(self, rise: float) -> tuple[float, float, float]:
        mine, theirs = _terms(self.candidate, self.power), _terms(self.champion, self.power)
        return _mean(mine - (1.0 + rise) ** self.power * theirs, self._w)


def _terms(errors: Sequence[float], power: int) -> Floats:
    return np.asarray(errors, dtype=np.float64) ** power


def _mean_of(values: Floats, weights: Floats) -> float:
    return float(np.average(values, weights=weights))


def _mean(values: Floats, weights: Floats) -> tuple[float, float, float]:
    """Mean, standard error and degrees of freedom of the effective size; an infinite error of fewer than two rows."""
    if len(values) < 2:
        return (_mean_of(values, weights) if len(values) else math.nan), math.inf, 1.0
    mean = _mean_of(values, weights)
    freedom = max(effective_size(weights.tolist()) - 1.0, 1.0)
    return mean, standard_error(values, weights, mean), freedom


def t_quantile(confidence: float, freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, confidence))


def normal_quantile(confidence: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(confidence))


def t_tail(distance: float, deviation: float, freedom: float) -> float:
    from scipy.special import stdtr

    if not math.isfinite(deviation) or math.isnan(distance):
        return 1.0
    if deviation <= 0.0:
        return 1.0 if distance <= 0.0 else 0.0
    return float(stdtr(freedom, -distance / deviation))


def rows_for(z: float, deviation: float, distance: float, n: int) -> int | None:
    if not (math.isfinite(deviation) and distance > 0.0 and n):
        return None
    total = math.ceil(n * (z * deviation / distance) ** 2)
    return max(total, 2) if total <= MOST_LABELS else None


def rows_beside(z: float, spread: float, against: float, distance: float) -> int | None:
    """Rows at which a bound keeps a distance that has one row added which moves a single row's mean by ``against``.

    ``spread``: the deviation of one row; ``z``: how many of the mean's own are to fit.
    """
    if not (math.isfinite(spread) and distance > 0.0):
        return None
    low, high = 1.0, 2.0
    while against / high + z * math.hypot(spread / math.sqrt(high), against / high) > distance:
        low, high = high, 2.0 * high
        if low > MOST_LABELS:
            return None
    while high - low > 1.0:
        middle = math.floor((low + high) / 2.0)
        kept = against / middle + z * math.hypot(spread / math.sqrt(middle), against / middle) <= distance
        low, high = (low, middle) if kept else (middle, high)
    return int(high) if high <= MOST_LABELS else None
