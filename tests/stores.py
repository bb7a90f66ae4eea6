"""Databases of tests: copies of one that Alembic made once in each process.

It takes 40 ms of processor time for a control database, and more than a second for MLflow's.
"""

import functools
import tempfile
from pathlib import Path

from components.contracts.settings import Settings
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


@functools.cache
def _registry():
    from components.registry import runs

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder), tracking_uri="")
        runs.connect(settings).search_registered_models()
        return Path(folder, "mlflow.db").read_bytes()


def registering(settings):
    """The settings, in whose SQLite file for MLflow are its tables now, as it makes them at its first use."""
    file = Path(settings.mlflow_uri.removeprefix("sqlite:///"))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("xb") as new:
        new.write(_registry())
    return settings
