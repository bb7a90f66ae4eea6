"""The control database's schema: at which revision it is, and how it is brought to the newest.

Migrations are the files beside this one, each named by its revision, which begins with its number. All of one upgrade
are one transaction, so one that fails changes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

from components.contracts.errors import CohobateError
from components.contracts.settings import mask

MIGRATIONS = Path(__file__).with_name("migrations")

State = Literal["missing", "older", "newest", "newer"]

REMEDIES: dict[State, str] = {
    "missing": "has no tables of Cohobate yet: 'cohobate up' makes them, or 'cohobate migrate'; "
    "is COHOBATE_DATABASE_URL right?",
    "older": "is older than this Cohobate: stop what still runs of the old one, then 'cohobate migrate'",
    "newer": "was migrated by a newer Cohobate: use that version, or restore the backup from before the migration",
}


class Schema(NamedTuple):
    """The revision that a database is at (None: it has no tables of ours) and the newest that this version knows."""

    found: str | None
    newest: str
    state: State


class SchemaError(CohobateError):
    """The control database's schema is not the one that this version reads and writes."""

    def __init__(self, url: str, schema: Schema) -> None:
        at = f" at revision {schema.found}, and this one wants {schema.newest}," if schema.found else ""
        super().__init__(f"control database {mask(url)}{at} {REMEDIES[schema.state]}")
        self.url, self.schema = url, schema


def _known() -> list[str]:
    return sorted(path.stem for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def nothing() -> Schema:
    """Of a database that has no tables of ours."""
    return Schema(None, _known()[-1], "missing")


def read_schema(connection: Connection) -> Schema:
    """What the database's schema is."""
    found, known = None, _known()
    if inspect(connection).has_table("alembic_version"):
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().first()
    if found is None:
        return nothing()
    state: State = "newest" if found == known[-1] else "older" if found in known else "newer"
    return Schema(found, known[-1], state)


def upgrade(connection: Connection) -> None:
    """Create the tables, or bring them to the newest revision, in the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
