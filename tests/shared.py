"""What the workers of one run of the tests share: a broker, say, of which each would start its own else."""

import contextlib
import os
import pickle
import tempfile
from pathlib import Path

import psutil
from filelock import FileLock


@contextlib.contextmanager
def shared(factory, name, start, stop):
    """What ``start`` gives for a folder: whoever wants it first starts it, and who leaves last calls ``stop``.

    ``factory`` is pytest's of temporary folders. What ``start`` gives is pickled for the others.
    """
    base = factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    place.mkdir(exist_ok=True)
    lock, users, made = FileLock(place / "lock"), place / "users", place / "made"
    with lock:
        if not made.exists():
            folder = Path(tempfile.mkdtemp(dir=place))
            made.write_bytes(pickle.dumps((folder, start(folder))))
        folder, found = pickle.loads(made.read_bytes())  # noqa: S301
        _write(users, {*_read(users), os.getpid()})
    try:
        yield found
    finally:
        with lock:
            left = _read(users) - {os.getpid()}
            _write(users, left)
            if not left:
                made.unlink()
                stop(folder)


def _read(users):
    """Those of them that live."""
    found = map(int, users.read_text().split()) if users.exists() else ()
    return {pid for pid in found if psutil.pid_exists(pid)}


def _write(users, pids):
    users.write_text(" ".join(map(str, pids)))
