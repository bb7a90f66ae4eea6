"""How far estimates of an accuracy were from the truth, once the truth came.

Estimates without labels (:mod:`drift.label_free`) rest on assumptions that no interval covers: that a confidence means
what it meant. Only the truth tells whether they held, and it comes late, a row at a time, and perhaps for a part of
the rows; where that part is not like the others, so is what is said here.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from drift.label_free import Foretold

REMEMBERED = 20
"""Windows whose truth is waited for; older ones are forgotten."""

MOST_TRUTHS = 20_000
"""Truths that are kept for rows that have not been seen yet: truth may overtake the label of its input."""

LEAST_TRUTHS = 20
"""True answers that a window needs before an estimate of it is held against them."""


@dataclass(kw_only=True)
class _Window:
    answers: Mapping[str, str]
    estimates: Mapping[str, Foretold]
    right: dict[str, bool] = field(default_factory=dict)

    def learn(self, row: str, truth: str) -> None:
        if row in self.answers:
            self.right[row] = self.answers[row] == truth

    @property
    def accuracy(self) -> float:
        return sum(self.right.values()) / len(self.right)


class Hindsight:
    """Remembers the last windows' answers and estimates, and holds each against the truth as it becomes known."""

    def __init__(self) -> None:
        self._windows: deque[_Window] = deque(maxlen=REMEMBERED)
        self._truths: OrderedDict[str, str] = OrderedDict()

    def add(self, answers: Mapping[str, str], estimates: Mapping[str, Foretold]) -> None:
        """A window: the model's answer to each of its rows, by the row's name, and what was foretold, by method."""
        window = _Window(answers=answers, estimates=estimates)
        for row in answers.keys() & self._truths.keys():
            window.learn(row, self._truths[row])
        self._windows.append(window)

    def learn(self, row: str, truth: str) -> None:
        """The truth of one row; a later truth of the same row takes its place."""
        self._truths[row] = truth
        self._truths.move_to_end(row)
        if len(self._truths) > MOST_TRUTHS:
            self._truths.popitem(last=False)
        for window in self._windows:
            window.learn(row, truth)

    @property
    def judged(self) -> int:
        """Remembered windows of which at least :data:`LEAST_TRUTHS` truths are known."""
        return len(self._known())

    def accuracy(self) -> float | None:
        """The accuracy on the newest of them; None where there is none."""
        known = self._known()
        return known[-1].accuracy if known else None

    def errors(self) -> dict[str, tuple[float, float]]:
        """By method, over them: the mean absolute error, and the share of windows whose accuracy is in the interval."""
        found: dict[str, tuple[float, float]] = {}
        for method in dict.fromkeys(m for w in self._known() for m in w.estimates):
            made = [(w.estimates[method], w.accuracy) for w in self._known() if method in w.estimates]
            misses = [abs(e.value - truth) for e, truth in made]
            inside = [e.lower <= truth <= e.upper for e, truth in made]
            found[method] = float(np.mean(misses)), float(np.mean(inside))
        return found

    def _known(self) -> list[_Window]:
        return [w for w in self._windows if len(w.right) >= LEAST_TRUTHS]
