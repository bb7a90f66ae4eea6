"""How what workers report has moved: their gauges keep the last value alone, so the console remembers what it saw.

In memory, since the console was first opened in this process; a longer history is Prometheus' part.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping

import msgspec
from sqlalchemy import select

from components.control.store import ControlStore
from components.control.tables import GaugeRow

EVERY_SECONDS = 10.0
"""How often the gauges are looked at."""

KEPT = 720
"""Values of each that are remembered: two hours of a gauge that changes at every look."""

WATCHED: Mapping[str, tuple[str, ...]] = {
    "drift": ("statistic", "threshold"),
    "predictive_entropy": ("statistic", "threshold", "student_entropy", "mutual_information"),
    "entropy": ("statistic", "threshold", "teacher_entropy", "student_entropy"),
    "novelty": ("log_evidence", "log_evidence_limit"),
    "change": ("log_evidence", "log_evidence_limit"),
    "foretold_accuracy": ("mean_confidence", "accuracy", "calibrated", "threshold", "difference", "disagreement"),
    "labeler": ("lag", "budget_left_hour", "budget_left_day"),
}
"""The fields that are remembered, by the gauge's name."""

Key = tuple[str, str, str]
"""Workload, gauge, field."""


class Moment(msgspec.Struct, frozen=True):
    """A value and when it was reported (Unix seconds)."""

    at: float
    value: float


class History:
    """The remembered values. Safe to use from several threads."""

    def __init__(self, store: ControlStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._values: dict[Key, deque[Moment]] = {}
        self._looked, self._newest = float("-inf"), 0.0

    def look(self) -> None:
        """Take in what was reported since the last look, if that was long enough ago."""
        with self._lock:
            if time.monotonic() - self._looked < EVERY_SECONDS:
                return
            self._looked = time.monotonic()
            query = select(GaugeRow).where(GaugeRow.at > self._newest, GaugeRow.name.in_(WATCHED))
            with self._store.session() as s:
                rows = s.scalars(query.order_by(GaugeRow.at)).all()
            for row in rows:
                self._newest = max(self._newest, row.at)
                for field in WATCHED[row.name]:
                    value = row.value.get(field)
                    if isinstance(value, int | float):
                        key = (row.workload, row.name, field)
                        self._values.setdefault(key, deque(maxlen=KEPT)).append(Moment(row.at, float(value)))

    def points(self, workload: str, gauge: str, field: str) -> list[tuple[float, float | None]]:
        """One field over time, oldest first."""
        with self._lock:
            return [(m.at, m.value) for m in self._values.get((workload, gauge, field), ())]
