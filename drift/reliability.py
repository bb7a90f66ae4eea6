"""How far confidences are from the frequencies that they promise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drift.quality import ROUNDING

MOST_BINS = 15
ROWS_A_BIN = 25
"""Rows that a bin should have: with fewer, what chance adds is larger than most real errors."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Answers of similar confidence: their ``share`` of the weight, mean confidence, accuracy, and effective size."""

    share: float
    confidence: float
    accuracy: float
    size: float


def reliability(
    confidence: Sequence[float],
    correct: Sequence[bool],
    weights: Sequence[float] | None = None,
    bins: int | None = None,
) -> tuple[Bin, ...]:
    """The reliability curve over ``bins`` bins of (about) equal weight, which are merged where confidences are equal.

    Without ``bins``: one for every :data:`ROWS_A_BIN` rows, at most :data:`MOST_BINS`.

    Raises:
        ValueError: lengths differ, ``bins`` is below 1, or a confidence is outside [0, 1].

    """
    if len(confidence) != len(correct):
        raise ValueError(f"{len(confidence)} confidences for {len(correct)} answers")
    if bins is None:
        bins = min(MOST_BINS, max(1, len(confidence) // ROWS_A_BIN))
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
    """Root mean squared calibration error of a curve less what chance adds to it, in [0, 1]; None of nothing.

    The plain estimate counts the noise of every bin's accuracy: a perfectly calibrated model has one of about 0.1 on
    100 rows. The square of a bin's gap is too large by the variance of its accuracy, which is taken off: the debiased
    estimator of A. Kumar, P. Liang & T. Ma, "Verified uncertainty calibration" (NeurIPS 2019), section 5. It is never
    below the mean absolute error but for chance.
    """
    if not curve:
        return None
    total = sum(
        b.share * ((b.confidence - b.accuracy) ** 2 - b.accuracy * (1.0 - b.accuracy) / max(b.size - 1.0, 1.0))
        for b in curve
    )
    return math.sqrt(max(0.0, total))
