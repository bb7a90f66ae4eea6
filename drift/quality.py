"""Measures of a model's quality on a holdout. Pure; none of them invents a value for an empty holdout."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ROUNDING = 1e-6
"""How far a confidence may leave [0, 1]: float32 softmaxes do by as much."""


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """A share of ``n`` with an exact two-sided confidence interval; value and limits are NaN where ``n`` is 0."""

    value: float
    lower: float
    upper: float
    n: int


def proportion(successes: int, n: int, confidence: float = 0.95) -> Proportion:
    """A share with its exact interval, which covers the true share with at least the chance ``confidence``.

    C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial" (Biometrika 26, 1934): the limits are quantiles of beta distributions.

    Raises:
        ValueError: ``successes`` is not in [0, n], or ``confidence`` not in (0, 1).

    """
    from scipy.special import betaincinv  # the quantile of the beta distribution; scipy.stats takes a second to import

    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: must be between 0 and {n}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}: it must be in (0, 1)")
    if n == 0:
        return Proportion(value=math.nan, lower=math.nan, upper=math.nan, n=0)
    tail = (1.0 - confidence) / 2.0
    lower = float(betaincinv(successes, n - successes + 1, tail)) if successes > 0 else 0.0
    upper = float(betaincinv(successes + 1, n - successes, 1.0 - tail)) if successes < n else 1.0
    return Proportion(value=successes / n, lower=lower, upper=upper, n=n)


def effective_size(weights: Sequence[float]) -> float:
    """Kish's effective sample size, (sum w)^2 / sum w^2, in [1, n]; 0 of nothing.

    >>> effective_size([1.0, 1.0, 2.0])
    2.6666666666666665

    Raises:
        ValueError: a weight is not a finite number > 0.

    """
    w = _weights(weights)
    return float(w.sum() ** 2 / (w**2).sum()) if len(w) else 0.0


def weighted_proportion(hits: Sequence[bool], weights: Sequence[float], confidence: float = 0.95) -> Proportion:
    """A weighted share with the interval of Korn & Graubard (Survey Methodology 24, 1998).

    The interval is Clopper and Pearson's for the number of equally weighted rows that would have the same variance, at
    most Kish's: rare hits of large weight, which have not been seen yet, are in no variance. Equal weights give
    exactly :func:`proportion`.

    Raises:
        ValueError: lengths differ, a weight is not a finite number > 0, or ``confidence`` is not in (0, 1).

    """
    from scipy.special import betaincinv

    w, y = _weights(weights), np.asarray(hits, dtype=np.float64)
    if len(w) != len(y):
        raise ValueError(f"{len(w)} weights for {len(y)} rows")
    if not len(y) or (w == w[0]).all():
        return proportion(int(y.sum()), len(y), confidence)
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}: it must be in (0, 1)")
    share = float((w * y).sum() / w.sum())
    size = effective_size(w.tolist())
    deviation = standard_error(y, w, share)
    if deviation > 0:
        size = min(size, share * (1.0 - share) / deviation**2)
    successes, tail = share * size, (1.0 - confidence) / 2.0
    lower = float(betaincinv(successes, size - successes + 1, tail)) if y.any() else 0.0
    upper = float(betaincinv(successes + 1, size - successes, 1.0 - tail)) if not y.all() else 1.0
    return Proportion(value=share, lower=lower, upper=upper, n=len(y))


def standard_error(y: Floats, w: Floats, mean: float) -> float:
    """Standard error of a weighted mean, from the residuals, with the small-sample factor n/(n-1); NaN of one row."""
    n = len(y)
    if n < 2:
        return math.nan
    return math.sqrt(n / (n - 1) * float((w**2 * (y - mean) ** 2).sum())) / float(w.sum())


def agreement(
    a: Sequence[Hashable],
    b: Sequence[Hashable],
    confidence: float = 0.95,
    weights: Sequence[float] | None = None,
) -> Proportion:
    """The share of places at which two sequences of labels are equal; ``weights`` None: all count alike.

    Raises:
        ValueError: they differ in length.

    """
    same = [x == y for x, y in zip(a, b, strict=True)]
    return weighted_proportion(same, [1.0] * len(same) if weights is None else weights, confidence)


def accuracy(
    labels: Sequence[Hashable],
    truths: Sequence[Hashable],
    confidence: float = 0.95,
    weights: Sequence[float] | None = None,
) -> Proportion:
    """The share of labels that are true: :func:`agreement` with the truth."""
    return agreement(labels, truths, confidence, weights)


def expected_calibration_error(
    confidence: Sequence[float], correct: Sequence[bool], bins: int = 15, weights: Sequence[float] | None = None
) -> float | None:
    """Expected calibration error over ``bins`` bins of equal width, in [0, 1]; None of nothing.

    The mean over the rows of |accuracy - mean confidence| of the row's bin: the plain plug-in estimate of Naeini,
    Cooper & Hauskrecht (AAAI 2015), which is biased upwards on small samples. Bins are open on the left.

    >>> round(expected_calibration_error([0.9] * 10, [True] * 8 + [False] * 2), 6)
    0.1

    Raises:
        ValueError: lengths differ, ``bins`` is below 1, a confidence is outside [0, 1], or a weight is not > 0.

    """
    if len(confidence) != len(correct):
        raise ValueError(f"{len(confidence)} confidences for {len(correct)} answers")
    if bins < 1:
        raise ValueError(f"bins is {bins}: it must be 1 or more")
    if not len(confidence):
        return None
    p, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if not ((p >= -ROUNDING) & (p <= 1 + ROUNDING)).all():
        raise ValueError(f"confidences lie between {p.min()} and {p.max()}: they must be in [0, 1]")
    w = _weights([1.0] * len(p) if weights is None else weights)
    index = np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], p, side="left")
    gap = np.bincount(index, weights=w * (p - right), minlength=bins)
    return float(np.abs(gap).sum() / w.sum())


def per_slice(
    labels: Sequence[Hashable],
    truths: Sequence[Hashable],
    slices: Sequence[Hashable],
    min_support: int = 10,
    weights: Sequence[float] | None = None,
) -> dict[Hashable, Proportion]:
    """Accuracy of every slice that has at least ``min_support`` rows; smaller ones are left out, not guessed.

    Raises:
        ValueError: the sequences differ in length.

    """
    rows: dict[Hashable, list[tuple[bool, float]]] = {}
    counts = [1.0] * len(labels) if weights is None else weights
    for label, truth, name, weight in zip(labels, truths, slices, counts, strict=True):
        rows.setdefault(name, []).append((label == truth, weight))
    return {
        name: weighted_proportion([hit for hit, _ in r], [weight for _, weight in r])
        for name, r in rows.items()
        if len(r) >= max(min_support, 1)
    }


def rmse(values: Sequence[float], targets: Sequence[float], weights: Sequence[float] | None = None) -> float | None:
    """Root (weighted) mean squared error in the target's unit; None of nothing.

    Raises:
        ValueError: the sequences differ in length.

    """
    errors = _errors(values, targets)
    return float(np.sqrt(np.average(errors**2, weights=weights))) if len(errors) else None


def mae(values: Sequence[float], targets: Sequence[float], weights: Sequence[float] | None = None) -> float | None:
    """(Weighted) mean absolute error in the target's unit; None of nothing.

    Raises:
        ValueError: the sequences differ in length.

    """
    errors = _errors(values, targets)
    return float(np.average(np.abs(errors), weights=weights)) if len(errors) else None


def _weights(weights: Sequence[float]) -> Floats:
    w = np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(w) & (w > 0)).all():
        raise ValueError("weights must be finite and > 0")
    return w


def _errors(values: Sequence[float], targets: Sequence[float]) -> Floats:
    if len(values) != len(targets):
        raise ValueError(f"{len(values)} values for {len(targets)} targets")
    return np.asarray(values, dtype=np.float64) - np.asarray(targets, dtype=np.float64)
