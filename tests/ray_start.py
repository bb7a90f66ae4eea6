"""Clusters of Ray start one after the other, and each in as much time as a busy machine takes.

Ray gives a node 30 s to start, with no setting for it, of which one on a quiet machine needs 5: several that start at
once on a machine with few cores take that from each other, and one alone may need more beside other work.

Besides, a node ends by itself (a failed check of its own, in Ray 2.60) where its agent's first port is not known within
15 s, for which there is no setting either: :func:`init` starts another one then.

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

TIMES = 4
"""How many times as long as Ray gives it a node has."""

NODES = 3
"""How many nodes are started where one after the other ended by itself."""


@contextlib.contextmanager
def alone():
    """No other test starts a cluster while the block runs: hold it until this one's has started, and no longer.

    What starts it has more time than Ray gives: within the block where this process does it itself.
    """
    with FileLock(Path(tempfile.gettempdir()) / "cohobate-test-ray.lock"), _patient():
        yield


def init(**options):
    """``ray.init`` with a cluster of its own, while no other starts."""
    import ray

    with alone():
        for left in reversed(range(NODES)):
            try:
                return ray.init(address="local", **options)
            except Exception as error:  # Ray raises no other kind
                if not left or "node timed out during startup" not in str(error):
                    raise


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
