"""What the workers of this home count, from their ``/metrics``: rates for the pages, and sums by the hour to keep.

Replicas of the gateway and labelers are asked every :data:`KEEP_SECONDS`, and every :data:`EVERY_SECONDS` while
somebody looks at a page. What one counted since it was last asked is added to the hour's row (:class:`TrafficRow`).
What was counted while this process was down, and what a worker counted between its last answer and its end, is missed:
the sums are never too high.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from components.control.store import ControlStore
from components.control.tables import TrafficRow
from components.telemetry.announced import announced

log = logging.getLogger(__name__)

COUNTED = {
    "cohobate_answers_total": "answers",
    "cohobate_deferred_total": "deferred",
    "cohobate_student_seconds_count": "student_answers",
    "cohobate_student_seconds_sum": "student_seconds",
    "cohobate_labels_total": "labels",
    "cohobate_teacher_seconds_count": "teacher_calls",
    "cohobate_teacher_seconds_sum": "teacher_seconds",
}
"""The counters that are read, each with its column of :class:`TrafficRow`."""

COLUMNS = tuple(COUNTED.values())

ASKED = ("-gateway-", "-labeler-")
"""Parts of the names of the workers that are asked."""

EVERY_SECONDS = 10.0
"""How often workers are asked, at most, and so over how long a rate is a mean."""

KEEP_SECONDS = 30.0
"""How often they are asked while nobody looks."""

ASK_SECONDS = 1.0
"""How long one may take to answer."""

HOUR = 3_600

Counts = dict[tuple[str, str], float]
"""By workload and what is counted."""


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Answers a second, and the deferred share of them; that is None where there was none."""

    answers: float
    deferred: float | None


class Traffic:
    """The counts of this home's workers. Safe to use from several threads; only one of them looks."""

    def __init__(self, home: Path, store: ControlStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._home, self._store, self._clock = home, store, clock
        self._lock = threading.Lock()
        self._looked: float | None = None
        self._last: dict[str, Counts] = {}
        self._missed: set[str] = set()
        self._rates: dict[str, Rate] = {}
        self._unwritten: dict[tuple[str, int], dict[str, float]] = {}

    def rate(self, workload: str) -> Rate | None:
        """The present rate of a workload; None before the second look, or where no replica of this home answers."""
        return self._rates.get(workload)

    def run(self, stop: threading.Event) -> None:
        """Look until ``stop`` is set."""
        while not stop.is_set():
            self.look(KEEP_SECONDS)
            stop.wait(EVERY_SECONDS)

    def look(self, every: float = EVERY_SECONDS) -> None:
        """Ask all workers, if the last time is long enough ago, and keep what they counted."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            now = self._clock()
            if self._looked is not None and now - self._looked < every:
                return
            elapsed, self._looked = (None if self._looked is None else now - self._looked), now
            gained = self._gained(self._ask(announced(self._home)), anew=elapsed is None)
            if elapsed is not None:
                self._rates = _rates(gained, elapsed)
            self._keep(gained)
        finally:
            self._lock.release()

    def _ask(self, addresses: Mapping[str, str]) -> dict[str, Counts | None]:
        """What each worker has counted since its start; None of one that does not answer."""
        found: dict[str, Counts | None] = {}
        with httpx.Client(timeout=ASK_SECONDS, trust_env=False) as client:
            for name, address in addresses.items():
                if any(part in name for part in ASKED):
                    try:
                        found[address] = counts(client.get(f"http://{address}/metrics").raise_for_status().text)
                    except httpx.HTTPError:
                        found[address] = None  # it ended, or is just starting
        return found

    def _gained(self, found: Mapping[str, Counts | None], *, anew: bool) -> Counts:
        """What was counted since the last look. A worker that came since then began at zero; at first nothing did."""
        gained: Counts = {}
        last: dict[str, Counts] = {}
        for address, now in found.items():
            before = self._last.get(address)
            if now is None:
                if before is not None:
                    last[address] = before
                elif anew:
                    self._missed.add(address)
                continue
            last[address] = now
            if before is None and (anew or address in self._missed):
                continue
            for key, value in now.items():
                was = (before or {}).get(key, 0.0)
                gained[key] = gained.get(key, 0.0) + (value - was if value >= was else value)
        self._last, self._missed = last, self._missed & found.keys() - last.keys()
        return gained

    def _keep(self, gained: Counts) -> None:
        """Add to the hour's rows; what the database does not take now is added later."""
        hour = int(self._store.clock() // HOUR) * HOUR
        for (workload, what), value in gained.items():
            if value:
                waiting = self._unwritten.setdefault((workload, hour), {})
                waiting[what] = waiting.get(what, 0.0) + value
        if not self._unwritten:
            return
        try:
            with self._store.transaction() as s:
                for (workload, at), values in self._unwritten.items():
                    row = s.get(TrafficRow, (workload, at), with_for_update=True)
                    if row is None:
                        s.add(row := TrafficRow(workload=workload, hour=at, **{w: _whole(w, 0.0) for w in COLUMNS}))
                    for what, value in values.items():
                        setattr(row, what, getattr(row, what) + _whole(what, value))
        except IntegrityError:
            return  # another admin API made the row; it is added to at the next look
        except SQLAlchemyError as error:
            log.warning("traffic is not written yet: %s", type(error).__name__)
            return
        self._unwritten = {}


def _whole(what: str, value: float) -> float:
    """A count as a whole number; seconds as they are."""
    return value if what.endswith("seconds") else round(value)


def _rates(gained: Counts, elapsed: float) -> dict[str, Rate]:
    return {
        workload: Rate(
            answers=answers / elapsed,
            deferred=gained.get((workload, "deferred"), 0.0) / answers if answers else None,
        )
        for (workload, what), answers in gained.items()
        if what == "answers"
    }


def counts(text: str) -> Counts:
    """What one worker has counted since its start.

    >>> counts('cohobate_answers_total{arm="champion",version="1",workload="w"} 3.0')
    {('w', 'answers'): 3.0}
    """
    found: Counts = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if (what := COUNTED.get(sample.name)) is not None:
                key = (sample.labels.get("workload", ""), what)
                found[key] = found.get(key, 0.0) + sample.value
    return found
