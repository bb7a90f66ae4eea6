"""An alarm about inputs that are unlike the data of the student that answers them, read from its own p-values.

A conformal p-value is uniform as long as the inputs are like those that it was calibrated on (V. Vovk, A. Gammerman and
G. Shafer, "Algorithmic Learning in a Random World", Springer 2005), so that betting against it pays only where they are
not (V. Vovk, I. Nouretdinov and A. Gammerman, "Testing exchangeability on-line", ICML 2003). That holds exactly where
every p-value is calibrated anew. Here a fixed sample calibrates all of them, and its own error would in the end be
taken for a change; so the bets are against means that lie beyond what a sample of that size can be wrong by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from drift.change_point import DOUBT, ChangeDetector, Watched
from drift.columns import Column, floats

NOVELTY = "novelty"
"""The column of the p-values."""

TAIL = 0.05
"""P-values up to it are counted as novel: few inputs of a new kind are seen by their count, many by the mean as well.
"""


_Z = NormalDist().inv_cdf(1.0 - DOUBT / 2.0)


def tail_bound(rows: int, min_effect: float) -> float:
    """The largest share of p-values up to :data:`TAIL` that is no change, in [0, 1].

    Arguments as of :meth:`NoveltyDetector.calibrated`.

    Raises:
        ValueError: ``rows`` is less than one.

    """
    if rows < 1:
        raise ValueError(f"rows is {rows}: p-values are calibrated by at least one")
    return min(1.0, TAIL + min_effect + _Z * math.sqrt(max(TAIL * (1.0 - TAIL), 1.0 / rows) / rows))


def _above(known: npt.NDArray[np.float64], effect: float) -> float:
    """The largest mean in [0, 1] that is no change from that of a sample, whose own error is left out."""
    rows = len(known)
    return min(1.0, float(known.mean()) + effect + _Z * math.sqrt(max(float(known.var()), 1.0 / rows) / rows))


class NoveltyDetector(ChangeDetector):
    """Watches a stream of p-values for small ones; made by :meth:`calibrated`.

    >>> detector = NoveltyDetector.calibrated(300, run_length=1e4, min_effect=0.1)
    >>> detector.observe({"novelty": [0.3, 0.8, 0.1, 0.6, None]}) is None
    True
    >>> detector.observe({"novelty": [0.01] * 12}).what
    'novel up'
    """

    @classmethod
    def calibrated(
        cls, rows: int, *, run_length: float, min_effect: float, usual: Sequence[float] = ()
    ) -> NoveltyDetector:
        """Watch p-values that a sample of ``rows`` (>= 1) inputs calibrated.

        ``run_length``: inputs between false alarms, on the mean, at least; ``min_effect``: share of novel inputs, in
        [0, 0.5), beyond the usual :data:`TAIL` that is no change. Large p-values are no change either: inputs may be
        more alike than those that calibrated. ``usual``: p-values of known inputs that the present traffic is like,
        where those that calibrated are of other traffic as well: its own are then not uniform, and smaller ones than
        usual are no change up to theirs.

        Raises:
            ValueError: a parameter is out of its range.

        """
        if not run_length > 1.0:
            raise ValueError(f"run_length is {run_length}: it must be more than one row")
        if not 0.0 <= min_effect < 0.5:
            raise ValueError(f"min_effect is {min_effect}: it must be in [0, 0.5)")
        tail = tail_bound(rows, min_effect)
        mean = min(1.0, 0.5 + min_effect / 2.0 + _Z * math.sqrt(1.0 / (12.0 * rows)))
        if len(usual):
            known = np.asarray(usual, dtype=np.float64)
            mean = max(mean, _above(1.0 - known, min_effect / 2.0))
            tail = max(tail, _above((known <= TAIL).astype(np.float64), min_effect))
        watches = (
            Watched(column=NOVELTY, what="mean down", bound=mean),
            Watched(column=NOVELTY, what="novel up", bound=tail),
        )
        return cls(run_length=run_length, watches=watches, ranked={}, named={})

    def _watched(self, rows: Mapping[str, Column]) -> npt.NDArray[np.float64]:
        """Shape (rows, 2); what has no p-value says nothing, and is left out."""
        if NOVELTY not in rows:
            raise ValueError(f"the stream lacks the column {NOVELTY!r}")
        values = floats(rows[NOVELTY])
        values = values[~np.isnan(values)]
        if ((values < 0.0) | (values > 1.0)).any():
            raise ValueError("a p-value is in [0, 1]")
        found: npt.NDArray[np.float64] = np.stack([1.0 - values, (values <= TAIL).astype(np.float64)], axis=1)
        return found

    def resume(self, data: Mapping[str, Any]) -> NoveltyDetector:
        """Go on where the detector was that :meth:`as_dict` described. Returns itself."""
        super().resume(data)
        return self
