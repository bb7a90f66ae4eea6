"""The Jensen-Shannon distance, for categorical columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def distance(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], categories: int) -> float:
    """Distance of the two category mixes (codes in [0, categories)): square root of the divergence in bits, in [0, 1].

    J. Lin, "Divergence measures based on the Shannon entropy" (IEEE Transactions on Information Theory 37, 1991).

    >>> distance(np.array([0, 0]), np.array([1, 1]), 2)
    1.0
    """
    p = np.bincount(a, minlength=categories) / len(a)
    q = np.bincount(b, minlength=categories) / len(b)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return float(np.sqrt(np.clip(divergence, 0.0, 1.0)))


def _relative_entropy(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    seen = p > 0
    return float(np.sum(p[seen] * np.log2(p[seen] / q[seen])))
