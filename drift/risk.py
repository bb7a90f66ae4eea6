"""Whether a share is above what was promised, watched for good: a test that may be looked at after every observation.

An ordinary test by betting (:mod:`drift.betting`) loses, while all is well, the capital that it would need on the day
when something changes. This one bets anew at every observation, with a part of its capital that is set aside for it:
the e-value is the mixture ``sum_k w_k E_k`` of tests that begin at the k-th observation, with the weights
``w_k = g(k) - g(k + 1)``, ``g(k) = 1 / (1 + log k)``, which add up to one. So it is an e-value itself, and by Ville's
inequality it ever reaches ``1 / alpha`` with a chance of at most ``alpha`` where the mean is never above the bound, for
however long it is watched; after a change at the k-th observation it is behind a test that began just then by about
``log k + 2 log(1 + log k)``: by 11 at the 1,000th, which is what five observations of 1 win against a bound of 0.1.

Mixtures of restarted e-processes: J. Shin, A. Ramdas and A. Rinaldo, "E-detectors: a nonparametric framework for
sequential change detection" (2022, arXiv 2203.03532), whose detectors bound the time between false alarms; with weights
that add up to one they bound the chance of any.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from drift.betting import FRACTIONS

NOTHING = -1e300
"""Logarithm of no capital: of a test that has not begun."""

MOST = 1e6
"""Logarithms of capitals stop here, so that the state is finite numbers, also in JSON. Stopping only loses evidence."""


@dataclass(frozen=True, kw_only=True)
class RiskTest:
    """A test of "the mean of each observation in [0, 1], given those before, is at most ``bound``", in (0, 1).

    ``n`` observations; ``log_capitals``: of each fraction of :data:`drift.betting.FRACTIONS`, over all starts together.
    The state does not grow.

    >>> test = RiskTest(bound=0.1)
    >>> for x in [0.0] * 1000 + [1.0] * 10:
    ...     test = test.observe(x)
    >>> test.rejects(0.05)
    True

    Raises:
        ValueError: ``bound`` is not in (0, 1), or the state is not one that this version wrote.

    """

    bound: float
    n: int = 0
    log_capitals: tuple[float, ...] = (NOTHING,) * len(FRACTIONS)

    def __post_init__(self) -> None:
        if not 0.0 < self.bound < 1.0:
            raise ValueError(f"bound is {self.bound}: it must be in (0, 1)")
        if len(self.log_capitals) != len(FRACTIONS):
            raise ValueError(f"{len(self.log_capitals)} capitals for {len(FRACTIONS)} bets: start the test anew")

    def observe(self, x: float) -> RiskTest:
        """The test after one more observation.

        Raises:
            ValueError: ``x`` is not in [0, 1].

        """
        if not 0.0 <= x <= 1.0:
            raise ValueError(f"observation {x} is not in [0, 1]")
        begins, after = math.log(_left(self.n) - _left(self.n + 1)), []
        for capital, gain in zip(self.log_capitals, _gains(x / self.bound - 1.0), strict=True):
            more, less = (capital, begins) if capital > begins else (begins, capital)
            after.append(min(more + math.log1p(math.exp(less - more)) + gain, MOST))
        return RiskTest(bound=self.bound, n=self.n + 1, log_capitals=tuple(after))

    @property
    def log_e_value(self) -> float:
        """Natural logarithm of the evidence: 0 at the start; what was not set to work yet is counted as it is."""
        rest = math.log(_left(self.n))
        most = max(rest, *self.log_capitals)
        capital = math.fsum(math.exp(c - most) for c in self.log_capitals) / len(FRACTIONS)
        return most + math.log(capital + math.exp(rest - most))

    def rejects(self, alpha: float) -> bool:
        """Whether the mean is shown to be above the bound at level ``alpha``, at whatever time this is asked."""
        return self.log_e_value >= -math.log(alpha)


def _left(n: int) -> float:
    """The weight of all tests that begin after ``n`` observations."""
    return 1.0 / (1.0 + math.log(n + 1))


@lru_cache(maxsize=64)
def _gains(gain: float) -> tuple[float, ...]:
    """Logarithms of what each bet is multiplied by; of zeros and ones there are two."""
    return tuple(math.log1p(fraction * gain) for fraction in FRACTIONS)
