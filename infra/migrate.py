"""The command ``cohobate migrate``: the control database to the newest schema, a backup of it before."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import make_url

from components.contracts.errors import CohobateError, ConfigError
from components.contracts.settings import mask
from components.control.schema import Schema, SchemaError
from components.control.store import ControlStore


def check(url: str) -> Schema:
    """At which revision the control database is; nothing is changed.

    Raises:
        SchemaError: it is not the newest that this version knows.

    """
    with closing(ControlStore.open(url)) as store:
        return store.schema


def migrate(url: str, backup: Path | None, *, without_backup: bool = False) -> tuple[Schema, Path | None]:
    """Bring the control database to the newest schema; returns what it was, and where its backup is.

    An SQLite file is copied beside itself where ``backup`` names no other place. PostgreSQL is dumped by ``pg_dump``
    to ``backup``; without one it is refused, unless ``without_backup`` says that there is a backup already.

    Raises:
        ConfigError: there would be no backup.
        SchemaError: the database is newer than this version.

    """
    with closing(ControlStore(url)) as store:
        found, saved = store.schema, None
        if found.state == "newer":
            raise SchemaError(url, found)
        if found.state == "older" and not without_backup:
            saved = save(url, backup, found)
        store.migrate()
        return found, saved


def save(url: str, backup: Path | None, schema: Schema) -> Path:
    """Write a backup of the database; returns where."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _save_sqlite(Path(str(parsed.database)), backup, schema)
    if backup is None:
        allowed = "name a file that pg_dump writes, or say --no-backup where you have one of this moment"
        raise ConfigError("--backup", None, allowed)
    if parsed.get_backend_name() != "postgresql" or shutil.which("pg_dump") is None:
        allowed = f"there is no pg_dump here to save {mask(url)} with: save it by its own means, and say --no-backup"
        raise ConfigError("--backup", str(backup), allowed)
    plain = parsed.set(drivername="postgresql", password=None)
    environment = {**os.environ, **({"PGPASSWORD": str(parsed.password)} if parsed.password else {})}
    done = subprocess.run(
        ["pg_dump", "--format=custom", f"--file={backup}", plain.render_as_string(hide_password=False)],  # noqa: S607
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise CohobateError(f"pg_dump of {mask(url)} failed, and nothing was migrated: {done.stderr.strip()}")
    return backup


def _save_sqlite(database: Path, backup: Path | None, schema: Schema) -> Path:
    place = backup or database.with_name(f"{database.name}.at-{schema.found}")
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(place)) as target:
        source.backup(target)
    return place
