"""How well spans are found: F1 by exact boundaries and kind, with bounds, alone and against another model's.

F1 = 2 tp / (said + true) (N. Chinchor, MUC-4, 1992; as CoNLL counts it, E. F. Tjong Kim Sang & F. De Meulder, 2003) is
the share of *mentions*, said and true ones, that are matched. Mentions of one text hang together, so that texts are
what is drawn: the variance is that of a ratio over texts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from drift.paired import MOST_LABELS, POWER, Side
from drift.quality import effective_size

Floats = npt.NDArray[np.float64]


class Counts(NamedTuple):
    """Spans of one text: those that are said and true, all that are said, and all that are true."""

    both: int
    said: int
    true: int

    @classmethod
    def of(cls, said: Collection[Hashable], true: Collection[Hashable]) -> Counts:
        """From the spans themselves, each of which is there once."""
        return cls(len(set(said) & set(true)), len(set(said)), len(set(true)))


@dataclass(frozen=True, kw_only=True)
class SpanF1:
    """F1 over texts, in [0, 1]; NaN where neither side has a span.

    The bounds are those of Clopper and Pearson for the number of independent mentions that would have the same
    variance (E. L. Korn & B. I. Graubard, Survey Methodology 24, 1998), at most one a text that has any: so a model
    without an error on few texts is not taken for one without any.
    """

    counts: tuple[Counts, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.weights):
            raise ValueError(f"{len(self.weights)} weights for {len(self.counts)} texts")

    @property
    def n(self) -> int:
        """Texts that have a span, on either side."""
        return int((self._all > 0).sum())

    @property
    def value(self) -> float:
        """F1."""
        total = float((self._w * self._all).sum())
        return float((self._w * self._hits).sum()) / total if total > 0 else math.nan

    @property
    def precision(self) -> float:
        """The share of what is said that is true; NaN where nothing is said."""
        return self._share(1)

    @property
    def recall(self) -> float:
        """The share of what is true that is said; NaN where nothing is true."""
        return self._share(2)

    def bound(self, side: Side, confidence: float) -> float:
        """One-sided bound."""
        from scipy.special import betaincinv

        hits, size = self._effective()
        if not size:
            return 0.0 if side == "lower" else 1.0
        if side == "lower":
            return float(betaincinv(hits, size - hits + 1.0, 1.0 - confidence)) if hits > 0 else 0.0
        return float(betaincinv(hits + 1.0, size - hits, confidence)) if hits < size else 1.0

    def breaks(self, limit: float, side: Side) -> float:
        """The level at which the bound on the other side crosses the limit."""
        from scipy.special import betainc

        hits, size = self._effective()
        if not size or not 0.0 < limit < 1.0:
            return 1.0 if not size or (limit >= 1.0) == (side == "upper") else _certain(self.value, limit)
        if side == "lower":
            return 1.0 - float(betainc(hits + 1.0, size - hits, limit)) if hits < size else 1.0
        return float(betainc(hits, size - hits + 1.0, limit)) if hits > 0 else 1.0

    def needed(self, limit: float, side: Side, confidence: float, *, of: int = 1, now: bool = False) -> int | None:
        """Texts with a span at which this F1, if it stays what it is, is shown to keep or to break the limit."""
        from scipy.special import betaincinv

        _, size = self._effective()
        f1 = self.value
        if not size or f1 == limit:
            return None
        below = f1 > limit

        def decided(n: float) -> bool:
            hits = f1 * n
            if below:
                return hits > 0 and float(betaincinv(hits, n - hits + 1.0, 1.0 - confidence)) >= limit
            return hits < n and float(betaincinv(hits + 1.0, n - hits, confidence)) <= limit

        low, high = 1.0, max(2.0, size)
        while not decided(high):
            low, high = high, 2.0 * high
            if high > MOST_LABELS:
                return None
        while high - low > 1.0:
            middle = (low + high) / 2.0
            low, high = (low, middle) if decided(middle) else (middle, high)
        return math.ceil(high * self.n / size)

    @property
    def _w(self) -> Floats:
        return np.asarray(self.weights, dtype=np.float64)

    @property
    def _hits(self) -> Floats:
        return np.array([2.0 * c.both for c in self.counts])

    @property
    def _all(self) -> Floats:
        return np.array([float(c.said + c.true) for c in self.counts])

    def _share(self, of: int) -> float:
        total = float((self._w * np.array([float(c[of]) for c in self.counts])).sum())
        return float((self._w * np.array([float(c.both) for c in self.counts])).sum()) / total if total else math.nan

    def _effective(self) -> tuple[float, float]:
        """Independent mentions of the same variance, and how many of them are hits."""
        there = self._all > 0
        if not there.any():
            return 0.0, 0.0
        size, f1 = effective_size(self._w[there].tolist()), self.value
        deviation = _deviation(self._w * (self._hits - f1 * self._all), float((self._w * self._all).sum()))
        if deviation > 0.0 and math.isfinite(deviation):
            size = min(size, f1 * (1.0 - f1) / deviation**2)
        return f1 * size, size


@dataclass(frozen=True, kw_only=True)
class SpanF1Loss:
    """The champion's F1 less the candidate's on the same texts, in [-1, 1]; NaN where one of them has none.

    Bounds by Student's t of the difference of two ratios over texts, linearised; never nearer to the difference than
    what was not seen on so many texts may be with the chance that is left, 1 - (1 - confidence)^(1/n): two models
    that say the same of few texts may still differ.
    """

    candidate: tuple[Counts, ...]
    champion: tuple[Counts, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.candidate) == len(self.champion) == len(self.weights):
            raise ValueError("a candidate and a champion are compared on the same texts")

    @property
    def n(self) -> int:
        """Texts of which one of them, or the truth, has a span."""
        return int(self._there.sum())

    @property
    def value(self) -> float:
        """The loss."""
        return self._of(self.champion).value - self._of(self.candidate).value

    def bound(self, side: Side, confidence: float) -> float:
        """One-sided bound, within [-1, 1]."""
        from scipy.special import stdtrit

        if self.n < 2 or math.isnan(self.value):
            return -1.0 if side == "lower" else 1.0
        deviation, size = self._spread()
        unseen = -math.expm1(math.log1p(-confidence) / size)
        reach = max(float(stdtrit(size - 1.0, confidence)) * deviation, unseen)
        return max(-1.0, self.value - reach) if side == "lower" else min(1.0, self.value + reach)

    def breaks(self, limit: float, side: Side) -> float:
        """The p-value of the paired t-test, at least that with which so many texts would not show a difference."""
        from scipy.special import stdtr

        beyond = self.value - limit if side == "upper" else limit - self.value
        if self.n < 2 or math.isnan(beyond) or beyond <= 0.0:
            return 1.0
        deviation, size = self._spread()
        unseen = math.exp(size * math.log1p(-min(beyond, 1.0 - 1e-12)))
        return max(float(stdtr(size - 1.0, -beyond / deviation)) if deviation > 0.0 else 0.0, unseen)

    def needed(self, limit: float, side: Side, confidence: float, *, of: int = 1, now: bool = False) -> int | None:
        """Texts with a span on which a model as good as the champion is shown to keep the limit, with ``POWER``."""
        from scipy.special import ndtri

        if limit <= 0.0 or self.n < 2 or math.isnan(self.value):
            return None
        deviation, size = self._spread()
        z = float(ndtri(confidence)) + float(ndtri(1.0 - (1.0 - POWER) / of))
        least = math.log1p(-confidence) / math.log1p(-limit) if limit < 1.0 else 1.0
        total = math.ceil(max(size * (z * deviation / limit) ** 2, least) * self.n / size)
        return max(total, 2) if total <= MOST_LABELS else None

    @property
    def _there(self) -> npt.NDArray[np.bool_]:
        return np.array([a.said + a.true + b.said > 0 for a, b in zip(self.candidate, self.champion, strict=True)])

    def _of(self, counts: Sequence[Counts]) -> SpanF1:
        return SpanF1(counts=tuple(counts), weights=self.weights)

    def _spread(self) -> tuple[float, float]:
        """The standard error of the loss, and the number of texts of equal weight that there are, at least 2."""
        weights = np.asarray(self.weights, dtype=np.float64)
        parts = []
        for side in (self.champion, self.candidate):
            of = self._of(side)
            total = float((weights * of._all).sum())
            parts.append(weights * (of._hits - of.value * of._all) / total)
        size = effective_size(weights[self._there].tolist())
        return _deviation(parts[0] - parts[1], 1.0), max(size, 2.0)


def _deviation(residuals: Floats, total: float) -> float:
    """The standard error of a ratio over texts, from its residuals; NaN of one text."""
    n = len(residuals)
    return math.sqrt(n / (n - 1) * float((residuals**2).sum())) / total if n > 1 else math.nan


def _certain(value: float, limit: float) -> float:
    """The p-value of a limit at an end of the scale that no share keeps but one that is at it."""
    return 1.0 if value == limit else 0.0
