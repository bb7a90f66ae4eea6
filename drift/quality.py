"""Measures of a model's quality on a holdout."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """A share of ``n`` with an exact two-sided confidence interval; all three are NaN when ``n`` is 0."""

    value: float
    lower: float
    upper: float
    n: int


def proportion(successes: int, n: int, confidence: float = 0.95) -> Proportion:
    """A share with its interval of Clopper & Pearson (Biometrika 1934), which covers at least ``confidence``."""
    from scipy.stats import beta

    if n == 0:
        return Proportion(value=float("nan"), lower=float("nan"), upper=float("nan"), n=0)
    tail = (1 - confidence) / 2
    lower = float(beta.ppf(tail, successes, n - successes + 1)) if successes > 0 else 0.0
    upper = float(beta.ppf(1 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return Proportion(value=successes / n, lower=lower, upper=upper, n=n)


def agreement(a: Sequence[Hashable], b: Sequence[Hashable], confidence: float = 0.95) -> Proportion:
    """The share of places at which two sequences of labels are equal.

    Raises:
        ValueError: they differ in length.
    """
    return proportion(sum(x == y for x, y in zip(a, b, strict=True)), len(a), confidence)


accuracy = agreement
"""Agreement with truth."""


def expected_calibration_error(confidence: Sequence[float], correct: Sequence[bool], bins: int = 15) -> float | None:
    """Expected calibration error over equal-width bins, in [0, 1]; None of nothing.

    The plain plug-in estimate of Naeini et al. (AAAI 2015), which is biased upwards on small samples.
    """
    if not len(confidence):
        return None
    p, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    index = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(index, weights=p - right, minlength=bins)
    return float(np.abs(gap).sum() / len(p))


def per_slice(
    labels: Sequence[Hashable], truths: Sequence[Hashable], slices: Sequence[Hashable], min_support: int = 10
) -> dict[Hashable, Proportion]:
    """Accuracy of every slice that has at least ``min_support`` rows."""
    rows: dict[Hashable, list[bool]] = {}
    for label, truth, name in zip(labels, truths, slices, strict=True):
        rows.setdefault(name, []).append(label == truth)
    return {name: proportion(sum(r), len(r)) for name, r in rows.items() if len(r) >= min_support}


def _errors(values: Sequence[float], targets: Sequence[float]) -> npt.NDArray[np.float64]:
    if len(values) != len(targets):
        raise ValueError(f"{len(values)} values for {len(targets)} targets")
    return np.asarray(values, dtype=np.float64) - np.asarray(targets, dtype=np.float64)


def rmse(values: Sequence[float], targets: Sequence[float]) -> float | None:
    """Root mean squared error in the target's unit; None of nothing."""
    return float(np.sqrt(np.mean(_errors(values, targets) ** 2))) if len(values) else None


def mae(values: Sequence[float], targets: Sequence[float]) -> float | None:
    """Mean absolute error in the target's unit; None of nothing."""
    return float(np.mean(np.abs(_errors(values, targets)))) if len(values) else None
