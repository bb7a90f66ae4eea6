"""The Jensen-Shannon distance, for categorical columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def distances(codes: npt.NDArray[np.int64], current: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Distance of the two category mixes, in [0, 1], for each of S splits.

    ``codes`` (N,): categories of reference and window pooled, as 0, 1, ...; ``current`` (S, N): which of them each
    split puts into the window, at least one and not all. A category that one side lacks counts like any other. The
    distance is the square root of the divergence in bits, which makes it a metric: J. Lin, "Divergence measures based
    on the Shannon entropy" (IEEE Transactions on Information Theory 37, 1991).

    >>> distances(np.array([0, 0, 1, 1]), np.array([[False, False, True, True], [False, True, False, True]]))
    array([1., 0.])
    """
    splits, categories = len(current), int(codes.max()) + 1
    cells = codes + categories * np.arange(splits)[:, np.newaxis]
    inside = np.bincount(cells[current], minlength=splits * categories).reshape(splits, categories)
    outside = np.bincount(codes, minlength=categories) - inside
    p = inside / inside.sum(axis=1, keepdims=True)
    q = outside / outside.sum(axis=1, keepdims=True)
    divergence = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return np.asarray(np.sqrt(np.clip(divergence, 0.0, 1.0)))


def _entropy(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    terms = np.where(shares > 0, -shares * np.log2(np.where(shares > 0, shares, 1.0)), 0.0)
    return np.asarray(terms.sum(axis=1))
