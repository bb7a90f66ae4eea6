"""Estimates over inputs of which only some were labelled, each with a known chance. Pure.

A row that was drawn with probability p stands for 1/p rows. Means are those of the traffic that the inputs came from,
so that their intervals hold the chance of the draw and of the traffic, and are right for p = 1 as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drift.quality import effective_size, standard_error

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with a two-sided confidence interval; NaN where it cannot be known.

    ``n`` rows say as much of it as ``effective`` equally weighted ones (Kish, "Survey Sampling", 1965).
    """

    value: float
    lower: float
    upper: float
    n: int
    effective: float


def horvitz_thompson(
    values: Sequence[float], probabilities: Sequence[float], population: int, confidence: float = 0.95
) -> Estimate:
    """The mean over ``population`` inputs of which those with ``values`` were drawn: sum(y/p)/N.

    Unbiased whatever the probabilities (Horvitz & Thompson, JASA 1952), but it varies with the number that was drawn:
    :func:`hajek` is closer, except for values that are in proportion to the probabilities.

    Raises:
        ValueError: lengths differ, a probability is not in (0, 1], or more were drawn than there are.

    """
    y, w = _pair(values, probabilities)
    if len(y) > population:
        raise ValueError(f"{len(y)} rows were drawn of {population}")
    if population < 2:
        return _estimate(float((y * w).sum()) if population else math.nan, math.nan, len(y), w, confidence)
    terms = y * w
    mean = float(terms.sum() / population)
    variance = float(((terms**2).sum() - population * mean**2) / (population - 1) / population)
    return _estimate(mean, math.sqrt(max(0.0, variance)), len(y), w, confidence)


def hajek(values: Sequence[float], probabilities: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The weighted mean sum(y/p)/sum(1/p) (Hájek 1971); the variance is that of its linearisation.

    Bounded by the values, and biased only in the order of 1/n. For shares use
    :func:`drift.quality.weighted_proportion`, whose interval holds where all rows agree.

    Raises:
        ValueError: lengths differ, or a probability is not in (0, 1].

    """
    y, w = _pair(values, probabilities)
    if not len(y):
        return Estimate(value=math.nan, lower=math.nan, upper=math.nan, n=0, effective=0.0)
    mean = float((w * y).sum() / w.sum())
    return _estimate(mean, standard_error(y, w, mean), len(y), w, confidence)


def stratum_weights(probabilities: Sequence[float], audit: Sequence[bool]) -> list[float]:
    """Weights that put an audit slice and the labels that a policy chose into one estimate.

    Both are samples of the same traffic, parted by a hash, and each gives an unbiased mean: the audit slice with equal
    weights, the others with 1/p. Each part's weights are scaled to its effective size, so that a policy's few heavy
    rows do not drown the audit slice. Rows that all were chosen with probability one have weight one, audited or not.

    Raises:
        ValueError: lengths differ, or a probability is not in (0, 1].

    """
    p, audited = np.asarray(probabilities, dtype=np.float64), np.asarray(audit, dtype=bool)
    if len(p) != len(audited):
        raise ValueError(f"{len(audited)} marks for {len(p)} probabilities")
    if not ((p > 0) & (p <= 1)).all():
        raise ValueError("probabilities must be in (0, 1]")
    weights = 1.0 / p
    for part in (audited, ~audited):
        w = weights[part]
        if len(w):
            weights[part] = w * (w.sum() / (w**2).sum())
    found: list[float] = weights.tolist()
    return found


def thinned(weights: Sequence[float], seed: int = 0) -> list[int]:
    """Which rows remain so that each stands for as much as any other: row i with the chance ``w_i / max(w)``.

    Rejection sampling (von Neumann 1951): where a row of weight w stands for w rows of the traffic, what remains is
    drawn as the traffic is, for methods that know no weights. Of equal weights all remain, in order.

    >>> thinned([2.0, 2.0, 2.0])
    [0, 1, 2]

    Raises:
        ValueError: a weight is not a finite number > 0.

    """
    w = np.asarray(weights, dtype=np.float64)
    if not len(w):
        return []
    if not (np.isfinite(w) & (w > 0)).all():
        raise ValueError("weights must be finite numbers > 0")
    chance = np.random.default_rng(seed).uniform(size=len(w))
    found: list[int] = np.flatnonzero(chance < w / w.max()).tolist()
    return found


def _pair(values: Sequence[float], probabilities: Sequence[float]) -> tuple[Floats, Floats]:
    y, p = np.asarray(values, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if len(y) != len(p):
        raise ValueError(f"{len(p)} probabilities for {len(y)} values")
    if not ((p > 0) & (p <= 1)).all():
        raise ValueError("probabilities must be in (0, 1]")
    return y, 1.0 / p


def _estimate(mean: float, deviation: float, n: int, w: Floats, confidence: float) -> Estimate:
    """An interval by Student's t with the degrees of freedom of the effective size."""
    from scipy.special import stdtrit

    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}: it must be in (0, 1)")
    effective = effective_size(w.tolist())
    freedom = effective - 1.0
    reach = float(stdtrit(freedom, 0.5 + confidence / 2.0)) * deviation if freedom > 0 else math.nan
    return Estimate(value=mean, lower=mean - reach, upper=mean + reach, n=n, effective=effective)
