"""A test of a bounded mean that may be looked at after every observation: testing by betting.

Source: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting" (Journal of the Royal
Statistical Society B 86, 2024); the mixture over constant bets is their grid martingale, one-sided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

FRACTIONS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Bets as fractions of the largest that cannot go bankrupt. Small ones see mild excess, large ones gross excess: the
best fraction is ``(mean - bound) / (1 - bound)``, and one within a factor of two of it grows at least half as fast."""

MOST = 1e6
"""Logarithms of capitals stop here, so that the state is finite numbers, also in JSON. Stopping only loses evidence."""


@dataclass(frozen=True, kw_only=True)
class EProcess:
    """A one-sided test of the hypothesis that the mean of observations in [0, 1] is at most ``bound``.

    For each fraction *f* of :data:`FRACTIONS`, with the bet ``λ = f / bound``, a capital starts at one and becomes
    ``K ← K (1 + λ (x - bound))`` at every observation *x*; it stays positive since ``f < 1``. Under the hypothesis
    (each observation's mean, given those before, is at most ``bound``) the capitals are supermartingales, and so is
    their mean, the e-value; by Ville's inequality it ever reaches ``1 / alpha`` with a chance of at most ``alpha``,
    however often and whenever it is looked at.

    A ``bound`` of 0 is refuted by any positive observation, and nothing refutes one of 1. ``total`` is the sum of the
    ``n`` observations, ``log_capitals`` the natural logarithms of the capitals.

    >>> test = EProcess(bound=0.2)
    >>> for x in (1, 0, 1, 1, 1, 1):
    ...     test = test.observe(x)
    >>> test.n, round(test.e_value, 1), test.rejects(0.02)
    (6, 66.8, True)

    Raises:
        ValueError: ``bound`` is not in [0, 1], or the state is not one that this version wrote.

    """

    bound: float
    n: int = 0
    total: float = 0.0
    log_capitals: tuple[float, ...] = (0.0,) * len(FRACTIONS)

    def __post_init__(self) -> None:
        if not 0.0 <= self.bound <= 1.0:
            raise ValueError(f"bound is {self.bound}: it must be in [0, 1]")
        if len(self.log_capitals) != len(FRACTIONS):
            raise ValueError(f"{len(self.log_capitals)} capitals for {len(FRACTIONS)} bets: start the test anew")

    def observe(self, x: float) -> EProcess:
        """The process after one more observation.

        Raises:
            ValueError: ``x`` is not in [0, 1].

        """
        if not 0.0 <= x <= 1.0:
            raise ValueError(f"observation {x} is not in [0, 1]")
        return replace(self, n=self.n + 1, total=self.total + x, log_capitals=self._after(x))

    def _after(self, x: float) -> tuple[float, ...]:
        if self.bound == 1.0:
            return self.log_capitals
        if self.bound == 0.0:
            return (MOST,) * len(FRACTIONS) if x > 0.0 else self.log_capitals
        gain = x / self.bound - 1.0
        return tuple(min(c + math.log1p(f * gain), MOST) for c, f in zip(self.log_capitals, FRACTIONS, strict=True))

    @property
    def log_e_value(self) -> float:
        """Natural logarithm of :attr:`e_value`."""
        most = max(self.log_capitals)
        return most + math.log(math.fsum(math.exp(c - most) for c in self.log_capitals) / len(FRACTIONS))

    @property
    def e_value(self) -> float:
        """Evidence against the hypothesis: 1 at the start, large when the mean is above the bound; at most 1e304."""
        return math.exp(min(self.log_e_value, 700.0))

    @property
    def mean(self) -> float | None:
        """Mean of the observations; None before the first."""
        return self.total / self.n if self.n else None

    def rejects(self, alpha: float) -> bool:
        """Whether the hypothesis is rejected at level ``alpha``, at whatever time this is asked.

        Raises:
            ValueError: ``alpha`` is not in (0, 1).

        """
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha is {alpha}: it must be in (0, 1)")
        return self.log_e_value >= -math.log(alpha)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data from which :meth:`from_dict` makes an equal process."""
        return {"bound": self.bound, "n": self.n, "total": self.total, "log_capitals": list(self.log_capitals)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EProcess:
        """The process that :meth:`as_dict` described."""
        return cls(bound=data["bound"], n=data["n"], total=data["total"], log_capitals=tuple(data["log_capitals"]))
