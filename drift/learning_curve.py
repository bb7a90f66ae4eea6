"""A learning curve of few measurements: how often a student errs after so many labels, and how sure that is.

.. math:: e(n) = a + (s - a) (1 + n / h)^{-c}

``a`` is what remains however much is learnt, ``s`` how often it errs before it has learnt anything of this kind of
traffic, ``h`` how many labels pass before the fall begins, and ``c`` the exponent: the inverse power law that
J. Hestness et al. found for deep networks ("Deep learning scaling is predictable, empirically", arXiv 1712.00409),
shifted so that it is finite at nothing: one of the forms that T. Viering and M. Loog compare ("The shape of learning
curves: a review", arXiv 2103.10948).

Two or three measurements do not determine four parameters. So none are chosen: each curve of a grid is weighed by how
likely it makes what was measured (binomial), times a prior, and what is asked of the curve is a mean over all of them.
The prior is that of what is plausible of any student, mixed with what the past regimes of the same lineage had, each as
much as the first: ``(prior + sum of the R regimes' posteriors) / (R + 1)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FLOORS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.17, 0.25, 0.35, 0.5, 0.7)
STARTS = tuple(i / 25 for i in range(26))
SHIFTS = (10.0, 30.0, 100.0, 300.0, 1_000.0)
EXPONENTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
"""The grid of ``a``, ``s``, ``h`` and ``c``."""

FLOOR_SCALE = 0.1
"""Prior of ``a``: exponential with this mean, since a student that was admitted errs seldom."""

EXPONENT_MIDDLE, EXPONENT_SPREAD = 0.5, 1.0
"""Prior of ``c``: log-normal. Hestness et al. found 0.07 to 0.35 from nothing; who starts from a student that knows all
but a few kinds falls faster."""

MOST_ROWS = 200.0
"""Rows that one measurement counts as at most: the form is not exact, and more would make it as sure as if it were."""

NEGLIGIBLE = 1e-6
"""Share of the likeliest curve's weight below which a curve is left out."""

LEAST = 1e-3
"""Share that no curve is taken to be sure below: one input that errs is no proof against it."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement: of ``rows`` held-out inputs a student errs on ``wrong``, having learnt from ``labels``.

    All are counts and may be fractions: weighted rows. ``labels`` are those of the regime alone.

    Raises:
        ValueError: one is negative or no number, or more are wrong than there are.

    """

    labels: float
    wrong: float
    rows: float

    def __post_init__(self) -> None:
        """Check the counts."""
        if not (all(map(math.isfinite, (self.labels, self.wrong, self.rows))) and 0 <= self.wrong <= self.rows):
            raise ValueError(f"{self}: of rows >= 0 as many as are there may be wrong")
        if self.labels < 0:
            raise ValueError(f"{self}: labels must be >= 0")


class Curve:
    """What is known of a learning curve: a weight for each curve of the grid, summing to one."""

    def __init__(self, weights: Floats) -> None:
        kept = weights > NEGLIGIBLE * weights.max()
        self._curves, self._weights = _grid()[:, kept], weights[kept] / weights[kept].sum()

    def error(self, labels: float) -> float:
        """The expected share of inputs on which a student of so many labels errs, in [0, 1]; it falls with them."""
        return min(1.0, float(self._weights @ _errors(self._curves, labels)))

    def interval(self, labels: float, level: float = 0.8) -> tuple[float, float]:
        """The share between which and which a student of so many labels errs, with this credibility."""
        values = _errors(self._curves, labels)
        order = np.argsort(values)
        below = np.cumsum(self._weights[order])
        tail = (1.0 - level) / 2.0
        low, high = np.searchsorted(below, [tail, 1.0 - tail])
        last = len(order) - 1
        return float(values[order[min(int(low), last)]]), float(values[order[min(int(high), last)]])

    @cached_property
    def surest(self) -> tuple[float, float, float, float]:
        """``a``, ``s``, ``h`` and ``c`` of the likeliest curve, to be told."""
        a, s, h, c = self._curves[:, int(np.argmax(self._weights))].tolist()
        return a, s, h, c


def fit(points: Sequence[Point], past: Sequence[Sequence[Point]] = ()) -> Curve:
    """The curve of a regime, by its points, and by those of the ``past`` regimes of the same lineage.

    Without any it is what is plausible of any student.

    >>> curve = fit([Point(labels=0, wrong=95, rows=100), Point(labels=200, wrong=10, rows=100)])
    >>> curve.error(0) > 0.9 > 0.5 > curve.error(100) > curve.error(200) > curve.error(400)
    True
    """
    prior = _prior()
    for regime in past:
        prior = prior + _posterior(_prior(), regime)
    return Curve(_posterior(prior / prior.sum(), points))


def _posterior(prior: Floats, points: Sequence[Point]) -> Floats:
    logs = np.log(prior)
    for point in points:
        if point.rows > 0:
            part = min(1.0, MOST_ROWS / point.rows)
            errs = np.clip(_errors(_grid(), point.labels), LEAST, 1.0 - LEAST)
            logs = logs + part * (point.wrong * np.log(errs) + (point.rows - point.wrong) * np.log1p(-errs))
    weights = np.exp(logs - logs.max())
    found: Floats = weights / weights.sum()
    return found


def _errors(curves: Floats, labels: float) -> Floats:
    """What each of these curves of the grid says."""
    a, s, h, c = curves
    found: Floats = a + (s - a) * (1.0 + labels / h) ** -c
    return found


@lru_cache(maxsize=1)
def _grid() -> Floats:
    """``a``, ``s``, ``h`` and ``c`` of every curve: none rises."""
    a, s, h, c = (x.ravel() for x in np.meshgrid(FLOORS, STARTS, SHIFTS, EXPONENTS, indexing="ij"))
    falls = s >= a
    return np.stack([x[falls] for x in (a, s, h, c)])


@lru_cache(maxsize=1)
def _prior() -> Floats:
    a, _, _, c = _grid()
    logs = -a / FLOOR_SCALE - ((np.log(c) - math.log(EXPONENT_MIDDLE)) / EXPONENT_SPREAD) ** 2 / 2.0
    weights = np.exp(logs)
    found: Floats = weights / weights.sum()
    return found
