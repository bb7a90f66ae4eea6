"""Control databases of tests: copies of one that Alembic made once in each process, which takes it 40 ms."""

import functools
import tempfile
from pathlib import Path

from components.control.store import ControlStore


@functools.cache
def _made():
    with tempfile.TemporaryDirectory() as folder:
        store = ControlStore(f"sqlite:///{folder}/control.db")
        store.migrate()
        store.close()
        return Path(folder, "control.db").read_bytes()


def migrated(url, *options, of=ControlStore, **named):
    """A store of a new SQLite database at its newest schema. ``of``: its class; the rest is that one's."""
    file = Path(url.removeprefix("sqlite:///"))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("xb") as new:
        new.write(_made())
    return of(url, *options, **named)
