"""From calibration data to the confidence below which a model's answers are to be deferred.

Source: A. N. Angelopoulos, S. Bates, E. J. Candès, M. I. Jordan and L. Lei, "Learn then Test: Calibrating Predictive
Algorithms to Achieve Risk Control" (2021, arXiv 2110.01052): fixed-sequence testing with several starts; the exact
binomial bound as in Y. Geifman and R. El-Yaniv, "Selective Classification for Deep Neural Networks" (NeurIPS 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STEP = 0.01
"""Distance of the limits that are tried, fixed before any data is seen."""

STARTS = (0.99, 0.95, 0.8, 0.6, 0.3)
"""Where sequences of tests begin: at a very high limit there may be too few answers to show anything."""


@dataclass(frozen=True, kw_only=True)
class DeferralLimit:
    """``limit``: answers of a lower confidence are deferred; ``kept``: the share of the calibration's that are not.

    ``disagreement``: the share of the kept ones that disagree, and ``upper`` its bound, below what was asked for.
    """

    limit: float
    kept: float
    disagreement: float
    upper: float


def deferral_limit(
    confidence: Sequence[float], disagrees: Sequence[bool], most: float, alpha: float = 0.05
) -> DeferralLimit | None:
    """The smallest limit for which at most the share ``most`` of what is not deferred disagrees; None if there is none.

    The chance that the limit's true share is above ``most`` is at most ``alpha``, for rows that are drawn as the
    traffic is. Each start of :data:`STARTS` has its part of ``alpha``. From there the limits are tested downwards, by
    the upper Clopper-Pearson bound of the disagreement above each, until the first that is not below ``most``; the
    smallest that passed in any of the sequences is taken. So no correction for the many limits is needed.

    >>> deferral_limit([0.5] * 100 + [0.9] * 400, [True] * 50 + [False] * 450, 0.05).limit
    0.51
    >>> deferral_limit([0.9] * 20, [False] * 20, 0.05) is None
    True

    Raises:
        ValueError: lengths differ, or ``most`` or ``alpha`` is not in (0, 1).

    """
    if len(confidence) != len(disagrees):
        raise ValueError(f"{len(confidence)} confidences for {len(disagrees)} answers")
    if not (0.0 < most < 1.0 and 0.0 < alpha < 1.0):
        raise ValueError(f"most is {most} and alpha is {alpha}: they must be in (0, 1)")
    sure, wrong = np.asarray(confidence, dtype=float), np.asarray(disagrees, dtype=bool)
    best: DeferralLimit | None = None
    for start in STARTS:
        for limit in np.arange(round(start / STEP), -1, -1) * STEP:
            found = _at(round(float(limit), 6), sure, wrong, alpha / len(STARTS))
            if found is None or found.upper > most:
                break
            if best is None or found.limit < best.limit:
                best = found
    return best


def _at(limit: float, sure: np.ndarray, wrong: np.ndarray, alpha: float) -> DeferralLimit | None:
    from scipy.special import betaincinv  # the quantile of the beta distribution; scipy.stats takes a second to import

    kept = sure >= limit
    n, k = int(kept.sum()), int(wrong[kept].sum())
    if n == 0:
        return None
    upper = float(betaincinv(k + 1, n - k, 1.0 - alpha)) if k < n else 1.0
    return DeferralLimit(limit=limit, kept=n / len(sure), disagreement=k / n, upper=upper)
