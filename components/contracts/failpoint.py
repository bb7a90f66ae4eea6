"""Places where a test may kill a process: ``COHOBATE_FAILPOINT=NAME``, or ``NAME:N`` for the N-th time it is passed.

The kill is SIGKILL, so no handler, ``finally`` or buffer runs: what remains is what was durable. Without the variable
a failpoint costs one comparison.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "COHOBATE_FAILPOINT"

_name, _remaining = "", 0


def arm(place: str) -> None:
    """Set the place where this process dies, ``NAME`` or ``NAME:N``; nothing for nowhere."""
    global _name, _remaining
    _name, _, count = place.partition(":")
    _remaining = int(count or 1)


arm(os.environ.get(VARIABLE, ""))


def failpoint(name: str) -> None:
    """Die here if the environment names this place; ``name`` is ``<component>.<step>``, such as ``labeler.4``."""
    global _remaining
    if name != _name:
        return
    _remaining -= 1
    if _remaining <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
