"""Ports for servers that must be told theirs before they listen.

They lie below those that the system gives to whoever asks for any, so that no connection of another test takes one
between its choice and its use; and a lock that ends with the process keeps them for it, whatever else runs beside.
"""

import contextlib
import fcntl
import socket
import tempfile
from pathlib import Path

BLOCKS = range(20_000, 30_000, 10)
"""Neighbours are locked together: HAProxy takes three of those above the gateway's."""

_locks = []
_left = []


def free_ports(n):
    """So many ports in a row that nobody else is given while this process lives."""
    while len(_left) < n:
        block = _next_block()
        _left[:] = _left + block if n > len(block) and _left and _left[-1] + 1 == block[0] else block
    taken, _left[:] = _left[:n], _left[n:]
    return taken


def free_port():
    """One of them."""
    return free_ports(1)[0]


def _next_block():
    folder = Path(tempfile.gettempdir()) / "cohobate-test-ports"
    folder.mkdir(exist_ok=True)
    for first in BLOCKS:
        lock = (folder / str(first)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        block = list(range(first, first + BLOCKS.step))
        _locks.append(lock)
        if all(_is_free(port) for port in block):
            return block
    raise OSError(f"no ten ports in a row are free between {BLOCKS.start} and {BLOCKS.stop}")


def _is_free(port):
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
