"""What all who ask a workload's teacher share, wherever they run: its rate limits, and what is known of an outage.

The labelers and the teacher behind the gateway each have a teacher of their own in their processes, on one server. The
control database holds the windows of its limits and until when it is left alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from components.contracts.errors import UnavailableError
from components.control.database import Database
from components.control.store import Clock
from components.control.tables import AccessRow

T = TypeVar("T")

PIECES = 500
"""A window is kept in so many pieces; what was taken in one leaves the window when the piece's end does, so that a
limit is never exceeded, and what is taken waits for at most a 500th of the window longer than it had to."""

OUTAGE = "outage"
"""The row that says until when the teacher is left alone."""

HEARD_SECONDS = 1.0
"""How old what is known of an outage may be."""

ATTEMPTS = 5
"""How often a row is made when others make it at the same moment."""


class Common:
    """One process's view of it. Safe to share between threads. Clocks of several machines must agree."""

    def __init__(self, database: Database, workload: str, clock: Clock = time.time) -> None:
        self._database, self._workload, self._clock = database, workload, clock
        self._heard, self._until = -math.inf, 0.0

    def take(self, field: str, cost: int, amount: int, window_seconds: float) -> float:
        """Take ``cost`` of the ``amount`` that fits into a window; 0.0 where it was taken, else how long to wait.

        Raises:
            UnavailableError: the control database does not answer.

        """

        def taken(state: dict[str, Any]) -> float:
            now, pieces = self._pieces(state, window_seconds)
            room = amount - sum(pieces.values()) - cost
            if room >= 0:
                self._add(state, pieces, now, cost, window_seconds)
                return 0.0
            for end in sorted(pieces):
                room += pieces[end]
                if room >= 0:
                    return max(0.0, end + window_seconds - now)
            return window_seconds

        return self._changed(field, taken)

    def owe(self, field: str, cost: int, amount: int, window_seconds: float) -> None:
        """Book ``cost`` beyond what was taken, as far as the window has room for it.

        Raises:
            UnavailableError: the control database does not answer.

        """

        def booked(state: dict[str, Any]) -> None:
            now, pieces = self._pieces(state, window_seconds)
            fitting = min(cost, amount - sum(pieces.values()))
            if fitting > 0:
                self._add(state, pieces, now, fitting, window_seconds)

        self._changed(field, booked)

    def away(self) -> float:
        """For how many seconds nobody is to ask the teacher; 0.0: it may be asked.

        Raises:
            UnavailableError: the control database does not answer.

        """
        if time.monotonic() - self._heard >= HEARD_SECONDS:
            try:
                with self._database.session() as s:
                    row = s.get(AccessRow, (self._workload, OUTAGE))
                    self._until = float(row.state["until"]) if row is not None else 0.0
            except SQLAlchemyError as error:
                raise self._unavailable() from error
            self._heard = time.monotonic()
        return max(0.0, self._until - self._clock())

    def outage(self, seconds: float) -> None:
        """Tell all that the teacher is to be left alone for so long; 0.0: that it is back.

        Raises:
            UnavailableError: the control database does not answer.

        """
        until = self._clock() + seconds if seconds > 0 else 0.0
        self._changed(OUTAGE, lambda state: state.update(until=until))
        self._until, self._heard = until, time.monotonic()

    def _pieces(self, state: dict[str, Any], window_seconds: float) -> tuple[float, dict[float, int]]:
        now = self._clock()
        kept = {float(end): int(cost) for end, cost in state.get("taken", ())}
        return now, {end: cost for end, cost in kept.items() if end > now - window_seconds}

    def _add(
        self, state: dict[str, Any], pieces: dict[float, int], now: float, cost: int, window_seconds: float
    ) -> None:
        piece = window_seconds / PIECES
        end = (math.floor(now / piece) + 1) * piece
        pieces[end] = pieces.get(end, 0) + cost
        state["taken"] = sorted(pieces.items())

    def _changed(self, name: str, change: Callable[[dict[str, Any]], T]) -> T:
        """What ``change`` gives for the row's state, which it may write to, in a transaction of its own."""
        try:
            for _ in range(ATTEMPTS):
                try:
                    with self._database.transaction() as s:
                        row = s.get(AccessRow, (self._workload, name), with_for_update=True)
                        state = dict(row.state) if row is not None else {}
                        found = change(state)
                        if row is None:
                            s.add(AccessRow(workload=self._workload, name=name, state=state))
                        else:
                            row.state = state
                except IntegrityError:  # somebody else made the row between our look and our insert
                    continue
                return found
        except SQLAlchemyError as error:
            raise self._unavailable() from error
        raise self._unavailable()

    def _unavailable(self) -> UnavailableError:
        remedy = f"what all who ask the teacher of {self._workload} share is not known: it is asked when it answers"
        return UnavailableError("control database", self._database.engine.url.render_as_string(), remedy)
