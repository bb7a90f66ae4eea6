"""How well a linear classifier tells window from reference, for vectors: embeddings, hashed texts."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from drift.detectors.contract import Detector, Floats, Measure, Splits, normal_shift

FOLDS = 2
RIDGE = 0.1
"""Ridge penalty as a share of the rows, on standardised dimensions: it keeps more dimensions than rows from being
learnt by heart."""

SEED = 20_170_101


def prepare(pooled: npt.NDArray[np.float64]) -> Measure:
    """``2 AUC - 1`` of a classifier on rows that it was not fitted on, in [0, 1]; below chance counts as 0.

    The classifier is ridge regression on "is in the window", which is linear in that: what it answers for all splits
    is one matrix product, so that a split of a permutation test costs no fit and the test stays exact. Two folds are
    fitted on each other. D. Lopez-Paz and M. Oquab, "Revisiting classifier two-sample tests" (ICLR 2017).
    ``pooled`` (N, D) must be finite.
    """
    spread = pooled.std(axis=0)
    x = (pooled - pooled.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0)
    fold = np.random.default_rng([SEED, len(x)]).permutation(len(x)) % FOLDS
    parts = [(np.flatnonzero(fold == f), np.flatnonzero(fold != f)) for f in range(FOLDS)]
    maps = [_ridge(x[rest]) for _, rest in parts]

    def measure(current: Splits) -> Floats:
        found = np.zeros(len(current))
        for (held, rest), learn in zip(parts, maps, strict=True):
            target = current[:, rest].astype(np.float64)
            coefficients = (target - target.mean(axis=1, keepdims=True)) @ learn
            found += _auc(coefficients @ x[held].T, current[:, held]) / FOLDS
        return np.asarray(np.clip(2.0 * found - 1.0, 0.0, 1.0))

    return measure


def _ridge(x: Floats) -> Floats:
    """(N, D): what a row's target adds to the coefficients."""
    centred = x - x.mean(axis=0)
    gram = centred.T @ centred + RIDGE * len(x) * np.eye(x.shape[1])
    return np.asarray(np.linalg.solve(gram, centred.T).T)


def _auc(scores: Floats, current: Splits) -> Floats:
    """The area under each split's curve; one half where a side has no row. Ties count as one half."""
    order = np.argsort(scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    inside = np.take_along_axis(current, order, axis=1)
    ranks = _mid_ranks(ordered)
    m = inside.sum(axis=1)
    n = inside.shape[1] - m
    above = (ranks * inside).sum(axis=1) - m * (m + 1) / 2.0
    return np.where((m > 0) & (n > 0), above / np.maximum(m * n, 1), 0.5)


def _mid_ranks(ordered: Floats) -> Floats:
    ranks = np.broadcast_to(np.arange(1.0, ordered.shape[1] + 1.0), ordered.shape)
    tied = np.abs(np.diff(ordered, axis=1)) <= 1e-12
    if not tied.any():
        return ranks
    starts = np.concatenate([np.ones((len(ordered), 1), dtype=bool), ~tied], axis=1)
    ends = np.concatenate([~tied, np.ones((len(ordered), 1), dtype=bool)], axis=1)
    first = np.maximum.accumulate(np.where(starts, ranks, 0.0), axis=1)
    last = np.minimum.accumulate(np.where(ends, ranks, np.inf)[:, ::-1], axis=1)[:, ::-1]
    return (first + last) / 2.0


DETECTOR = Detector(
    name="domain_classifier",
    kind="vectors",
    unit="2 AUC - 1",
    upper=1.0,
    least=lambda distance: math.erf(normal_shift(distance) / 2.0),
    measure=prepare,
)
