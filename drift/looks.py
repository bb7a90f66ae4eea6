"""What each further look at one holdout costs."""

from __future__ import annotations

SPENT = 4.0
"""Each further look at one holdout has this part of the level of the look before (:func:`level_of`)."""


def level_of(confidence: float, look: int) -> float:
    """The confidence of the bounds at the ``look``-th student that is judged on one holdout.

    What comes back from a holdout to training is one bit a look, whether the student was promoted, so that after *k*
    looks one of 2^k students can stand there. With a level of ``alpha / 4^(k-1)`` at look *k*, a sum over all of them
    and over all looks, however many, is at most 2 ``alpha``: the argument of A. Blum & M. Hardt, "The ladder: a
    reliable leaderboard for machine learning competitions" (ICML 2015), for feedback of one bit.
    """
    return 1.0 - (1.0 - confidence) / SPENT ** (look - 1)
