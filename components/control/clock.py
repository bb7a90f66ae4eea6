"""What time it is, for all who share a control database: leases and acknowledgements compare the times of two hosts.

On PostgreSQL it is the database's time. On SQLite, where all are on one machine, it is that machine's.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

MEASURE_SECONDS = 30.0
"""How old the measured difference of the clocks may be when a connection is next used: a host's clock may be set."""


class DatabaseClock:
    """Unix seconds by the clock of the PostgreSQL behind ``engine``, read without asking it.

    The difference from this host's clock is measured when a connection is used, at most every 30 s, to within half of
    what a query takes (Cristian's algorithm).
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ahead, self._measured = 0.0, float("-inf")
        event.listen(engine, "checkout", self._measure)

    def __call__(self) -> float:
        """The time; the first call asks the database, unless a connection was used already."""
        if self._measured == float("-inf"):
            self._engine.connect().close()
        return time.time() + self._ahead

    def _measure(self, connection: Any, *_: object) -> None:
        now = time.monotonic()
        if now - self._measured < MEASURE_SECONDS:
            return
        self._measured = now
        sent = time.time()
        with connection.cursor() as cursor:
            cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
            (found,) = cursor.fetchone()
        took = time.time() - sent
        connection.rollback()
        self._ahead = float(found) - (sent + took / 2)
