"""One controller leads a workload; others stand by, and one of them takes over when it dies or loses the database.

1. Stand by until the lease is free, or its holder was silent for its term.
2. Hold it by beats from a thread.
3. Make a controller, which fences the one before it out by the intent's epoch, and tick it.
4. When the lease is lost, or another controller wrote, put it away and stand by again.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable
from typing import Protocol

from components.control.leader import BEATS_PER_TERM, Heart, Lease
from components.control.store import ControlStore, StaleRevisionError
from serving.controller import TICK_SECONDS
from serving.replicas import ReplacedError

log = logging.getLogger(__name__)

GAUGE = "controller"
"""The gauge that names who leads."""


class Led(Protocol):
    """What is led: a controller."""

    def tick(self) -> None:
        """One cycle of its work."""

    def close(self) -> None:
        """Let go of what it holds open."""


def identity() -> str:
    """A name of this process that no other has, before it or after: host, pid and a random part."""
    return f"{socket.gethostname()[:64]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def lead(
    store: ControlStore,
    workload: str,
    make: Callable[[], Led],
    *,
    term: float,
    stop: threading.Event,
    holder: str | None = None,
    on_tick: Callable[[], None] = lambda: None,
    stalled: Callable[[], bool] = lambda: False,
) -> None:
    """Stand by and lead in turn until ``stop`` is set; ``make`` makes the controller each time the lead is won."""
    holder = holder or identity()
    while not stop.is_set():
        lease = Lease(store, f"controller/{workload}", holder, term)
        # Step 1
        while not lease.acquire():
            on_tick()
            if stop.wait(term / BEATS_PER_TERM):
                return
        # Step 2
        lost = threading.Event()
        with Heart(lease, lost, stalled):
            log.info("%s: %s leads", workload, holder)
            store.put_gauge(workload, GAUGE, {"leader": holder})
            try:
                # Step 3
                _work(make, lost, stop, on_tick)
            except (ReplacedError, StaleRevisionError) as error:
                log.warning("%s: standing by: %s", workload, error)
        # Step 4
        stop.wait(term / BEATS_PER_TERM)


def _work(make: Callable[[], Led], lost: threading.Event, stop: threading.Event, on_tick: Callable[[], None]) -> None:
    led = make()
    try:
        while not (lost.is_set() or stop.is_set()):
            led.tick()
            on_tick()
            stop.wait(TICK_SECONDS)
    finally:
        led.close()
