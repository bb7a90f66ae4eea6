"""What a process costs: when Python looks for garbage, and what is not imported where it serves nobody.

A process that runs one step and ends wants the first otherwise than one that answers for weeks.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

ALLOCATIONS = 100_000
"""Allocations between two collections of the youngest generation, in place of 700: importing Feast, Evidently or Ray
makes a million objects that all stay, and looking through them again and again takes a fifth of the import's time."""


def short_lived(step: Callable[P, R]) -> Callable[P, R]:
    """Make a step's process collect garbage rarely, and not at all when it ends.

    Python collects while it takes the modules down, which lasts 1.5 to 4 s (measured on two busy cores) for libraries
    of this size; objects that are frozen at exit are left to the operating system.
    """

    @functools.wraps(step)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        gc.set_threshold(ALLOCATIONS, *gc.get_threshold()[1:])
        atexit.unregister(gc.freeze)
        atexit.register(gc.freeze)
        return step(*args, **kwargs)

    return wrapper


def long_lived() -> None:
    """Leave what is loaded by now out of collections, for the rest of this process.

    With MLflow or Ray loaded there are a million objects that all stay, and a collection of the oldest generation stops
    every thread for 0.2 s while it looks through them (measured): a rollback waited for that.
    """
    gc.collect()
    gc.freeze()


class _Hidden:
    """Finds no module of these names in this thread (:pep:`302`'s meta path, which all threads share)."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names, self.thread = names, threading.get_ident()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Say that a hidden module is not there; of others nothing is said."""
        if name in self.names and threading.get_ident() == self.thread:
            raise ModuleNotFoundError(f"{name} is hidden from who imports it now", name=name)


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Import other libraries as if these were not installed, where they do without and nobody needs what they add.

    Whoever imports them after the block, or meanwhile in another thread, gets them. One that was imported before stays.
    """
    hidden = _Hidden(names)
    sys.meta_path.insert(0, hidden)
    try:
        yield
    finally:
        sys.meta_path.remove(hidden)
