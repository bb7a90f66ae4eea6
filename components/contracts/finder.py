"""A finder of the workload's own, called within a limit of time: what it does of one text, or whether it works at all.

A finder is somebody else's code, often a model or a service behind a network. It is called in a thread of its own, so
that one that hangs holds up its caller for the limit and no longer. Such a call is left to run: it cannot be ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError

from components.contracts.errors import FinderError

Find = Callable[[str], Iterable[tuple[str, int, int]]]

MOST_LEFT = 8
"""Calls that are left to run at most: while as many do, no other is begun, and the finder counts as failing."""


class Finder:
    """Calls a finder, one text at a time. ``seconds``: how long it may take for one.

    Raises FinderError where it raises or takes longer; the error tells the class of what was raised alone, since texts
    of errors quote.
    """

    def __init__(self, find: Find, name: str, seconds: float) -> None:
        self._find, self._name, self._seconds = find, name, seconds
        self._one = threading.Lock()
        self._left: list[Future[list[tuple[str, int, int]]]] = []

    def __call__(self, text: str) -> list[tuple[str, int, int]]:
        """What it finds in a text."""
        with self._one:
            self._left = [call for call in self._left if not call.done()]
            if len(self._left) >= MOST_LEFT:
                raise FinderError(self._name, f"{MOST_LEFT} of its calls hang: start the process anew")
            call: Future[list[tuple[str, int, int]]] = Future()
            threading.Thread(target=self._run, args=(call, text), name="finder", daemon=True).start()
            try:
                return call.result(self._seconds)
            except LateError:
                if call.done():  # it raised one itself
                    raise FinderError(self._name, "the search raised TimeoutError") from None
                self._left.append(call)
                raise FinderError(self._name, f"took longer than {self._seconds:g} s for a text") from None
            except Exception as error:  # whatever a finder raises: the text is not kept, and is not quoted either
                raise FinderError(self._name, f"the search raised {type(error).__name__}") from None

    def _run(self, call: Future[list[tuple[str, int, int]]], text: str) -> None:
        try:
            call.set_result([(str(kind), int(start), int(end)) for kind, start, end in self._find(text)])
        except BaseException as error:  # it is raised where the call is waited for
            call.set_exception(error if isinstance(error, Exception) else RuntimeError(type(error).__name__))
