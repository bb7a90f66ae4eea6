"""A test of a bounded mean that may be looked at after every observation: testing by betting.

Source: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", Journal of the Royal
Statistical Society B 86 (2024); the mixture over constant bets is their "grid" martingale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Bets as fractions of the largest that cannot go bankrupt: small ones see mild excess, large ones gross excess."""

LOG_WEIGHT = -math.log(len(FRACTIONS))


@dataclass(frozen=True, kw_only=True)
class EProcess:
    """A one-sided test of the hypothesis that the mean of observations in [0, 1] is at most ``bound``.

    For each bet λ the capital is multiplied by ``1 + λ (x - bound)`` at every observation *x*, with λ below
    ``1 / bound`` so that it stays positive. Under the hypothesis each capital, and so their mean, the e-value, is a
    supermartingale that starts at one, and by Ville's inequality it ever reaches ``1 / alpha`` with probability
    at most alpha, however often it is looked at. A ``bound`` of 0 is refuted by any positive observation, one of 1 by none.
    """

    bound: float
    n: int = 0
    total: float = 0.0
    log_capitals: tuple[float, ...] = (0.0,) * len(FRACTIONS)

    def __post_init__(self) -> None:
        if not 0.0 <= self.bound <= 1.0:
            raise ValueError(f"bound is {self.bound}: it must be in [0, 1]")

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
            return tuple(math.inf if x > 0 else c for c in self.log_capitals)
        gain = (x - self.bound) / self.bound
        return tuple(c + math.log1p(f * gain) for c, f in zip(self.log_capitals, FRACTIONS, strict=True))

    @property
    def log_e_value(self) -> float:
        """Natural logarithm of :attr:`e_value`."""
        most = max(self.log_capitals)
        if math.isinf(most):
            return most
        return most + LOG_WEIGHT + math.log(math.fsum(math.exp(c - most) for c in self.log_capitals))

    @property
    def e_value(self) -> float:
        """Evidence against the hypothesis: 1 at the start, large when the mean is above the bound."""
        return math.exp(min(self.log_e_value, 700.0))

    @property
    def mean(self) -> float | None:
        """Mean of the observations; None before the first."""
        return self.total / self.n if self.n else None

    def rejects(self, alpha: float) -> bool:
        """Whether the hypothesis is rejected at level ``alpha``, at whatever time this is asked."""
        return self.log_e_value >= -math.log(alpha)

    def as_dict(self) -> dict[str, Any]:
        """Plain data from which :meth:`from_dict` makes an equal process."""
        return {"bound": self.bound, "n": self.n, "total": self.total, "log_capitals": list(self.log_capitals)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EProcess:
        """The process that :meth:`as_dict` described."""
        return cls(bound=data["bound"], n=data["n"], total=data["total"], log_capitals=tuple(data["log_capitals"]))
