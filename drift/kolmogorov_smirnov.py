"""The two-sample Kolmogorov-Smirnov distance, for numeric columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def distance(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """The largest difference of the two empirical distribution functions, in [0, 1]; ties are exact.

    Missing values (NaN) count as smaller than any number, so that a change of their share is a change.

    N. V. Smirnov, "Table for estimating the goodness of fit of empirical distributions" (1948).

    >>> distance(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    1.0
    """
    left, right = np.sort(_ordered(a)), np.sort(_ordered(b))
    places = np.concatenate([left, right])
    below_left = np.searchsorted(left, places, side="right") / len(left)
    below_right = np.searchsorted(right, places, side="right") / len(right)
    return float(np.abs(below_left - below_right).max())


def _ordered(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(np.isnan(values), -np.inf, values)
