"""Entropy of soft labels: how unsure a teacher or a student is, over a window.

A window's entropies are also a numeric column like any other for :class:`drift.monitor.Reference`, which says whether
they have changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

MASS_TOLERANCE = 1e-3
"""How far probabilities may be from summing to one: softmaxes of hundreds of classes in float32 stay far within."""


def shannon(probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Shannon entropy in nats along the last axis, in [0, log(classes)]; zero probabilities add nothing.

    ``probabilities``: shape (..., classes), each row summing to one; the result has shape (...).
    C. E. Shannon, "A mathematical theory of communication" (Bell System Technical Journal 27, 1948).

    >>> round(float(shannon([0.5, 0.5])), 4)
    0.6931

    Raises:
        ValueError: a probability is negative or not a number, or a row does not sum to one.

    """
    p = np.asarray(probabilities, dtype=np.float64)
    mass = p.sum(axis=-1)
    if not (p >= 0).all() or not (np.abs(mass - 1.0) <= MASS_TOLERANCE).all():
        raise ValueError("probabilities must not be negative and must sum to one along the last axis")
    terms = np.where(p > 0, -p * np.log(np.where(p > 0, p, 1.0)), 0.0)
    return np.asarray(terms.sum(axis=-1))


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A window's entropies (nats): mean, standard deviation of the window itself, and the deciles 1, 5 and 9."""

    n: int
    mean: float
    deviation: float
    low: float
    median: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Plain JSON data."""
        return asdict(self)


def summarise(entropies: Sequence[float]) -> Summary | None:
    """Summary of a window; None of an empty one.

    Raises:
        ValueError: an entropy is not a finite number.

    """
    h = np.asarray(entropies, dtype=np.float64)
    if not h.size:
        return None
    if not np.isfinite(h).all():
        raise ValueError(f"{int((~np.isfinite(h)).sum())} of {h.size} entropies are not finite numbers")
    low, median, high = (float(q) for q in np.quantile(h, (0.1, 0.5, 0.9)))
    return Summary(n=h.size, mean=float(h.mean()), deviation=float(h.std()), low=low, median=median, high=high)


def mutual_information(probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """How much an ensemble's members disagree about each input, in nats: the entropy of their mean less their mean one.

    ``probabilities``: shape (members, ..., classes); the result has shape (...), in [0, log(members)]. An input that is
    hard leaves all members unsure alike (near 0); one that is unknown lets each be sure of something else. N. Houlsby
    et al., "Bayesian active learning for classification and preference learning" (arXiv 1112.5745).

    >>> [round(float(x), 3) for x in mutual_information([[[1, 0], [0.5, 0.5]], [[0, 1], [0.5, 0.5]]])]
    [0.693, 0.0]

    Raises:
        ValueError: as for :func:`shannon`.

    """
    p = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(np.maximum(shannon(p.mean(axis=0)) - shannon(p).mean(axis=0), 0.0))
