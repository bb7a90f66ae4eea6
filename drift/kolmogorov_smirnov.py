"""The two-sample Kolmogorov-Smirnov distance, for numeric columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def distances(values: npt.NDArray[np.float64], current: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The largest difference of the two empirical distribution functions, in [0, 1], for each of S splits.

    ``values`` (N,): reference and window pooled; ``current`` (S, N): which of them each split puts into the window,
    at least one and not all. Ties are exact. Missing values (NaN) count as smaller than any number, so that a change
    of their share is a change. N. V. Smirnov, "Table for estimating the goodness of fit of empirical distributions"
    (Annals of Mathematical Statistics 19, 1948).

    >>> distances(np.array([1.0, 2.0, 3.0, 4.0]), np.array([[False, False, True, True], [False, True, False, True]]))
    array([1. , 0.5])
    """
    known = np.where(np.isnan(values), -np.inf, values)
    order = np.argsort(known, kind="stable")
    last_of_tie = np.flatnonzero(np.append(known[order][1:] != known[order][:-1], True))
    seen = np.cumsum(current[:, order], axis=1, dtype=np.int32)
    window = seen[:, -1:]
    seen = seen[:, last_of_tie]
    gaps = seen / window - (last_of_tie + 1 - seen) / (len(values) - window)
    return np.asarray(np.abs(gaps).max(axis=1))
