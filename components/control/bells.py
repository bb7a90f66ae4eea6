"""Wakes whoever waits for a change in the control database, so that nobody has to look all the time.

Whoever has written rings the bell of what changed, after the commit: a file beside an SQLite database is touched, and
Linux tells the processes that listen (inotify(7)). A bell says nothing but "look": what changed is in the database, so
a ring that nobody hears, or one too many, costs time and nothing else. Whoever listens therefore looks in its own time
too, seldom where bells are heard and often where they are not (:attr:`Bells.heard`): on another database, on a machine
without inotify.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

log = logging.getLogger(__name__)

IN_ATTRIB, IN_CLOSE_WRITE, IN_CREATE = 0x4, 0x8, 0x100
"""What touching a file and making it are told as (inotify.h)."""

HEADER = struct.Struct("iIII")
"""An event of inotify: the watch, the mask, a cookie, and the length of the name that follows."""

BUFFER = 64 * 1024


class Bells:
    """The bells of the database at a SQLAlchemy URL. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        path = url.removeprefix("sqlite:///") if url.startswith("sqlite:///") else ""
        self._folder = Path(path + "-bells") if path and path != ":memory:" else None
        self._lock = threading.Lock()
        self._events: dict[str, list[threading.Event]] = {}
        self._thread: threading.Thread | None = None
        self._ends: list[int] = []

    def ring(self, name: str) -> None:
        """Wake whoever listens to the bell of this name, in any process."""
        if self._folder is None:
            return
        path = self._folder / quote(name, safe="")
        try:
            os.utime(path)
        except FileNotFoundError:
            with contextlib.suppress(OSError):  # whoever listens looks in its own time too
                self._folder.mkdir(exist_ok=True)
                path.touch()
        except OSError as error:
            log.debug("bell %s: %s", path, error)

    def listen(self, name: str) -> threading.Event:
        """An event that is set whenever the bell of this name rings; clear it before you look."""
        event = threading.Event()
        with self._lock:
            self._events.setdefault(quote(name, safe=""), []).append(event)
            if self._thread is None and self._folder is not None:
                self._start(self._folder)
        return event

    def leave(self, event: threading.Event) -> None:
        """Listen no more."""
        with self._lock:
            for events in self._events.values():
                if event in events:
                    events.remove(event)

    @property
    def heard(self) -> bool:
        """Whether rings are heard: after the first :meth:`listen`, where there is inotify."""
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                os.write(self._ends[2], b"x")
        if thread is not None:
            thread.join()
            for end in self._ends:
                os.close(end)
            self._ends = []

    def _start(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
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
        self._thread = threading.Thread(target=self._run, name="bells", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        told, ended = self._ends[0], self._ends[1]
        while True:
            ready, _, _ = select.select([told, ended], [], [])
            if ended in ready:
                return
            names = set(_names(os.read(told, BUFFER)))
            with self._lock:
                for name in names:
                    for event in self._events.get(name, ()):
                        event.set()


def _names(events: bytes) -> Iterator[str]:
    at = 0
    while at < len(events):
        *_, length = HEADER.unpack_from(events, at)
        at += HEADER.size
        yield os.fsdecode(events[at : at + length].rstrip(b"\0"))
        at += length
