"""How many neighbouring rows depend on each other: the block length of a resampling that keeps them together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

LEAST_ROWS = 100
"""Rows below which correlations of lags are noise: such a reference is taken as independent rows."""

FALSE_RATE = 0.01
"""Chance that independent columns are taken for dependent ones, all columns and lags together."""


def block_length(series: Iterable[npt.NDArray[np.float64]]) -> int:
    """The block length for all ``series`` (columns in the order of their rows, finite): 1 where none is autocorrelated.

    The largest of the lengths that minimise the error of the circular block bootstrap's variance: D. N. Politis and
    H. White, "Automatic block-length selection for the dependent bootstrap" (Econometric Reviews 23, 2004), corrected
    by A. Patton, D. N. Politis and H. White (28, 2009).
    """
    known = [s for s in series if len(s) >= LEAST_ROWS and np.ptp(s) > 1e-12]
    return max((math.ceil(_politis_white(s, len(known))) for s in known), default=1)


def _politis_white(values: npt.NDArray[np.float64], columns: int) -> float:
    n = len(values)
    in_a_row = max(5, math.ceil(math.sqrt(math.log10(n))))
    # Their threshold 2 sqrt(log10(n) / n), or that of FALSE_RATE over all that is looked at, whichever is larger.
    chance = NormalDist().inv_cdf(1.0 - FALSE_RATE / (2.0 * columns * in_a_row))
    least = max(2.0 * math.sqrt(math.log10(n)), chance) / math.sqrt(n)
    centred = values - values.mean()
    if (_first_correlations(centred, in_a_row) < least).all():
        return 1.0
    most = min(math.ceil(math.sqrt(n)) + in_a_row, n // 3)
    covariances = _autocovariances(centred, most)
    lag = _first_run(np.abs(covariances[1:] / covariances[0]) < least, in_a_row)
    reach = min(2 * lag, most)
    k = np.arange(1, reach + 1)
    window = np.clip(2.0 * (1.0 - k / reach), 0.0, 1.0)
    slope = 2.0 * float((window * k * covariances[1 : reach + 1]).sum())
    spectrum = float(covariances[0] + 2.0 * (window * covariances[1 : reach + 1]).sum())
    if spectrum <= 0.0:
        return 1.0
    length = (1.5 * slope**2 / spectrum**2) ** (1.0 / 3.0) * n ** (1.0 / 3.0)
    return float(min(max(length, 1.0), min(3.0 * math.sqrt(n), n / 3.0)))


def _first_correlations(centred: npt.NDArray[np.float64], lags: int) -> npt.NDArray[np.float64]:
    """Without their signs; for the few that clear most columns, products are faster than the transform of all lags."""
    covariances = [float(np.einsum("i,i->", centred[: len(centred) - k], centred[k:])) for k in range(lags + 1)]
    return np.abs(np.array(covariances[1:]) / covariances[0])


def _autocovariances(centred: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.float64]:
    n = len(centred)
    size = 1 << (2 * n - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, size)) ** 2
    return np.asarray(np.fft.irfft(power, size)[: most + 1] / n)


def _first_run(small: npt.NDArray[np.bool_], length: int) -> int:
    """The lag after which ``length`` correlations in a row are small, or the last lag that is not."""
    for lag in range(len(small) - length + 1):
        if small[lag : lag + length].all():
            return lag
    large = np.flatnonzero(~small)
    return int(large[-1]) + 1 if len(large) else 0
