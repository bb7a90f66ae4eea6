"""Whether it can be told from a model's answers which rows it learnt from: membership inference by a threshold of loss.

S. Yeom, I. Giacomelli, M. Fredrikson & S. Jha, "Privacy risk in machine learning: analyzing the connection to
overfitting" (CSF 2018, arXiv 1709.01604): who attacks takes a row for a member where the model's loss on it is small.
The *advantage* is the share of members that are found less the share of others that are taken for members.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drift.gap import Difference
from drift.measured import Share


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


def auc(members: Sequence[float], others: Sequence[float]) -> float | None:
    """The chance that a member has a smaller loss than another row, equal ones by half; None where either are none.

    >>> auc([0.1, 0.2], [0.2, 0.9])
    0.875
    """
    if not members or not others:
        return None
    outside = np.sort(np.asarray(others))
    above = len(outside) - np.searchsorted(outside, members, side="right")
    equal = len(outside) - np.searchsorted(outside, members, side="left") - above
    return float((above + 0.5 * equal).mean() / len(outside))
