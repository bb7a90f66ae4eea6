"""Measures of a model's quality on a holdout. Pure; none of them invents a value for an empty holdout."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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


def agreement(a: Sequence[Hashable], b: Sequence[Hashable], confidence: float = 0.95) -> Proportion:
    """The share of places at which two sequences of labels are equal.

    Raises:
        ValueError: they differ in length.

    """
    return proportion(sum(x == y for x, y in zip(a, b, strict=True)), len(a), confidence)


def accuracy(labels: Sequence[Hashable], truths: Sequence[Hashable], confidence: float = 0.95) -> Proportion:
    """The share of labels that are true: :func:`agreement` with the truth."""
    return agreement(labels, truths, confidence)


def expected_calibration_error(confidence: Sequence[float], correct: Sequence[bool], bins: int = 15) -> float | None:
    """Expected calibration error over ``bins`` bins of equal width, in [0, 1]; None of nothing.

    The mean over the rows of |accuracy - mean confidence| of the row's bin: the plain plug-in estimate of Naeini,
    Cooper & Hauskrecht (AAAI 2015), which is biased upwards on small samples. Bins are open on the left.

    >>> round(expected_calibration_error([0.9] * 10, [True] * 8 + [False] * 2), 6)
    0.1

    Raises:
        ValueError: lengths differ, ``bins`` is below 1, or a confidence is outside [0, 1].

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
    index = np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], p, side="left")
    gap = np.bincount(index, weights=p - right, minlength=bins)
    return float(np.abs(gap).sum() / len(p))


def per_slice(
    labels: Sequence[Hashable], truths: Sequence[Hashable], slices: Sequence[Hashable], min_support: int = 10
) -> dict[Hashable, Proportion]:
    """Accuracy of every slice that has at least ``min_support`` rows; smaller ones are left out, not guessed.

    Raises:
        ValueError: the sequences differ in length.

    """
    rows: dict[Hashable, list[bool]] = {}
    for label, truth, name in zip(labels, truths, slices, strict=True):
        rows.setdefault(name, []).append(label == truth)
    return {name: proportion(sum(r), len(r)) for name, r in rows.items() if len(r) >= max(min_support, 1)}


def rmse(values: Sequence[float], targets: Sequence[float]) -> float | None:
    """Root mean squared error in the target's unit; None of nothing.

    Raises:
        ValueError: the sequences differ in length.

    """
    errors = _errors(values, targets)
    return float(np.sqrt(np.mean(errors**2))) if len(errors) else None


def mae(values: Sequence[float], targets: Sequence[float]) -> float | None:
    """Mean absolute error in the target's unit; None of nothing.

    Raises:
        ValueError: the sequences differ in length.

    """
    errors = _errors(values, targets)
    return float(np.mean(np.abs(errors))) if len(errors) else None


def _errors(values: Sequence[float], targets: Sequence[float]) -> npt.NDArray[np.float64]:
    if len(values) != len(targets):
        raise ValueError(f"{len(values)} values for {len(targets)} targets")
    return np.asarray(values, dtype=np.float64) - np.asarray(targets, dtype=np.float64)
