"""How far confidences are from the frequencies that they promise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drift.quality import ROUNDING

BINS = 15


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Answers of similar confidence: their ``share`` of the weight, mean confidence, accuracy, and effective size."""

    share: float
    confidence: float
    accuracy: float
    size: float


def reliability(
    confidence: Sequence[float], correct: Sequence[bool], weights: Sequence[float] | None = None, bins: int = BINS
) -> tuple[Bin, ...]:
    """The reliability curve over ``bins`` bins of (about) equal weight, which are merged where confidences are equal.

    Raises:
        ValueError: lengths differ, ``bins`` is below 1, or a confidence is outside [0, 1].

    """
    if len(confidence) != len(correct):
        raise ValueError(f"{len(confidence)} confidences for {len(correct)} answers")
    if bins < 1:
        raise ValueError(f"bins is {bins}: it must be 1 or more")
    if not len(confidence):
        return ()
    p, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if not ((p >= -ROUNDING) & (p <= 1 + ROUNDING)).all():
        raise ValueError(f"confidences lie between {p.min()} and {p.max()}: they must be in [0, 1]")
    w = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    p, right, w = p[order], right[order], w[order]
    place = np.minimum((np.cumsum(w) - w / 2) / w.sum() * bins, bins - 1).astype(int)
    first = np.searchsorted(p, p, side="left")  # equal confidences are one bin
    place = place[first]
    return tuple(_bin(p[m], right[m], w[m], float(w.sum())) for b in np.unique(place) for m in [place == b])


Floats = npt.NDArray[np.float64]


def _bin(p: Floats, right: Floats, w: Floats, total: float) -> Bin:
    mass = float(w.sum())
    return Bin(
        share=mass / total,
        confidence=float((w * p).sum()) / mass,
        accuracy=float((w * right).sum()) / mass,
        size=mass**2 / float((w**2).sum()),
    )


def debiased_ece(curve: Sequence[Bin]) -> float | None:
    """Expected calibration error of a reliability curve less what chance alone adds to it, in [0, 1]; None of nothing.

    The plain estimate averages |confidence - accuracy| over bins and so counts the noise of every bin's accuracy: a
    perfectly calibrated model has one of about 0.1 on 100 rows. A. Kumar, P. Liang & T. Ma, "Verified uncertainty
    calibration" (NeurIPS 2019), section 5, take off the mean of that under a normal with the bin's own variance, which
    has a closed form. The variance is that of the accuracy drawn half way to one half by one row, so that a bin without
    an error is not taken for a certain one.
    """
    if not curve:
        return None
    total = 0.0
    for b in curve:
        gap = abs(b.confidence - b.accuracy)
        share = (b.accuracy * b.size + 0.5) / (b.size + 1.0)
        total += b.share * (2.0 * gap - _folded_mean(gap, math.sqrt(share * (1.0 - share) / b.size)))
    return max(0.0, total)


def _folded_mean(mean: float, deviation: float) -> float:
    """The mean of the absolute value of a normal."""
    z = mean / deviation
    return deviation * math.sqrt(2.0 / math.pi) * math.exp(-z * z / 2.0) + mean * math.erf(z / math.sqrt(2.0))
