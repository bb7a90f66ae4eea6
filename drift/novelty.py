"""How unlike known data a new point is: distance to the nearest class, and what that is worth as a p-value.

The distance is the squared Mahalanobis distance to the nearest of the classes' means, under one covariance of all
classes (K. Lee, K. Lee, H. Lee & J. Shin, "A simple unified framework for detecting out-of-distribution samples and
adversarial attacks", NeurIPS 2018, arXiv 1807.03888), which is shrunk towards a multiple of the identity (O. Ledoit &
M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate Analysis 88,
2004), so that it can be inverted whatever the number of points.

Its p-value is the conformal one (V. Vovk, A. Gammerman & G. Shafer, "Algorithmic learning in a random world", 2005) for
points that the fit has not seen: distribution-free and exact for any number of them.

Shapes: N points, D dimensions, K classes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEAST_VARIANCE = 1e-6
"""Least variance along any direction, as a share of the mean one: points without any spread give no finite distance."""


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """Where known data lie: ``middle`` (D,), ``whiten`` (D, D) and the classes' ``centres`` (K, D).

    A point x is at ``(x - middle) @ whiten`` where the covariance is the identity; the centres are given there.
    """

    middle: Floats
    whiten: Floats
    centres: Floats

    @classmethod
    def fit(cls, points: npt.ArrayLike, classes: Sequence[int] | npt.NDArray[np.int64]) -> Nearness | None:
        """Of points (N, D) with their classes; None of points that do not differ within any class.

        Raises:
            ValueError: lengths differ.

        """
        x, kinds = np.asarray(points, dtype=np.float64), np.asarray(classes)
        if len(x) != len(kinds):
            raise ValueError(f"{len(kinds)} classes for {len(x)} points")
        if not len(x):
            return None
        _, place = np.unique(kinds, return_inverse=True)
        counts = np.bincount(place).astype(np.float64)
        sums = np.zeros((len(counts), x.shape[1]))
        np.add.at(sums, place, x)
        means = sums / counts[:, np.newaxis]
        covariance = shrunk_covariance(x - means[place])
        variances, directions = np.linalg.eigh(covariance)
        if not variances.sum() > 0.0:
            return None
        scale = np.sqrt(np.maximum(variances, LEAST_VARIANCE * variances.mean()))
        middle, whiten = x.mean(axis=0), directions / scale
        return cls(middle=middle, whiten=whiten, centres=(means - middle) @ whiten)

    def distances(self, points: npt.ArrayLike) -> Floats:
        """Squared distance of points (N, D) to the nearest class, (N,)."""
        z = (np.asarray(points, dtype=np.float64) - self.middle) @ self.whiten
        apart = (z**2).sum(axis=1)[:, np.newaxis] - 2.0 * z @ self.centres.T + (self.centres**2).sum(axis=1)
        nearest: Floats = np.maximum(apart.min(axis=1), 0.0)
        return nearest


def shrunk_covariance(residuals: Floats) -> Floats:
    """The covariance (D, D) of points (N, D) of mean zero, shrunk by Ledoit and Wolf's share."""
    n, d = residuals.shape
    empirical = residuals.T @ residuals / n
    mean = np.trace(empirical) / d
    spread = float(((empirical - mean * np.eye(d)) ** 2).sum()) / d
    squares = residuals**2
    noise = float((squares.T @ squares / n - empirical**2).sum()) / (d * n)
    share = min(noise, spread) / spread if spread > 0.0 else 0.0
    shrunk: Floats = (1.0 - share) * empirical + share * mean * np.eye(d)
    return shrunk


def conformal_p(score: float, groups: Sequence[Sequence[float]]) -> float:
    """The p-value of a score, larger ones being more unlike: the chance of one as large in a group of known ones.

    ``groups``: known scores, each in rising order, of points that nothing was fitted on. Over points that are
    exchangeable with those of a group of n, ``(1 + number of known ones >= score) / (n + 1)`` is at most a with a
    chance of at most a, for any a. Of several groups the largest p-value counts, so that this holds for points that
    are like any of them. A score that is no number is like nothing known.

    >>> [conformal_p(score, [[1.0, 2.0, 3.0]]) for score in (0.0, 2.5, 9.0)]
    [1.0, 0.5, 0.25]

    Raises:
        ValueError: there is no group.

    """
    if not groups:
        raise ValueError("a p-value needs known scores")
    if math.isnan(score):
        score = math.inf
    return max((1 + len(known) - bisect_left(known, score)) / (len(known) + 1) for known in groups)


def excess(found: int, of: int, alpha: float) -> float:
    """The chance that ``found`` or more of ``of`` p-values are at or below ``alpha``, each of which is at ``alpha``.

    >>> round(excess(9, 100, 0.05), 3), excess(0, 100, 0.05)
    (0.063, 1.0)

    """
    from scipy.special import betainc  # the binomial's tail; scipy.stats takes a second to import

    return float(betainc(found, of - found + 1, alpha)) if found else 1.0
