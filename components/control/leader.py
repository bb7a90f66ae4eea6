"""Leadership by a lease in the control database: one holder leads in a matter, and another takes over when it dies.

The lease names no time at which it ends: clocks of machines differ. Its holder counts up ``beats``, and whoever wants
to lead takes it when it has seen no new beat for the lease's term on its own monotonic clock, as Kubernetes' leader
election does. A holder that could not beat for the term no longer leads by its own clock. It may still be about to
write something; against that the intent's epoch fences (:mod:`serving.control.replicas`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from components.control.store import ControlStore
from components.control.tables import LeaderRow

log = logging.getLogger(__name__)

BEATS_PER_TERM = 4
"""Beats in one term of the lease: three may fail before it is lost."""

NOBODY = ""


class Seen(NamedTuple):
    """The lease as it was last seen changed, and when by the monotonic clock."""

    holder: str
    beats: int
    at: float


class Lease:
    """One candidate's view of the lease ``name``. ``term``: seconds of silence after which it is taken."""

    def __init__(
        self, store: ControlStore, name: str, holder: str, term: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store, self.name, self.holder, self.term, self._clock = store, name, holder, term, clock
        self._seen: Seen | None = None
        self._beaten = float("-inf")

    @property
    def held(self) -> bool:
        """Whether this candidate leads, by its own clock."""
        return self._clock() - self._beaten < self.term

    def acquire(self) -> bool:
        """Take the lease if it is free or its holder was silent for a term; returns whether this candidate leads."""
        now = self._clock()
        try:
            with self.store.transaction() as s:
                row = s.get(LeaderRow, self.name, with_for_update=True)
                if row is None:
                    s.add(LeaderRow(name=self.name, holder=self.holder, beats=1, at=self.store.clock()))
                elif row.holder in (NOBODY, self.holder) or self._silent(row, now):
                    row.holder, row.beats, row.at = self.holder, row.beats + 1, self.store.clock()
                else:
                    return False
        except IntegrityError:
            return False  # another one was the first
        self._beaten = now
        return True

    def _silent(self, row: LeaderRow, now: float) -> bool:
        """Whether no new beat was seen for a term; ``now``: of before the row was read, which may have had to wait."""
        if self._seen is None or (row.holder, row.beats) != self._seen[:2]:
            self._seen = Seen(row.holder, row.beats, self._clock())
        return now - self._seen.at >= self.term

    def beat(self) -> bool:
        """Say that the holder lives; returns whether it still holds the lease."""
        now = self._clock()
        with self.store.transaction() as s:
            row = s.get(LeaderRow, self.name, with_for_update=True)
            if row is None or row.holder != self.holder:
                self._beaten = float("-inf")
                return False
            row.beats, row.at = row.beats + 1, self.store.clock()
        self._beaten = now
        return True

    def release(self) -> None:
        """Give the lease up, so that the next one need not wait."""
        self._beaten = float("-inf")
        with self.store.transaction() as s:
            row = s.get(LeaderRow, self.name, with_for_update=True)
            if row is not None and row.holder == self.holder:
                row.holder, row.beats = NOBODY, row.beats + 1


class Heart:
    """Beats for a lease from a thread; ``lost`` is set when it is no longer held. Use as a context manager.

    ``stalled`` says that the work no longer goes on: then the heart stops, so that another one may lead.
    """

    def __init__(self, lease: Lease, lost: threading.Event, stalled: Callable[[], bool] = lambda: False) -> None:
        self._lease, self._lost, self._stalled = lease, lost, stalled
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heart-{lease.name}", daemon=True)

    def _run(self) -> None:
        lease = self._lease
        while not self._ended.wait(lease.term / BEATS_PER_TERM):
            if self._stalled():
                log.error("%s: the work stands still: the lead is left to another", lease.name)
                break
            try:
                if not lease.beat():
                    log.warning("%s: another one leads", lease.name)
                    break
            except SQLAlchemyError as error:
                log.warning("%s: no beat: %s", lease.name, error)
                if not lease.held:
                    break
        self._lost.set()

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(SQLAlchemyError):
            self._lease.release()
