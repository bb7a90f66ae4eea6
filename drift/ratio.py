"""Means of ratios with their uncertainty: F1 scores and the like, in which rows count for as much as they have in them.

A ratio is ``sum(w top) / sum(w bottom)`` over rows, as the micro-averaged F1 of sets of classes is with twice the
classes that answer and truth share above and the classes of both below (C. J. van Rijsbergen, "Information retrieval",
1979); a mean of several, one for each class, is the macro-averaged one. Bounds are those of the delta method: with the
residuals ``top - ratio * bottom`` over the mean bottom as a row's influence, Student's t on their mean. To each bound
one row is added that has everything against it, so that rows which are all right do not make a bound without width: of
n rows that are the bound is then about ``1 - 2.3 / n`` at 90 %, as the exact one of a share is.

Rows with nothing below say nothing: they are left out first, so that neither the size of the row that is added nor what
counts as evidence (n, the degrees of freedom) is of texts without a span or inputs without a class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drift.measured import normal_quantile, rows_for, t_quantile, t_tail
from drift.paired import POWER, Side
from drift.quality import effective_size, standard_error

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

Counts = tuple[tuple[float, ...], ...]
"""Of each row, what is counted in each of the groups that a mean is taken over."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """The mean over groups of ``sum(w tops) / sum(w bottoms)``, each in [0, 1]; groups with nothing below count not."""

    tops: Counts
    bottoms: Counts
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.tops) == len(self.bottoms) == len(self.weights):
            raise ValueError(f"{len(self.tops)} and {len(self.bottoms)} counts of {len(self.weights)} rows")

    @property
    def n(self) -> int:
        """Rows that have something below."""
        return int(self._there.sum())

    @property
    def value(self) -> float:
        """The mean ratio; NaN where nothing is below any."""
        return _influences(*_arrays(self, self._there))[0]

    def bound(self, side: Side, confidence: float) -> float:
        """One-sided bound."""
        value, deviation, freedom = self._against(side)
        if not math.isfinite(deviation):
            return 0.0 if side == "lower" else 1.0
        reach = t_quantile(confidence, freedom) * deviation
        return max(0.0, value - reach) if side == "lower" else min(1.0, value + reach)

    def breaks(self, limit: float, side: Side) -> float:
        """The p-value of the one-sided t-test that the limit is kept."""
        value, deviation, freedom = self._against("upper" if side == "lower" else "lower")
        return t_tail(limit - value if side == "lower" else value - limit, deviation, freedom)

    def needed(self, limit: float, side: Side, confidence: float, *, of: int = 1, now: bool = False) -> int | None:
        """Rows at which this ratio, if it stays what it is, is shown to keep or to break the limit."""
        _, deviation, _ = self._against(side)
        return rows_for(normal_quantile(confidence), deviation, abs(self.value - limit), self.n) if self.n else None

    @property
    def _there(self) -> Flags:
        """Which rows have something below."""
        return np.array([any(row) for row in self.bottoms], dtype=np.bool_)

    def _against(self, side: Side) -> tuple[float, float, float]:
        """Ratio, standard error and degrees of freedom, with one row more that lowers, or raises, it."""
        added = 0.0 if side == "lower" else 1.0
        value, influences, weights = _influences(*_arrays(self, self._there, added))
        return value, *_error(influences, weights)


@dataclass(frozen=True, kw_only=True)
class RatioLoss:
    """How much less a candidate's mean ratio is than a champion's on the same rows: > 0 where it is worse."""

    candidate: Ratio
    champion: Ratio

    @property
    def n(self) -> int:
        """Rows that have something below on either side."""
        return int(self._there.sum())

    @property
    def value(self) -> float:
        """The difference, in [-1, 1]; NaN where either has none."""
        return self.champion.value - self.candidate.value

    def bound(self, side: Side, confidence: float) -> float:
        """One-sided bound."""
        value, deviation, freedom = self._against(side)
        if not math.isfinite(deviation):
            return -1.0 if side == "lower" else 1.0
        reach = t_quantile(confidence, freedom) * deviation
        return max(-1.0, value - reach) if side == "lower" else min(1.0, value + reach)

    def breaks(self, limit: float, side: Side) -> float:
        """The p-value of the paired t-test that the limit is kept."""
        value, deviation, freedom = self._against("upper" if side == "lower" else "lower")
        return t_tail(limit - value if side == "lower" else value - limit, deviation, freedom)

    def needed(self, limit: float, side: Side, confidence: float, *, of: int = 1, now: bool = False) -> int | None:
        """Rows with which a model that is as good as the champion is shown to keep the limit with the chance POWER."""
        if limit <= 0.0 or self.n < 2:
            return None
        _, deviation, _ = self._against(side)
        return rows_for(
            normal_quantile(confidence) + normal_quantile(1.0 - (1.0 - POWER) / of), deviation, limit, self.n
        )

    def _against(self, side: Side) -> tuple[float, float, float]:
        """As for a ratio: the row that is added is one that one of the two has right, and the other wrong."""
        worse, there = 1.0 if side == "lower" else 0.0, self._there
        mine, own, weights = _influences(*_arrays(self.candidate, there, worse))
        theirs, others, _ = _influences(*_arrays(self.champion, there, 1.0 - worse))
        return theirs - mine, *_error(others - own, weights)

    @property
    def _there(self) -> Flags:
        return np.logical_or(self.candidate._there, self.champion._there)


def _arrays(ratio: Ratio, there: Flags, added: float | None = None) -> tuple[Floats, Floats, Floats]:
    """The counts and weights of the rows that are there, with one row more of their mean size that has this ratio."""
    counts = (ratio.tops, ratio.bottoms, ratio.weights)
    above, below, w = (np.asarray(x, dtype=np.float64)[there] for x in counts)
    if added is None or not len(w):
        return above, below, w
    mean = np.average(below, axis=0, weights=w)
    return np.vstack([above, added * mean]), np.vstack([below, mean]), np.append(w, w.mean())


def _influences(above: Floats, below: Floats, weights: Floats) -> tuple[float, Floats, Floats]:
    """The mean ratio, how much each row moves it, and the rows' weights; NaN where nothing is below."""
    if not len(weights):
        return math.nan, np.zeros(0), weights
    sizes = np.average(below, axis=0, weights=weights)
    there = sizes > 0.0
    if not there.any():
        return math.nan, np.zeros(len(weights)), weights
    above, below, sizes = above[:, there], below[:, there], sizes[there]
    ratios = np.average(above, axis=0, weights=weights) / sizes
    return float(ratios.mean()), ((above - ratios * below) / sizes).mean(axis=1), weights


def _error(influences: Floats, weights: Floats) -> tuple[float, float]:
    """The standard error of a mean of influences, and its degrees of freedom; infinite of fewer than three rows."""
    if len(weights) < 3:
        return math.inf, 1.0
    freedom = max(effective_size(weights.tolist()) - 1.0, 1.0)
    return standard_error(influences, weights, 0.0), freedom
