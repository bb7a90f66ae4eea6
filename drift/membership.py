"""Whether it can be told from a model's answers which rows it learnt from: membership inference by a threshold of loss.

S. Yeom, I. Giacomelli, M. Fredrikson & S. Jha, "Privacy risk in machine learning: analyzing the connection to
overfitting" (CSF 2018, arXiv 1709.01604): who attacks takes a row for a member where the model's loss on it is small.
The *advantage* is the share of members that are found less the share of others that are taken for members.
"""

from __future__ import annotations

import math
from bisect import bisect_left
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
    """The area under the curve of an attack by a threshold of loss, with one-sided bounds of one look.

    It is the chance that a member has a smaller loss than another row, equal ones by half: the statistic of Mann and
    Whitney. Whatever the two distributions, its variance is at most ``value (1 - value) / least``, ``least`` being the
    fewer of members and others (D. van Dantzig, "On the consistency and the power of Wilcoxon's two sample test", Proc.
    KNAW A 54, 1951; Z. W. Birnbaum & O. M. Klose, "Bounds for the variance of the Mann-Whitney statistic", Ann. Math.
    Statist. 28, 1957): that of a share of so many rows. The bounds are those of such a share by C. J. Clopper & E. S.
    Pearson (Biometrika 26, 1934), with a number of hits that need not be whole. So they are right where nearly all rows
    are parted alike, and an estimate of the variance is none or far too small (that of DeLong, DeLong &
    Clarke-Pearson, Biometrics 44, 1988, say); between, they are wider than they need be, by a fifth or more.

    ``members`` and ``others``: how many rows there are of both.
    """

    value: float
    members: int
    others: int

    @classmethod
    def of(cls, members: Sequence[float], others: Sequence[float]) -> Area:
        """From the losses of rows that were learnt from, and of rows that were not."""
        there = len(members) and len(others)
        value = float(np.mean(_beyond(members, others))) if there else math.nan
        return cls(value=value, members=len(members), others=len(others))

    @property
    def n(self) -> int:
        """Rows of both kinds."""
        return self.members + self.others

    def bound(self, side: Side, confidence: float) -> float:
        """One-sided bound, in [0, 1]."""
        return self._bound(self._least, side, confidence)

    def breaks(self, limit: float, side: Side) -> float:
        """The level at which the bound on the other side crosses the limit; 1 where no level does."""
        from scipy.special import betainc

        least = self._least
        if not least:
            return 1.0
        hits = self.value * least
        if side == "upper":
            return float(betainc(hits, least - hits + 1.0, limit)) if hits > 0.0 else 1.0
        return float(betainc(least - hits, hits + 1.0, 1.0 - limit)) if hits < least else 1.0

    def needed(self, limit: float, side: Side, confidence: float, *, of: int = 1, now: bool = False) -> int | None:
        """Rows at which this area, if it stays what it is, is shown to keep or to break the limit."""
        if not self._least or self.value == limit:
            return None
        towards: Side = "upper" if self.value < limit else "lower"

        def shown(least: int) -> bool:
            bound = self._bound(least, towards, confidence)
            return bound <= limit if towards == "upper" else bound >= limit

        if not shown(MOST_LABELS):
            return None
        least = bisect_left(range(MOST_LABELS), True, lo=1, key=shown)
        total = math.ceil(least * self.n / self._least)
        return max(total, 2) if total <= MOST_LABELS else None

    def _bound(self, least: int, side: Side, confidence: float) -> float:
        from scipy.special import betaincinv

        if not least:
            return 0.0 if side == "lower" else 1.0
        hits = self.value * least
        if side == "lower":
            return float(betaincinv(hits, least - hits + 1.0, 1.0 - confidence)) if hits > 0.0 else 0.0
        return float(betaincinv(hits + 1.0, least - hits, confidence)) if hits < least else 1.0

    @property
    def _least(self) -> int:
        return min(self.members, self.others)


def _beyond(losses: Sequence[float], than: Sequence[float]) -> npt.NDArray[np.float64]:
    """Of each loss the share of the others that are larger, equal ones by half."""
    ordered = np.sort(np.asarray(than, dtype=np.float64))
    right = np.searchsorted(ordered, losses, side="right")
    left = np.searchsorted(ordered, losses, side="left")
    return (len(ordered) - 0.5 * (left + right)) / len(ordered)


def auc(members: Sequence[float], others: Sequence[float]) -> float | None:
    """The chance that a member has a smaller loss than another row, equal ones by half; None where either are none.

    >>> auc([0.1, 0.2], [0.2, 0.9])
    0.875
    """
    return Area.of(members, others).value if members and others else None
