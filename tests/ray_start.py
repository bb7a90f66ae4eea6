"""Clusters of Ray start one after the other, and each in as much time as a busy machine takes.

Ray gives a node 30 s to start, with no setting for it, of which one on a quiet machine needs 5: several that start at
once on a machine with few cores take that from each other, and one alone may need more beside other work.

As a program, it is Ray's own command, with that time.
"""

import contextlib
import sys
import tempfile
import time
from pathlib import Path

from filelock import FileLock

COMMAND = [sys.executable, "-P", __file__]
"""In the place of ``ray``."""

TIMES = 20
"""How many times as long as Ray gives it a node has."""


@contextlib.contextmanager
def alone():
    """No other test starts a cluster while the block runs: hold it until this one's has started, and no longer.

    What starts it has more time than Ray gives: within the block where this process does it itself.
    """
    with FileLock(Path(tempfile.gettempdir()) / "cohobate-test-ray.lock"), _patient():
        yield


class _Slow:
    """In the place of the module ``time``: its seconds are longer."""

    def __getattr__(self, name):
        return getattr(time, name)

    def monotonic(self):
        return time.monotonic() / TIMES


@contextlib.contextmanager
def _patient():
    node = sys.modules.get("ray._private.node")
    if node is None:  # what starts it is another process
        yield
        return
    node.time = _Slow()
    try:
        yield
    finally:
        node.time = time


def main():
    """Ray's command."""
    from ray.scripts.scripts import main as command

    with _patient():
        command()


if __name__ == "__main__":
    main()
