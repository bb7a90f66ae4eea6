"""The client of a fork server: starts one for a platform, finds it, and has runs and steps forked from it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from pipelines import fork_server
from pipelines.fork_server import ENVIRONMENT, HEADER, MODULES

FILE = "fork-server.json"
"""In the platform's home: where its fork server listens."""

CONNECT_SECONDS = 30.0
"""How long a fork server may take to answer: it may be in the midst of an import."""

STOP_SECONDS = 20.0
"""How long one may take to end."""

IDLE_SECONDS = 600.0
"""How long one is kept that nobody wants: it takes half a gigabyte."""

AGAIN_SECONDS = 30.0
"""How long after its start one that has ended is started anew at the soonest."""

BACKLOG = 64
"""Connections that may wait while it imports."""


class GoneError(Exception):
    """There is no fork server, or it ended before what was asked of it did."""


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """A fork server: its folder, the environment that it runs in, and whose code it has."""

    folder: str
    prefix: str
    code: str


def _here(folder: str) -> Where:
    return Where(folder=folder, prefix=sys.prefix, code=str(Path(fork_server.__file__).resolve()))


class Forked:
    """A process that was forked for us; to be used as a :class:`subprocess.Popen` is, from one thread.

    It ends when this is closed, or this process ends.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._read = b""
        self.returncode: int | None = None
        self.pid = self._next("pid")

    def poll(self) -> int | None:
        """The exit code, where it has ended (negative: the signal that ended it).

        Raises:
            GoneError: the server ended.

        """
        with contextlib.suppress(TimeoutError, BlockingIOError):
            return self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended.

        Raises:
            TimeoutError, BlockingIOError: it has not by then.
            GoneError: the server ended.

        """
        if self.returncode is None:
            self._connection.settimeout(timeout)
            self.returncode = self._next("code")
            self._connection.close()
        return self.returncode

    def terminate(self) -> None:
        """Send it SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            if self.returncode is None:
                os.kill(self.pid, signal.SIGTERM)

    def close(self) -> None:
        """Hang up, which ends it."""
        self._connection.close()

    def _next(self, what: str) -> int:
        while b"\n" not in self._read:
            try:
                part = self._connection.recv(4096)
            except ConnectionError as error:
                raise GoneError(str(error)) from error
            if not part:
                raise GoneError("the fork server ended")
            self._read += part
        line, _, self._read = self._read.partition(b"\n")
        return int(json.loads(line)[what])


def fork(
    home: Path,
    entry: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    out: IO[bytes] | int,
    *,
    niceness: int = 0,
) -> Forked:
    """Have an entry of :data:`pipelines.fork_server.ENTRIES` run by the fork server of a platform.

    ``out``: a file for its output; ``niceness``: how far it stands back for other processes, see :func:`os.nice`.

    Raises:
        GoneError: there is no fork server that has our code, or it ended.

    """
    try:
        where = msgspec.json.decode((home / FILE).read_bytes(), type=Where)
    except (OSError, msgspec.DecodeError) as error:
        raise GoneError(f"{home} has no fork server: {error}") from error
    if where != _here(where.folder):
        raise GoneError(f"the fork server of {home} has other code")
    request = {
        "entry": entry, "argv": list(argv), "environment": dict(environment), "folder": str(Path.cwd()),
        "niceness": niceness,
    }  # fmt: skip
    data = json.dumps(request).encode()
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(CONNECT_SECONDS)
        connection.connect(f"{where.folder}/socket")
        socket.send_fds(connection, [HEADER.pack(len(data))], [out if isinstance(out, int) else out.fileno()])
        connection.sendall(data)
        return Forked(connection)
    except (OSError, GoneError) as error:
        connection.close()
        raise GoneError(f"the fork server of {home} does not answer: {error}") from error


class Warm:
    """The fork server of a platform on this machine, which is started when it is wanted. Safe to use from threads."""

    def __init__(self, home: Path, modules: Sequence[str] = MODULES) -> None:
        self.home, self._modules = home, modules
        self._lock = threading.Lock()
        self._began = self._wanted = float("-inf")
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = ""

    @property
    def up(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None and self.up else None

    def tend(self, *, wanted: bool) -> None:
        """Start it where it is wanted, and end it where nobody has wanted it for :data:`IDLE_SECONDS`."""
        now = time.monotonic()
        if wanted:
            self._wanted = now
            if not self.up and now - self._began > AGAIN_SECONDS:
                self.start()
        elif self.up and now - self._wanted > IDLE_SECONDS:
            self.stop()

    def start(self) -> None:
        """Start it, unless it runs; it answers from then on, and is quick once it has imported everything."""
        with self._lock:
            if self.up:
                return
            self._clean()
            self._began = time.monotonic()
            logs = self.home / "logs"
            logs.mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.mkdtemp(prefix="cohobate-")  # a socket's path must be short
            with (logs / "fork-server.log").open("ab") as out, socket.socket(socket.AF_UNIX) as listener:
                listener.bind(f"{self._folder}/socket")
                listener.listen(BACKLOG)
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "pipelines.fork_server", str(listener.fileno()), *self._modules],
                    env={**os.environ, **ENVIRONMENT}, stdin=subprocess.PIPE, stdout=out, stderr=out,
                    pass_fds=[listener.fileno()],
                )  # fmt: skip
            made = self.home / FILE
            made.with_suffix(".tmp").write_bytes(msgspec.json.encode(_here(self._folder)))
            made.with_suffix(".tmp").replace(made)

    def stop(self) -> None:
        """End it, after what is under way."""
        with self._lock:
            self._clean()

    def _clean(self) -> None:
        if self._process is None:
            return
        (self.home / FILE).unlink(missing_ok=True)
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._process = None
