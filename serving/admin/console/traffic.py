"""What the gateway's replicas of this home count: answers a second and the deferred share, from their ``/metrics``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from components.telemetry.announced import announced

COUNTED = {"cohobate_answers_total": "answers", "cohobate_deferred_total": "deferred"}
"""The counters that are read, and what they are called here."""

EVERY_SECONDS = 10.0
"""How often replicas are asked, at most, and so over how long a rate is a mean."""

ASK_SECONDS = 1.0
"""How long one may take to answer."""

Counts = dict[tuple[str, str], float]
"""By workload and what is counted."""


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Answers a second, and the deferred share of them; that is None where there was none."""

    answers: float
    deferred: float | None


class Traffic:
    """The rates between the last two looks. Safe to use from several threads; only one of them looks."""

    def __init__(self, home: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._home, self._clock = home, clock
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._last: dict[str, tuple[float, Counts]] = {}
        self._rates: dict[str, Rate] = {}

    def rate(self, workload: str) -> Rate | None:
        """The present rate of a workload; None before the second look, or where no replica of this home answers."""
        return self._rates.get(workload)

    def look(self) -> None:
        """Ask all replicas, if the last time is long enough ago."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._clock() - self._looked < EVERY_SECONDS:
                return
            self._looked = self._clock()
            self._ask(announced(self._home))
        finally:
            self._lock.release()

    def _ask(self, addresses: Mapping[str, str]) -> None:
        found: dict[str, tuple[float, Counts]] = {}
        with httpx.Client(timeout=ASK_SECONDS, trust_env=False) as client:
            for name, address in addresses.items():
                if "-gateway-" not in name:
                    continue
                try:
                    text = client.get(f"http://{address}/metrics").raise_for_status().text
                except httpx.HTTPError:
                    continue  # it ended, or is just starting
                found[address] = (self._clock(), counts(text))
        totals: Counts = {}
        for address, (at, now) in found.items():
            before = self._last.get(address)
            if before is None or at <= before[0]:
                continue
            for key, value in now.items():
                was = before[1].get(key, 0.0)
                gained = value - was if value >= was else value  # a counter that begins anew
                totals[key] = totals.get(key, 0.0) + gained / (at - before[0])
        self._last = found
        self._rates = {
            w: Rate(answers=per_second, deferred=totals.get((w, "deferred"), 0.0) / per_second if per_second else None)
            for (w, what), per_second in totals.items()
            if what == "answers"
        }


def counts(text: str) -> Counts:
    """What one replica has counted since its start.

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
