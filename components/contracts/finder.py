"""A finder of the workload's own, called within a limit of time: what it does of one text, or whether it works at all.

A finder is somebody else's code, often a model or a service behind a network. It runs in a process of its own, made
from its factory there: one that hangs, or takes its process down, holds up its caller for the limit and no longer. The
process is then ended, whatever it does, and another is started for the next text, so that nothing is left of it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Any

from components.contracts.errors import ConfigError, FinderError
from components.contracts.spec.fields import Factory
from components.contracts.spec.references import build

Find = Callable[[str], Iterable[tuple[str, int, int]]]

MAKE_SECONDS = 300.0
"""How long a finder may take to be made: some load a model."""

GRACE_SECONDS = 5.0
"""After the limit: the finder's process then ends by itself, if whoever asked it is no longer there to end it."""


class Finder:
    """Calls a finder, one text at a time. ``seconds``: how long it may take for one.

    Raises FinderError where it raises or takes longer; the error tells the class of what was raised alone, since texts
    of errors quote.

    Raises:
        ConfigError: there is no such finder.

    """

    def __init__(self, factory: Factory, source: str, seconds: float) -> None:
        self._factory, self._source, self._seconds = factory, source, seconds
        self._one = threading.Lock()
        self._process = _Process(factory, source, seconds)

    def __call__(self, text: str) -> list[tuple[str, int, int]]:
        """What it finds in a text."""
        with self._one:
            if not self._process.runs:
                try:
                    self._process = _Process(self._factory, self._source, self._seconds)
                except ConfigError as error:  # it could be made before
                    raise FinderError(self._factory.factory, str(error)) from None
            found, raised = self._process.ask(text, self._seconds, f"took longer than {self._seconds:g} s for a text")
        if raised is not None:
            raise FinderError(self._factory.factory, f"the search raised {raised}")
        return list(found)


class _Process:
    """The process in which a finder runs.

    Raises:
        ConfigError: there is no such finder.
        FinderError: it cannot be made.

    """

    def __init__(self, factory: Factory, source: str, seconds: float) -> None:
        self._name = factory.factory
        ours, its = socket.socketpair()
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with its:
            self._running = subprocess.Popen(
                [sys.executable, "-P", "-m", "components.contracts.finder", str(its.fileno())],
                env={**os.environ, "PYTHONPATH": path}, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL,
                process_group=0,  # who ends the caller from a terminal leaves it time to finish what it has begun
            )  # fmt: skip
        self._pipe = Connection(ours.detach())
        self._end = weakref.finalize(self, _ended, self._running, self._pipe)
        refused, raised = self.ask((factory, source, seconds), MAKE_SECONDS, "took too long to be made")
        if refused is not None:
            self._end()
            raise ConfigError(*refused)
        if raised is not None:
            self._end()
            raise FinderError(self._name, f"cannot be made: {raised}")

    @property
    def runs(self) -> bool:
        """Whether it can be asked."""
        return self._end.alive and self._running.poll() is None

    def ask(self, what: object, seconds: float, late: str) -> tuple[Any, str | None]:
        """Its answer, and what it raised, if that; ``late``: what is said of one that takes longer than ``seconds``.

        Raises:
            FinderError: it gave none; it has ended.

        """
        try:
            self._pipe.send(what)
            if self._pipe.poll(seconds):
                answer: tuple[Any, str | None] = self._pipe.recv()
                return answer
        except (OSError, EOFError):
            late = "its process ended"
        self._end()
        raise FinderError(self._name, late)


def _ended(process: subprocess.Popen[bytes], pipe: Connection) -> None:
    pipe.close()
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _serve(pipe: Connection) -> None:
    """Make a finder and answer for it until who asks is gone."""
    factory, source, seconds = pipe.recv()
    try:
        find: Find = build(factory, source)
        if not callable(find):
            raise ConfigError("masking.finder", factory.factory, "must make an object to call with a text")
    except ConfigError as error:
        return pipe.send(((error.field, str(error.value), error.allowed), None))
    except Exception as error:  # of the user's, or the network's
        return pipe.send((None, f"{type(error).__name__}: {error}"))
    pipe.send((None, None))
    while True:
        text = pipe.recv()
        answer: tuple[list[tuple[str, int, int]], str | None]
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_SECONDS)
        try:
            answer = [(str(kind), int(start), int(end)) for kind, start, end in find(text)], None
        except Exception as error:  # whatever a finder raises: the text is not kept, and is not quoted either
            answer = [], type(error).__name__
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(answer)


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        _serve(Connection(int(sys.argv[1])))
    except (EOFError, OSError):
        sys.exit(0)
