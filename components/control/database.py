"""The control database's connections, transactions and schema.

Writers take turns: on SQLite a writing transaction takes the database's write lock when it begins
(``BEGIN IMMEDIATE``), because ``SELECT … FOR UPDATE`` does nothing there, and two processes that both read before
they write could both believe that they were first. Elsewhere rows are locked by ``FOR UPDATE``, and of two inserts
of one key the second fails. Reads take no lock.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from components.contracts.errors import CohobateError
from components.control.bells import Bells

BUSY_SECONDS = 15.0
"""How long a connection to SQLite waits for another to finish."""


class StaleRevisionError(CohobateError):
    """Somebody else changed the row since it was read: read again and decide again."""

    def __init__(self, what: str, expected: int, found: int) -> None:
        super().__init__(f"{what} is at revision {found}, not {expected}: read it again and decide again")
        self.what, self.expected, self.found = what, expected, found


class Database:
    """A database at a SQLAlchemy URL. Safe to share between threads; open one per process."""

    def __init__(self, url: str) -> None:
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self.url = url
        self.bells = Bells(url)
        """Who waits for a change listens here; who writes one rings."""
        self.engine: Engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
        if url.startswith("sqlite"):
            event.listen(self.engine, "connect", _tune_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._writing = self.engine.execution_options(cohobate_writes=True)
        self._session = sessionmaker(self.engine, expire_on_commit=False)
        self._transaction = sessionmaker(self._writing, expire_on_commit=False)

    def session(self) -> Session:
        """A session for reading: ``with store.session() as s: ...``; to write use :meth:`transaction`."""
        return self._session()

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session in one writing transaction, which others wait for (up to 15 s); commits unless it raises."""
        with self._transaction() as s, s.begin():
            yield s

    @contextmanager
    def compared(self, what: str, expected: int) -> Iterator[Session]:
        """A writing transaction in which an insert of a key that exists means that the decision was stale.

        Raises:
            StaleRevisionError: another writer inserted the key first.

        """
        try:
            with self.transaction() as s:
                yield s
        except IntegrityError as error:
            raise StaleRevisionError(what, expected, expected + 1) from error

    def migrate(self) -> None:
        """Create the schema or bring it to the newest version; processes that do so at once take turns.

        Where it is there already this is one query, without Alembic's import.
        """
        if self._newest():
            return
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
        with self._writing.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _newest(self) -> bool:
        """Whether the schema is at the newest revision: the last of the migrations' files, which bear their names."""
        head = max(path.stem for path in (Path(__file__).with_name("migrations") / "versions").glob("[0-9]*.py"))
        with self.engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return False
            found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
        return list(found) == [head]

    def close(self) -> None:
        """Close all connections, and listen to no bell any more."""
        self.bells.close()
        self.engine.dispose()


def _tune_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # _begin_sqlite begins transactions, not the driver at the first write
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000:.0f}")
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    """Have the database keep a write-ahead log; the file remembers it.

    Of several connections that ask a new file for it at once SQLite refuses some, whatever their ``busy_timeout`` is.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("cohobate_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
