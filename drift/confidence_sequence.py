"""Bounds of a bounded mean that hold at all times together, however often and whenever they are looked at.

I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting" (Journal of the Royal
Statistical Society B 86, 2024): the bound is the outermost mean against which no mixture of bets has won ``1 / alpha``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from drift.betting import FRACTIONS

HALVINGS = 30
"""Halvings of [0, 1]: the bound is exact to 1e-9. Evidence against a mean grows with its distance, so this works."""

EDGE = 1e-9


def anytime_bound(observations: Sequence[float], side: Literal["lower", "upper"], confidence: float) -> float:
    """The bound after these observations in [0, 1], in their order; with a chance of ``confidence`` it always held.

    It is the tightest so far, so that it never gets worse by more observations; 0 or 1 of nothing.

    >>> round(anytime_bound([1.0] * 50, "lower", 0.95), 2)
    0.91

    Raises:
        ValueError: an observation is not in [0, 1], or ``confidence`` not in (0, 1).

    """
    x = np.asarray(observations, dtype=np.float64)
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError("observations must be in [0, 1]")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}: it must be in (0, 1)")
    if side == "upper":
        return 1.0 - anytime_bound((1.0 - x).tolist(), "lower", confidence)
    wanted, low, high = -np.log(1.0 - confidence), 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _most_won(x, max(middle, EDGE)) >= wanted else (low, middle)
    return low


def upper_of_counts(ones: int, of: int, confidence: float) -> float:
    """The upper bound after ``of`` observations of which ``ones`` were 1 and the others 0, in whatever order.

    With a chance of ``confidence`` it holds at all times together; unlike :func:`anytime_bound` it may get worse by
    more observations, and needs none of them kept. 1 of nothing.

    >>> round(upper_of_counts(0, 50, 0.95), 2)
    0.09

    Raises:
        ValueError: ``ones`` is not in [0, of], or ``confidence`` not in (0, 1).

    """
    if not 0 <= ones <= of:
        raise ValueError(f"{ones} ones of {of} observations")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}: it must be in (0, 1)")
    wanted, low, high, bets = -np.log(1.0 - confidence), 0.0, 1.0, np.asarray(FRACTIONS)
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        mean = max(middle, EDGE)
        capitals = (of - ones) * np.log1p(bets * (1.0 / mean - 1.0)) + ones * np.log1p(-bets)
        won = capitals.max() + np.log(np.exp(capitals - capitals.max()).mean())
        low, high = (middle, high) if won >= wanted else (low, middle)
    return float(1.0 - low)


def _most_won(x: np.typing.NDArray[np.float64], mean: float) -> float:
    """Logarithm of the most that the mixture of bets against a mean of at most ``mean`` has had at any time."""
    if not len(x):
        return 0.0
    gains = np.log1p(np.asarray(FRACTIONS)[:, np.newaxis] * (x / mean - 1.0))
    capitals = np.cumsum(gains, axis=1)
    top = capitals.max(axis=0)
    return float((top + np.log(np.exp(capitals - top).mean(axis=0))).max())
