"""Entropy of soft labels: how unsure a teacher or a student is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def shannon(probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Shannon entropy in nats along the last axis, in [0, log(classes)]; zero probabilities add nothing.

    C. E. Shannon, "A mathematical theory of communication" (1948).

    >>> round(float(shannon([0.5, 0.5])), 4)
    0.6931
    """
    p = np.asarray(probabilities, dtype=np.float64)
    terms = np.where(p > 0, -p * np.log(np.where(p > 0, p, 1.0)), 0.0)
    return np.asarray(terms.sum(axis=-1))
