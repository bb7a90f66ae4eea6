"""The largest change of a correlation between two dimensions, for vectors: columns that drift only together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from drift.detectors.contract import Detector, Floats, Measure, Splits

MOST_PAIRS = 2_048
"""Pairs of dimensions that are looked at, the same for every split; of more than 64 dimensions, a random part."""

SEED = 19_040_101


def prepare(pooled: npt.NDArray[np.float64]) -> Measure:
    """Half the largest difference of the two sides' correlation coefficients, in [0, 1].

    On ranks, which is how the monitor looks at numeric columns together, the coefficients are Spearman's: C. Spearman,
    "The proof and measurement of association between two things" (American Journal of Psychology 15, 1904). A dimension
    that does not vary on a side has no correlation there. ``pooled`` (N, D) must be finite.
    """
    size = pooled.shape[1]
    left, right = np.triu_indices(size, 1)
    if len(left) > MOST_PAIRS:
        some = np.random.default_rng([SEED, size]).choice(len(left), MOST_PAIRS, replace=False)
        left, right = left[some], right[some]
    spread = pooled.std(axis=0)
    x = (pooled - pooled.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0)
    moments = np.concatenate([x, x**2, x[:, left] * x[:, right]], axis=1).astype(np.float32)
    total = moments.sum(axis=0, dtype=np.float64)

    def coefficients(sums: Floats, rows: npt.NDArray[np.int64]) -> Floats:
        means = sums / rows
        first, second, products = np.split(means, [size, 2 * size], axis=1)
        variance = np.maximum(second - first**2, 0.0)
        varies = variance > 1e-6
        scale = np.sqrt(np.where(varies, variance, 1.0))
        found = (products - first[:, left] * first[:, right]) / (scale[:, left] * scale[:, right])
        return np.where(varies[:, left] & varies[:, right], np.clip(found, -1.0, 1.0), 0.0)

    def measure(current: Splits) -> Floats:
        inside = (current.astype(np.float32) @ moments).astype(np.float64)
        rows = current.sum(axis=1, keepdims=True)
        gap = coefficients(inside, rows) - coefficients(total - inside, len(pooled) - rows)
        return np.asarray(np.abs(gap).max(axis=1, initial=0.0) / 2.0)

    return measure


DETECTOR = Detector(
    name="correlation",
    kind="vectors",
    unit="half the difference of correlations",
    upper=1.0,
    least=lambda distance: distance,
    measure=prepare,
)
