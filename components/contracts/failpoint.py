"""Places where a test may kill a process: ``COHOBATE_FAILPOINT=NAME``, or ``NAME:N`` for the N-th time it is passed.

The kill is SIGKILL, so no handler, ``finally`` or buffer runs: what remains is what was durable. Without the variable
a failpoint costs one comparison.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "COHOBATE_FAILPOINT"

_name, _, _count = os.environ.get(VARIABLE, "").partition(":")
_remaining = int(_count or 1)


def failpoint(name: str) -> None:
    """Die here if the environment names this place; ``name`` is ``<component>.<step>``, such as ``labeler.4``."""
    global _remaining
    if name != _name:
        return
    _remaining -= 1
    if _remaining <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
