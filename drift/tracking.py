"""Which of two to follow where that depends on the input and changes: fixed share over thresholds.

Every input has a *score*: how much speaks for the second of two that answer. The second is followed from a threshold of
it on. Each threshold is an expert with a weight, and so is that there is none, which always follows the first. An
outcome multiplies each weight by ``exp(-RATE * loss)``, the loss being that of the one which the expert follows at the
outcome's score; then all give a part :data:`SHARE` of what they have, which is dealt out as the weights were at the
start, so that no past, however long, outweighs what has been seen since a change by much: eight outcomes that only the
other one got right are enough.

Nothing is assumed of how outcomes come about, and in particular not that their scores are those of the inputs that are
decided. Where most outcomes are of high scores, at which the second wins, they tell nothing apart of the thresholds
below: it is followed down to the middle of those, and few outcomes of lower scores are enough to raise that.

M. Herbster and M. K. Warmuth, "Tracking the best expert" (Machine Learning 32, 1998).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

RATE = 1.0
"""How much a loss of one weighs, in nats."""

SHARE = 0.02
"""The part of all weight that is dealt out anew at an outcome: a change in fifty outcomes."""

PLACES = 20
"""Thresholds, evenly from 0 on."""

FIRST = 0.9
"""The weight, at the start, of no threshold: the second is followed once it has shown something."""

START = (*[(1.0 - FIRST) / PLACES] * PLACES, FIRST)


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """``weights``: of each threshold in rising order, and of none; their sum is one.

    >>> state = Tracking()
    >>> for _ in range(5):
    ...     state = state.observe(0.8, first=1.0, second=0.0)
    >>> state.second(0.8), state.second(0.2)
    (True, False)

    Raises:
        ValueError: the weights are of another number, below zero, or of another sum.

    """

    weights: tuple[float, ...] = START

    def __post_init__(self) -> None:
        fit = len(self.weights) == PLACES + 1 and all(w >= 0.0 for w in self.weights)
        if not (fit and math.isclose(sum(self.weights), 1.0, rel_tol=1e-9)):
            raise ValueError(f"weights are {self.weights}: they must be {PLACES + 1} shares whose sum is 1")

    def observe(self, score: float, first: float, second: float) -> Tracking:
        """The state after an outcome with these losses.

        Raises:
            ValueError: the score or a loss is not in [0, 1].

        """
        if not (0.0 <= first <= 1.0 and 0.0 <= second <= 1.0):
            raise ValueError(f"losses {first} and {second} must be in [0, 1]")
        follow = _reached(score)
        kept = [w * math.exp(-RATE * (second if n < follow else first)) for n, w in enumerate(self.weights)]
        whole = sum(kept)
        return Tracking(weights=tuple((1.0 - SHARE) * w / whole + SHARE * s for w, s in zip(kept, START, strict=True)))

    def second(self, score: float) -> bool:
        """Whether the second one is to be followed at a score; where both weigh the same, the first is.

        Raises:
            ValueError: the score is not in [0, 1].

        """
        return sum(self.weights[: _reached(score)]) > 0.5


def _reached(score: float) -> int:
    """How many thresholds are at the score or below it."""
    if not 0.0 <= score <= 1.0:
        raise ValueError(f"score is {score}: it must be in [0, 1]")
    return min(PLACES, int(score * PLACES) + 1)
