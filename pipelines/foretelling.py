"""A champion's accuracy on traffic whose truth is not known yet, and how far such estimates were from it in the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drift.hindsight import Hindsight
from drift.label_free import Scores, foretell, mean_confidence
from pipelines.watch import Seen

MOST_KNOWN = 1_000
"""Held-out rows with truth that estimates of accuracy are made from: the newest."""


class Foretelling:
    """Estimates of one classifier's accuracy, window by window.

    ``held``: rows that it has not learnt from, newest first; those with truth are what the estimates are made from,
    and there are none where too few have it.
    """

    def __init__(self, held: Sequence[Seen], seed: int) -> None:
        known = [row for row in held if row.truth is not None][:MOST_KNOWN]
        self._known = _scores(known, truth=True) if known else None
        self._seed = seed
        self._hindsight = Hindsight()
        self._last: dict[str, Any] = {}

    def look(self, window: Sequence[Seen]) -> None:
        """Estimate the accuracy on a window."""
        target = _scores(window, truth=False)
        found = foretell(self._known, target, seed=self._seed) if self._known is not None else {}
        self._hindsight.add({row.name: row.answer.label for row in window}, found)
        self._last = {"rows": len(window), "mean_confidence": mean_confidence(target)}
        for method, estimate in found.items():
            self._last |= {
                method: estimate.value, f"{method}_lower": estimate.lower, f"{method}_upper": estimate.upper,
            }  # fmt: skip

    def learn(self, name: str, truth: str) -> None:
        """The truth of an input."""
        self._hindsight.learn(name, truth)

    def gauge(self) -> dict[str, Any]:
        """What is known; empty before the first window.

        Of the newest window ``rows``, ``mean_confidence``, and by method of :mod:`drift.label_free` ``METHOD``,
        ``METHOD_lower`` and ``METHOD_upper``. Of the remembered windows whose truth has come ``windows_with_truth``,
        the ``accuracy`` on the newest of them, and by method ``METHOD_error``, the mean absolute error, and
        ``METHOD_inside``, the share of them whose accuracy is in the interval.
        """
        if not self._last:
            return {}
        later: dict[str, Any] = {
            "windows_with_truth": self._hindsight.judged, "accuracy": self._hindsight.accuracy(),
        }  # fmt: skip
        for method, (error, inside) in self._hindsight.errors().items():
            later |= {f"{method}_error": error, f"{method}_inside": inside}
        return self._last | later


def _scores(rows: Sequence[Seen], *, truth: bool) -> Scores:
    return Scores.of(
        [row.answer.confidence for row in rows],
        [row.agrees for row in rows],
        [row.answer.label == row.truth for row in rows] if truth else (),
    )
