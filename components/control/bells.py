"""Wakes whoever waits for a change in the control database, so that nobody has to look all the time.

Whoever has written rings the bell of what changed, after the commit: a file beside an SQLite database is touched, and
Linux tells the processes that listen (inotify(7)); on PostgreSQL it is NOTIFY, and whoever LISTENs is told. A bell says
nothing but "look": what changed is in the database, so a ring that nobody hears, or one too many, costs time and
nothing else. Whoever listens therefore looks in its own time too, seldom where bells are heard and often where they are
not (:attr:`Bells.heard`): on another database, by another driver than psycopg, on a machine without inotify.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

log = logging.getLogger(__name__)

IN_ATTRIB, IN_CLOSE_WRITE, IN_CREATE = 0x4, 0x8, 0x100
"""What touching a file and making it are told as (inotify.h)."""

HEADER = struct.Struct("iIII")
"""An event of inotify: the watch, the mask, a cookie, and the length of the name that follows."""

BUFFER = 64 * 1024

CHANNEL = "cohobate"
"""PostgreSQL's channel of all bells; what is notified is the bell's name."""

ALIVE_SECONDS = 10.0
"""How often a connection that heard nothing is asked whether it lives: a host that is gone sends nothing either."""

AGAIN_SECONDS = 1.0
"""Wait before a connection that was lost is opened anew."""


class Bells:
    """The bells of a database that tells nobody anything: rings are not heard. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, list[threading.Event]] = {}

    def ring(self, name: str) -> None:
        """Wake whoever listens to the bell of this name, in any process."""

    def listen(self, name: str) -> threading.Event:
        """An event that is set whenever the bell of this name rings; clear it before you look."""
        event = threading.Event()
        with self._lock:
            self._events.setdefault(name, []).append(event)
            self._start()
        return event

    def leave(self, event: threading.Event) -> None:
        """Listen no more."""
        with self._lock:
            for events in self._events.values():
                if event in events:
                    events.remove(event)

    @property
    def heard(self) -> bool:
        """Whether rings are heard: after the first :meth:`listen`, where the database tells of them."""
        return False

    def close(self) -> None:
        """Stop listening."""

    def _start(self) -> None:
        """Begin to hear, if that is possible and not so yet; the lock is held."""

    def _rung(self, names: Iterable[str] | None) -> None:
        """Set the events of these bells, or of all."""
        with self._lock:
            for name in list(self._events) if names is None else set(names):
                for event in self._events.get(name, ()):
                    event.set()


class FileBells(Bells):
    """Bells of a database on this machine: files in ``folder``, one a bell, which are touched."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._thread: threading.Thread | None = None
        self._ends: list[int] = []

    def ring(self, name: str) -> None:
        """See :class:`Bells`."""
        path = self._folder / quote(name, safe="")
        try:
            os.utime(path)
        except FileNotFoundError:
            with contextlib.suppress(OSError):  # whoever listens looks in its own time too
                self._folder.mkdir(exist_ok=True)
                path.touch()
        except OSError as error:
            log.debug("bell %s: %s", path, error)

    @property
    def heard(self) -> bool:
        """See :class:`Bells`."""
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            thread, self._thread = self._thread, None
            ends, self._ends = self._ends, []  # whoever listens again meanwhile has others
            if thread is not None:
                os.write(ends[2], b"x")
        if thread is not None:
            thread.join()
            for end in ends:
                os.close(end)

    def _start(self) -> None:
        if self._thread is not None:
            return
        libc = ctypes.CDLL(None, use_errno=True)
        folder = self._folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            told = int(libc.inotify_init1(os.O_CLOEXEC))
            if told < 0:
                raise OSError(ctypes.get_errno(), "inotify_init1")
            mask = IN_ATTRIB | IN_CLOSE_WRITE | IN_CREATE
            if libc.inotify_add_watch(told, os.fsencode(folder), mask) < 0:
                os.close(told)
                raise OSError(ctypes.get_errno(), f"inotify_add_watch {folder}")
        except (OSError, AttributeError) as error:
            log.warning("bells are not heard, so the control database is looked at often: %s", error)
            return
        self._ends = [told, *os.pipe()]
        self._thread = threading.Thread(target=self._run, args=self._ends[:2], name="bells", daemon=True)
        self._thread.start()

    def _run(self, told: int, ended: int) -> None:
        while True:
            ready, _, _ = select.select([told, ended], [], [])
            if ended in ready:
                return
            self._rung(unquote(name) for name in _names(os.read(told, BUFFER)))


class PostgresBells(Bells):
    """Bells of a PostgreSQL database, on any host: NOTIFY and LISTEN, by a connection of its own."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._thread: threading.Thread | None = None
        self._ended, self._tried, self._connected = threading.Event(), threading.Event(), threading.Event()

    def listen(self, name: str) -> threading.Event:
        """See :class:`Bells`."""
        event = super().listen(name)
        self._tried.wait(ALIVE_SECONDS)
        return event

    def ring(self, name: str) -> None:
        """See :class:`Bells`."""
        try:
            with self._engine.begin() as connection:
                connection.exec_driver_sql("SELECT pg_notify(%s, %s)", (CHANNEL, name))
        except SQLAlchemyError as error:  # what was written is written; whoever listens looks in its own time too
            log.debug("bell %s: %s", name, error)

    @property
    def heard(self) -> bool:
        """Whether rings are heard at this moment: not while the connection is lost."""
        return self._connected.is_set()

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._ended.set()
            self.ring("")  # wakes our own thread, and nobody else has a bell without a name
            thread.join(timeout=2 * ALIVE_SECONDS)

    def _start(self) -> None:
        if self._thread is not None:
            return
        self._ended, self._tried = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._ended,), name="bells", daemon=True)
        self._thread.start()

    def _run(self, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                with contextlib.closing(self._connection()) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    self._connected.set()
                    if self._tried.is_set():
                        self._rung(None)  # what was rung while the connection was lost
                    self._tried.set()
                    self._hear(connection, ended)
            except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error) as error:
                if not ended.is_set():
                    log.warning("bells are not heard, so the control database is looked at often: %s", error)
            finally:
                self._connected.clear()
                self._tried.set()
            ended.wait(AGAIN_SECONDS)

    def _connection(self) -> Any:
        """A connection of psycopg's own, outside the pool, on which every statement takes effect at once."""
        pooled = self._engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()
        connection.rollback()  # of the question whether it lives
        connection.autocommit = True
        return connection

    def _hear(self, connection: Any, ended: threading.Event) -> None:
        while not ended.is_set():
            since = time.monotonic()
            for told in connection.notifies(timeout=ALIVE_SECONDS, stop_after=1):
                self._rung([told.payload])
            if time.monotonic() - since >= ALIVE_SECONDS:
                connection.execute("SELECT 1")


def bells_of(engine: Engine) -> Bells:
    """The bells of a database."""
    backend, database = engine.url.get_backend_name(), engine.url.database
    if backend == "sqlite" and database and database != ":memory:":
        return FileBells(Path(database + "-bells"))
    if backend == "postgresql" and engine.url.get_driver_name() == "psycopg":
        return PostgresBells(engine)
    return Bells()


def _names(events: bytes) -> Iterator[str]:
    at = 0
    while at < len(events):
        *_, length = HEADER.unpack_from(events, at)
        at += HEADER.size
        yield os.fsdecode(events[at : at + length].rstrip(b"\0"))
        at += length
