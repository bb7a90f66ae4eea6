"""Which of the traffic's records a monitor looks at, and the windows that they make; bounded, whatever the traffic."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

REMEMBERED = 20_000
"""Inputs that are remembered, so that one that is sent again is looked at once: a client that tries again does so soon.
"""

T = TypeVar("T")


class Thinning:
    """Takes each input once, and of many at once evenly as many as ``per_second`` allows.

    The seconds are those of the stream, so that the same records are taken whenever they are read.
    """

    def __init__(self, per_second: float) -> None:
        self._per_second, self._room = per_second, max(1.0, per_second)
        self._most, self._at = self._room, float("-inf")
        self._known: OrderedDict[int, None] = OrderedDict()

    def takes(self, name: str, at: float) -> bool:
        """Whether the input of this id is looked at, whose record lies on the stream since ``at`` (Unix seconds)."""
        known = hash(name)
        if known in self._known:
            return False
        self._known[known] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        if at > self._at:
            self._room = min(self._most, self._room + (at - self._at) * self._per_second)
            self._at = at
        if self._room < 1.0:
            return False
        self._room -= 1.0
        return True


class Window(Generic[T]):
    """The newest ``size`` rows; windows follow each other by a half."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: list[T] = []
        self._since_look = 0

    def add(self, row: T) -> bool:
        """Take a row; whether the window is to be looked at now."""
        self.rows.append(row)
        self._since_look += 1
        if len(self.rows) < self.size or self._since_look < self.size // 2:
            return False
        self._since_look, self.rows = 0, self.rows[-self.size :]
        return True
