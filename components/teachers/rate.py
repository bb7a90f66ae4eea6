"""Rate limits over a moving window, exact: in no window of that length is more taken than allowed.

A limit is one process's, or that of all who share it (:class:`components.teachers.common.Common`).
"""

from __future__ import annotations

import math
import threading
import time

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from components.contracts.errors import ConfigError
from components.teachers.common import Common

STEPS = 1_000
"""The window's book has at most so many entries: larger amounts (tokens) are counted in steps of a thousandth, rounded
up, so that a million tokens a minute need no list of a million entries."""

SHORTEST_WAIT_SECONDS = 0.01
"""The window's clock and ours differ by less; without a wait a limit would be asked in a busy loop."""


class Rate:
    """At most ``amount`` per ``window_seconds`` (a whole number); None: no limit. Safe to share between threads."""

    def __init__(self, field: str, amount: int | None, window_seconds: int = 60) -> None:
        self.field, self.amount, self.window_seconds = field, amount, window_seconds
        self.step = max(1, math.ceil((amount or 1) / STEPS))
        self.waited_seconds = 0.0
        self._turn = threading.Lock()
        self._item = RateLimitItemPerSecond((amount or 1) // self.step, window_seconds)
        self._limiter = MovingWindowRateLimiter(MemoryStorage()) if amount else None
        self.common: Common | None = None
        """Those who share the limit; None: nobody does."""

    def take(self, cost: int) -> None:
        """Take ``cost``, waiting until it fits; who came first goes first.

        Raises:
            ConfigError: it never fits.

        """
        if self._limiter is None:
            return
        steps = math.ceil(cost / self.step)
        if steps > self._item.amount:
            raise ConfigError(self.field, self.amount, f"one request takes up to {cost}: allow at least that much")
        with self._turn:
            started = time.monotonic()
            while (wait := self._wait(steps)) is not None:
                time.sleep(min(max(wait, SHORTEST_WAIT_SECONDS), self.window_seconds))
            self.waited_seconds += time.monotonic() - started

    def _wait(self, steps: int) -> float | None:
        """How long to wait before it is tried again; None: it was taken."""
        if self._limiter is None:
            return None
        if self.common is not None:
            return self.common.take(self.field, steps, self._item.amount, self.window_seconds) or None
        if self._limiter.hit(self._item, cost=steps):
            return None
        return float(self._limiter.get_window_stats(self._item).reset_time - time.time())

    def owe(self, cost: int) -> None:
        """Book ``cost`` that was used beyond what was taken, as far as the window has room for it."""
        if self._limiter is None or cost <= 0:
            return
        if self.common is not None:
            self.common.owe(self.field, math.ceil(cost / self.step), self._item.amount, self.window_seconds)
            return
        with self._turn:
            room = self._limiter.get_window_stats(self._item).remaining
            self._limiter.hit(self._item, cost=min(room, math.ceil(cost / self.step)))
