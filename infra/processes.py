"""Child processes of the local stack: started with a log file, stopped by pid, restarted when they die."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

log = logging.getLogger(__name__)

STOP_SECONDS = 20.0
"""How long a child may take to end after SIGTERM before it is killed: Ray Serve's own shutdown takes up to 10 s."""

RESTART_SECONDS = (1.0, 2.0, 5.0, 15.0, 30.0)
"""Waits before a dead child is started again; the last one repeats."""

HEALTHY_SECONDS = 60.0
"""A child that lived this long starts the waits anew."""

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to send this process SIGTERM when its parent dies, so that a killed supervisor leaves nothing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One child process. ``name`` is also the name of its log file."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], logs: Path) -> None:
        self.name, self.argv, self.env = name, list(argv), dict(env)
        self.log = logs / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self._failures = 0
        self._started = 0.0
        self._restart_at: float | None = None
        self._log_since = 0

    @property
    def said(self) -> str:
        """The last line that the process wrote to its log; empty where it wrote none."""
        return last_line(self.log, since=self._log_since)

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    @property
    def ended(self) -> int | None:
        """With what the process ended, where it was started and runs no more."""
        return self.process.poll() if self.process is not None else None

    def start(self) -> None:
        """Start the process; its output is appended to the log file."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self._log_since = out.tell()
            self.process = subprocess.Popen(
                self.argv,
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._started, self._restart_at = time.monotonic(), None

    def tend(self) -> bool:
        """Start the process again if it died and its wait is over; returns whether it runs."""
        if self.pid is not None:
            return True
        now = time.monotonic()
        if self._restart_at is None:
            self._failures = 0 if now - self._started > HEALTHY_SECONDS else self._failures + 1
            wait = RESTART_SECONDS[min(self._failures, len(RESTART_SECONDS) - 1)]
            code = self.process.returncode if self.process else None
            log.warning("%s ended with %s; starting it again in %.0f s (its log: %s)", self.name, code, wait, self.log)
            self._restart_at = now + wait
        if now >= self._restart_at:
            self.restarts += 1
            self.start()
        return False

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End the process: SIGTERM, then after ``seconds`` SIGKILL to it and what it started."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                log.warning("%s did not end in %.0f s: killed", self.name, seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def last_line(log_file: Path, most: int = 300, *, since: int = 0) -> str:
    """The last line with something in it that a log has from byte ``since`` on, cut to ``most`` characters.

    Empty where there is none.
    """
    try:
        with log_file.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(since, file.tell() - 64 * 1024))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return next((line.strip()[-most:] for line in reversed(lines) if line.strip()), "")


def progress_marks(children: Sequence[Child]) -> tuple[object, ...]:
    """What changes when something moves: the sizes of the logs, and which processes there are, with all descendants."""
    sizes = tuple(child.log.stat().st_size if child.log.exists() else 0 for child in children)
    found: set[int] = set()
    for child in children:
        if child.pid is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {child.pid, *(p.pid for p in psutil.Process(child.pid).children(recursive=True))}
    return (sizes, frozenset(found))


def stop_all(children: Sequence[Child]) -> None:
    """Stop children all at once, each with its own time limit."""
    for child in children:
        if child.pid is not None and child.process is not None:
            child.process.terminate()
    for child in children:
        child.stop()
