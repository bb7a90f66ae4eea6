"""Whether it can be told from a model's answers which rows it learnt from: membership inference by a threshold of loss.

S. Yeom, I. Giacomelli, M. Fredrikson & S. Jha, "Privacy risk in machine learning: analyzing the connection to
overfitting" (CSF 2018, arXiv 1709.01604): who attacks takes a row for a member where the model's loss on it is small.
The *advantage* is the share of members that are found less the share of others that are taken for members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drift.gap import Difference
from drift.measured import Share
from drift.paired import MOST_LABELS, Side


def advantage(members: Sequence[float], others: Sequence[float], *, anytime: bool = False) -> Difference:
    """The attack's advantage, from the losses of rows that were learnt from and of rows that were not.

    The threshold is the one that parts the rows in even places best, and the advantage is that on the rows in odd
    places, so that the bounds are those of a threshold that was given beforehand. An attack that knows more may find
    more: the advantage is what this one has, and no bound on others. ``anytime``: each side has a confidence sequence,
    at half of the level.

    >>> advantage([0.0] * 40, [1.0] * 40).value
    1.0
    """
    found = _threshold(members[::2], others[::2])
    return Difference(one=_below(members[1::2], found, anytime), two=_below(others[1::2], found, anytime))


def _threshold(members: Sequence[float], others: Sequence[float]) -> float:
    """The loss at or below which most more members are than others; below all of them where no loss tells anything."""
    if not members or not others:
        return -np.inf
    inside, outside = np.sort(np.asarray(members)), np.sort(np.asarray(others))
    at = np.unique(inside)
    gain = np.searchsorted(inside, at, side="right") / len(inside)
    gain = gain - np.searchsorted(outside, at, side="right") / len(outside)
    return float(at[int(gain.argmax())])


def _below(losses: Sequence[float], threshold: float, anytime: bool) -> Share:
    hits = tuple(bool(x <= threshold) for x in losses)
    return Share(hits=hits, weights=(1.0,) * len(losses), anytime=anytime)


@dataclass(frozen=True, kw_only=True)
class Area:
    """The area under the curve of an attack by a threshold of loss, with one-sided bounds.

    It is the chance that a member has a smaller loss than another row, equal ones by half: the statistic of Mann and
    Whitney, whose variance is that of E. R. DeLong, D. M. DeLong & D. L. Clarke-Pearson, "Comparing the areas under two
    or more correlated receiver operating characteristic curves: a nonparametric approach" (Biometrics 44, 1988). The
    bounds are normal, hence asymptotic, and of one look. Where all rows are parted alike (an area of 0 or 1, say) that
    variance is none, and they are those of W. Hoeffding, "Probability inequalities for sums of bounded random
    variables" (JASA 58, 1963), 5.7, which hold for any number of rows.

    ``members``: of each member the share of other rows with a larger loss; ``others``: of each other row the share of
    members with a smaller one.
    """

    members: tuple[float, ...]
    others: tuple[float, ...]

    @classmethod
    def of(cls, members: Sequence[float], others: Sequence[float]) -> Area:
        """From the losses of rows that were learnt from, and of rows that were not."""
        return cls(
            members=tuple(_beyond(members, others).tolist()),
            others=tuple((1.0 - _beyond(others, members)).tolist()),
        )

    @property
    def n(self) -> int:
        """Rows of both kinds."""
        return len(self.members) + len(self.others)

    @property
    def value(self) -> float:
        """The area, in [0, 1]; 0.5 tells nothing; NaN where either are none."""
        return float(np.mean(self.members)) if self.members and self.others else math.nan

    @property
    def deviation(self) -> float:
        """The standard error by DeLong; infinite of fewer than two rows on either side."""
        if min(len(self.members), len(self.others)) < 2:
            return math.inf
        return math.sqrt(sum(float(np.var(x, ddof=1)) / len(x) for x in (self.members, self.others)))

    def bound(self, side: Side, confidence: float) -> float:
        """One-sided bound, in [0, 1]."""
        if not math.isfinite(self.deviation):
            return 0.0 if side == "lower" else 1.0
        reach = _normal(confidence) * self.deviation
        if self.deviation == 0.0:
            reach = math.sqrt(-math.log(1.0 - confidence) / (2.0 * self._least))
        return max(0.0, self.value - reach) if side == "lower" else min(1.0, self.value + reach)

    def breaks(self, limit: float, side: Side) -> float:
        """The level at which the bound on the other side crosses the limit; 1 where the limit is kept."""
        from scipy.special import ndtr

        distance = self.value - limit if side == "upper" else limit - self.value
        if not math.isfinite(self.deviation):
            return 1.0
        if self.deviation == 0.0:
            return math.exp(-2.0 * self._least * distance**2) if distance > 0.0 else 1.0
        return float(ndtr(-distance / self.deviation))

    def needed(self, limit: float, side: Side, confidence: float, *, of: int = 1, now: bool = False) -> int | None:
        """Rows at which this area, if it stays what it is, is shown to keep or to break the limit."""
        distance = abs(self.value - limit)
        if not math.isfinite(self.deviation) or not distance > 0.0:
            return None
        ratio = (_normal(confidence) * self.deviation / distance) ** 2
        if self.deviation == 0.0:
            ratio = -math.log(1.0 - confidence) / (2.0 * self._least * distance**2)
        total = math.ceil(self.n * ratio)
        return max(total, 2) if total <= MOST_LABELS else None

    @property
    def _least(self) -> int:
        return min(len(self.members), len(self.others))


def _beyond(losses: Sequence[float], than: Sequence[float]) -> npt.NDArray[np.float64]:
    """Of each loss the share of the others that are larger, equal ones by half."""
    if not than:
        return np.full(len(losses), math.nan)
    ordered = np.sort(np.asarray(than, dtype=np.float64))
    right = np.searchsorted(ordered, losses, side="right")
    left = np.searchsorted(ordered, losses, side="left")
    return (len(ordered) - 0.5 * (left + right)) / len(ordered)


def _normal(confidence: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(confidence))


def auc(members: Sequence[float], others: Sequence[float]) -> float | None:
    """The chance that a member has a smaller loss than another row, equal ones by half; None where either are none.

    >>> auc([0.1, 0.2], [0.2, 0.9])
    0.875
    """
    return Area.of(members, others).value if members and others else None
