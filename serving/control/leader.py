"""One controller leads a workload; others stand by, and one of them takes over when it dies or loses the database.

1. Stand by until the lease is free, or its holder was silent for its term.
2. Hold it by beats from a thread.
3. Make a controller, which fences the one before it out by the intent's epoch, and tick it.
4. When the lease is lost, another controller wrote, or the database does not answer, put it away and stand by again.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from components.control.leader import BEATS_PER_TERM, Heart, Lease
from components.control.store import ControlStore, StaleRevisionError
from serving.control.replicas import ReplacedError

log = logging.getLogger(__name__)

GAUGE = "controller"
"""The gauge that names who leads."""


class Led(Protocol):
    """What is led: a controller."""

    def tick(self) -> None:
        """One cycle of its work."""

    def pause(self, stop: threading.Event) -> None:
        """Wait for the next cycle, or until ``stop`` is set."""

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
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Stand by and lead in turn until ``stop`` is set; ``make`` makes the controller each time the lead is won.

    ``clock``: by which the lease's ``term`` runs.
    """
    lease = Lease(store, f"controller/{workload}", holder or identity(), term, clock)
    while not stop.is_set():
        try:
            # Step 1
            if lease.acquire():
                _hold(store, workload, lease, stalled, lambda lost: _work(make, lost, stop, on_tick))
        except (ReplacedError, StaleRevisionError, SQLAlchemyError) as error:
            # Step 4
            log.warning("%s: standing by: %s", workload, error)
        on_tick()
        stop.wait(term / BEATS_PER_TERM)


def _hold(
    store: ControlStore,
    workload: str,
    lease: Lease,
    stalled: Callable[[], bool],
    work: Callable[[threading.Event], None],
) -> None:
    lost = threading.Event()
    # Step 2
    with Heart(lease, lost, stalled):
        log.info("%s: %s leads", workload, lease.holder)
        store.put_gauge(workload, GAUGE, {"leader": lease.holder})
        # Step 3
        work(lost)


def _work(make: Callable[[], Led], lost: threading.Event, stop: threading.Event, on_tick: Callable[[], None]) -> None:
    led = make()
    try:
        while not (lost.is_set() or stop.is_set()):
            led.tick()
            on_tick()
            led.pause(stop)
    finally:
        led.close()
