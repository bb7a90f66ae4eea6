"""Which of two to follow where the better one changes: fixed share.

Each has a weight. An outcome multiplies it by ``exp(-RATE * loss)``, and then each gives a part :data:`SHARE` of what
it has to the other, so that no past, however long, outweighs what has been seen since a change by much: some four
outcomes that only the other one got right are enough. Nothing is assumed of how outcomes come about.

M. Herbster and M. K. Warmuth, "Tracking the best expert" (Machine Learning 32, 1998), with two experts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

RATE = 1.0
"""How much a loss of one weighs, in nats."""

SHARE = 0.02
"""The part of its weight that each gives to the other at an outcome: a change in fifty outcomes."""

START = 0.1
"""The second one's weight at the start: it is followed once it has shown something."""


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """``weight``: of the second of two, in [0, 1]; the first has the rest.

    >>> state = Tracking()
    >>> for _ in range(3):
    ...     state = state.observe(1.0, 0.0)
    >>> state.second
    True

    Raises:
        ValueError: ``weight`` is not in [0, 1].

    """

    weight: float = START

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise ValueError(f"weight is {self.weight}: it must be in [0, 1]")

    def observe(self, first: float, second: float) -> Tracking:
        """The state after an outcome with these losses.

        Raises:
            ValueError: a loss is not in [0, 1].

        """
        if not (0.0 <= first <= 1.0 and 0.0 <= second <= 1.0):
            raise ValueError(f"losses {first} and {second} must be in [0, 1]")
        mine, theirs = self.weight * math.exp(-RATE * second), (1.0 - self.weight) * math.exp(-RATE * first)
        return Tracking(weight=SHARE + (1.0 - 2.0 * SHARE) * mine / (mine + theirs))

    @property
    def second(self) -> bool:
        """Whether the second one is to be followed; where both weigh the same, the first is."""
        return self.weight > 0.5
