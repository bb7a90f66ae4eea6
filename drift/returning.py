"""Evidence that a model that served before suits the present traffic better than the one that serves.

Two things are bet on for each of the former models, each as a sum in the form of Shiryaev and Roberts (see
:mod:`drift.change_point`), which forgets by itself what was before a change:

``answers``: on labelled inputs, that it is right where the present model is wrong more often than the contrary, by more
than the least effect. The same inputs are held against both, so that hard ones count for neither.

``familiar``: on any inputs, that the present model finds them novel and the former one does not. Where nothing has
changed, the present model finds few novel, whatever the former one says. That an input is like what a model learnt does
not say that it answers it rightly: a model made from less finds less novel. So a former model is not named by this
while, of the labels that came since the evidence began, it is shown to answer fewer than half rightly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from drift.betting import FRACTIONS
from drift.change_point import MOST
from drift.novelty_detector import TAIL, tail_bound

By = Literal["answers", "familiar"]
BY: tuple[By, By] = ("answers", "familiar")

CONTRADICTED = 0.05
"""Of a model that is right on half of the inputs, so few right answers have at most this chance."""


@dataclass(frozen=True, kw_only=True)
class Return:
    """A former model that suits the traffic, as the last ``rows`` inputs or labels say, and all evidence's logarithm.

    ``share``: of them, those that speak for it, less (by ``answers``) those that speak for the present model.
    """

    version: str
    by: By
    rows: int
    share: float
    log_evidence: float


class ReturnDetector:
    """Watches former models beside the present one; its memory does not grow with the stream.

    ``run_length``: mean number of inputs and labels, at least, until a former model is named that suits the traffic no
    better. ``calibrated``: how many inputs the present model's p-values rest on. ``min_effect``: difference of shares,
    in [0, 1), that is none.

    >>> detector = ReturnDetector(("1", "2"), run_length=1e4, min_effect=0.1, calibrated=300)
    >>> for _ in range(10):
    ...     detector.look({"1": 0.6, "2": 0.01}, 0.01)
    >>> detector.found().version
    '1'

    Raises:
        ValueError: a parameter is out of its range.

    """

    def __init__(self, versions: Sequence[str], *, run_length: float, min_effect: float, calibrated: int) -> None:
        if not run_length > 1.0:
            raise ValueError(f"run_length is {run_length}: it must be more than one row")
        if not 0.0 <= min_effect < 0.5:
            raise ValueError(f"min_effect is {min_effect}: it must be in [0, 0.5)")
        self.versions, self.run_length = tuple(versions), run_length
        novel = tail_bound(calibrated, min_effect)
        self._bounds = np.array([0.5 + min_effect / 2.0, novel])
        self._fractions = np.array(FRACTIONS)
        self.anew()

    def anew(self) -> None:
        """Forget all evidence."""
        shape = (len(self.versions), len(BY), len(FRACTIONS))
        self._log = np.full(shape, -np.inf)
        self._rows, self._sum = np.zeros(shape, dtype=np.int64), np.zeros(shape)
        self._answered = np.zeros((2, len(self.versions), len(FRACTIONS)), dtype=np.int64)

    def label(self, right: Mapping[str, bool], present: bool) -> None:
        """Take a label: whether each former model, and the present one, answers as it says. Who is missing, passes."""
        for version, mine in right.items():
            self._bet(version, 0, (1.0 + int(mine) - int(present)) / 2.0, float(int(mine) - int(present)))

    def answered(self, right: Mapping[str, bool]) -> None:
        """Take any label, also one that was chosen for what is unsure: whether each former model answers as it says.

        It speaks only against one that finds the inputs familiar.
        """
        for version, mine in right.items():
            self._answered[:, self.versions.index(version)] += np.array([[1], [int(mine)]])

    def look(self, novelty: Mapping[str, float | None], present: float | None) -> None:
        """Take an input: the p-value of its likeness to what each of them knows; where there is none, it says nothing.

        Raises:
            ValueError: a p-value is not in [0, 1].

        """
        if present is None:
            return
        for p in (present, *novelty.values()):
            if p is not None and not 0.0 <= p <= 1.0:
                raise ValueError(f"p-value {p} is not in [0, 1]")
        for version, p in novelty.items():
            if p is not None:
                familiar = float(present <= TAIL < p)
                self._bet(version, 1, familiar, familiar)

    def _bet(self, version: str, by: int, x: float, speaks: float) -> None:
        at = self.versions.index(version), by
        began = self._log[at] < 0.0
        self._rows[at] = np.where(began, 1, self._rows[at] + 1)
        self._sum[at] = np.where(began, speaks, self._sum[at] + speaks)
        if by == BY.index("familiar"):
            self._answered[:, at[0], began] = 0
        gain = np.log1p(self._fractions * (x / self._bounds[by] - 1.0))
        self._log[at] = np.minimum(gain + np.logaddexp(self._log[at], 0.0), MOST)

    @property
    def evidence(self) -> float:
        """The logarithm of the evidence for any of the former models; it names one at ``log(run_length)``."""
        return _mixed(self._log)

    def found(self) -> Return | None:
        """The former model that suits the traffic best, if the evidence names one now."""
        if self.evidence < math.log(self.run_length):
            return None
        log = self._log.copy()
        log[:, BY.index("familiar")][self._contradicted()] = -np.inf
        if (evidence := _mixed(log)) < math.log(self.run_length):
            return None
        at = np.unravel_index(int(log.argmax()), log.shape)
        i, by, rows = int(at[0]), int(at[1]), int(self._rows[at])
        share = float(self._sum[at]) / rows
        return Return(version=self.versions[i], by=BY[by], rows=rows, share=share, log_evidence=evidence)

    def _contradicted(self) -> np.ndarray:
        """Which former models, by the bet's fraction, labels show to be wrong on most of what they find familiar."""
        from scipy.special import bdtr  # scipy.stats takes a second to import

        labels, right = self._answered
        found: np.ndarray = (labels > 0) & (bdtr(right, np.maximum(labels, 1), 0.5) <= CONTRADICTED)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data for :meth:`resume`."""
        finite = np.maximum(self._log, -1e300).tolist()
        return {
            "versions": list(self.versions), "log": finite, "rows": self._rows.tolist(), "sum": self._sum.tolist(),
            "answered": self._answered.tolist(),
        }  # fmt: skip

    def resume(self, data: Mapping[str, Any]) -> None:
        """Go on where the detector was that :meth:`as_dict` described.

        Raises:
            ValueError: it watched other models.

        """
        if tuple(data["versions"]) != self.versions:
            raise ValueError("the stored evidence is of other versions: start the detector anew")
        log = np.array(data["log"], dtype=np.float64).reshape(self._log.shape)
        self._log = np.where(log <= -1e300, -np.inf, log)
        self._rows = np.array(data["rows"], dtype=np.int64).reshape(self._rows.shape)
        self._sum = np.array(data["sum"], dtype=np.float64).reshape(self._sum.shape)
        if "answered" in data:  # evidence of before has none
            self._answered = np.array(data["answered"], dtype=np.int64).reshape(self._answered.shape)


def _mixed(log: np.ndarray) -> float:
    """The logarithm of the mean of capitals, by their logarithms."""
    most = float(log.max()) if log.size else -np.inf
    return most + math.log(float(np.exp(log - most).mean())) if most > -np.inf else -np.inf
