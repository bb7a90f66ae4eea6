"""The maximum mean discrepancy with a Gaussian kernel, for vectors: sees changes of the joint distribution."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from drift.detectors.contract import Detector, Floats, Measure, Splits

FEATURES = 128
"""Random cosines that stand for the kernel: its error is about 1 / sqrt(FEATURES), and equal for every split."""

SEED = 20_070_101
PAIRS = 2_000
"""Pairs of rows from which the median distance is taken."""


def prepare(pooled: npt.NDArray[np.float64]) -> Measure:
    """The distance of the two sides' mean embeddings, in [0, sqrt(2)]; the kernel's width is the median distance.

    A. Gretton et al., "A kernel two-sample test" (JMLR 13, 2012); the random features are those of A. Rahimi and
    B. Recht, "Random features for large-scale kernel machines" (NIPS 2007). ``pooled`` (N, D) must be finite.
    """
    chance = np.random.default_rng([SEED, *pooled.shape])
    width = median_distance(pooled)
    frequencies = chance.normal(size=(pooled.shape[1], FEATURES // 2)) / width
    angles = (pooled @ frequencies).astype(np.float32)
    features = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.float32(math.sqrt(FEATURES / 2))
    total = features.sum(axis=0, dtype=np.float64)

    def measure(current: Splits) -> Floats:
        inside = (current.astype(np.float32) @ features).astype(np.float64)
        size = current.sum(axis=1, keepdims=True)
        gap = inside / size - (total - inside) / (len(pooled) - size)
        return np.asarray(np.sqrt((gap**2).sum(axis=1)))

    return measure


def median_distance(values: npt.NDArray[np.float64]) -> float:
    """The median Euclidean distance of rows, from :data:`PAIRS` random pairs; 1 where rows do not differ."""
    left, right = np.random.default_rng([SEED, len(values)]).integers(0, len(values), size=(2, PAIRS))
    apart = np.sqrt(((values[left] - values[right]) ** 2).sum(axis=1))
    apart = apart[apart > 0.0]
    return float(np.median(apart)) if len(apart) else 1.0


DETECTOR = Detector(
    name="maximum_mean_discrepancy",
    kind="vectors",
    unit="distance of mean embeddings",
    upper=math.sqrt(2.0),
    least=lambda distance: distance / 2.0,
    measure=prepare,
)
"""The least effect is half the Kolmogorov-Smirnov distance: one column's shift is diluted among the others."""
