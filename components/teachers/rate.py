"""Rate limits over a moving window, exact: in no window of that length is more taken than allowed."""

from __future__ import annotations

import math
import threading
import time

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from components.contracts.errors import ConfigError

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
            while not self._limiter.hit(self._item, cost=steps):
                free = self._limiter.get_window_stats(self._item).reset_time
                time.sleep(min(max(free - time.time(), SHORTEST_WAIT_SECONDS), self.window_seconds))
            self.waited_seconds += time.monotonic() - started

    def owe(self, cost: int) -> None:
        """Book ``cost`` that was used beyond what was taken, as far as the window has room for it."""
        if self._limiter is None or cost <= 0:
            return
        with self._turn:
            room = self._limiter.get_window_stats(self._item).remaining
            self._limiter.hit(self._item, cost=min(room, math.ceil(cost / self.step)))
