"""The control database's connections, transactions and schema.

Writers take turns: on SQLite a writing transaction takes the database's write lock when it begins
(``BEGIN IMMEDIATE``), because ``SELECT … FOR UPDATE`` does nothing there, and two processes that both read before
they write could both believe that they were first. Elsewhere rows are locked by ``FOR UPDATE``, and of two inserts
of one key the second fails. Reads take no lock.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Self

from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    InterfaceError,
    InvalidatePoolError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.orm import Session, sessionmaker

from components.contracts.errors import CohobateError, ConfigError
from components.contracts.settings import mask
from components.control.bells import bells_of
from components.control.schema import Schema, SchemaError, nothing, read_schema, upgrade

BUSY_SECONDS = 15.0
"""How long a connection to SQLite waits for another to finish."""


DATABASE_AWAY = (OperationalError, InterfaceError)
"""The control database's outages; what else it raises is about what it was given."""


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
        self.engine: Engine = _engine(url)
        self.bells = bells_of(self.engine)
        """Who waits for a change listens here; who writes one rings."""
        if url.startswith("sqlite"):
            event.listen(self.engine, "connect", _tune_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine, "connect", _opened)
            event.listen(self.engine, "checkout", _alive)
        self._writing = self.engine.execution_options(cohobate_writes=True)
        self._session = sessionmaker(self.engine, expire_on_commit=False)
        self._transaction = sessionmaker(self._writing, expire_on_commit=False)
        self._together = threading.local()

    @property
    def on_postgres(self) -> bool:
        """Whether it is a PostgreSQL, which may be shared by several hosts."""
        return self.engine.dialect.name == "postgresql"

    def session(self) -> AbstractContextManager[Session]:
        """A session for reading: ``with store.session() as s: ...``; to write use :meth:`transaction`."""
        shared: Session | None = getattr(self._together, "session", None)
        return self._session() if shared is None else nullcontext(shared)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let all that this thread reads in the block be one transaction, on one connection; writes are their own.

        A row that was read in it is not read again. For short blocks that wait for nobody.
        """
        if getattr(self._together, "session", None) is not None:
            yield  # within a block of this kind
            return
        with self._session() as s, s.no_autoflush:
            self._together.session = s
            try:
                yield
            finally:
                del self._together.session

    @contextmanager
    def transaction(self, turn: str = "") -> Iterator[Session]:
        """A session in one writing transaction; commits unless it raises.

        On SQLite all others wait for it (up to 15 s); elsewhere those of the same ``turn``, for as long as it takes.
        """
        with self._transaction() as s, s.begin():
            if turn and self.on_postgres:
                s.execute(text("SELECT pg_advisory_xact_lock(hashtext(:turn))"), {"turn": turn})
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

    @property
    def schema(self) -> Schema:
        """At which revision the schema is."""
        with self.engine.connect() as connection:
            return read_schema(connection)

    def migrate(self) -> None:
        """Create the schema or bring it to the newest version; processes that do so at once take turns.

        Where it is there already these are two queries, without Alembic's import.

        Raises:
            SchemaError: a newer version has migrated it.

        """
        found = self.schema
        if found.state == "newest":
            return
        if found.state == "newer":
            raise SchemaError(self.url, found)
        with self._writing.begin() as connection:
            upgrade(connection)

    @classmethod
    def open(cls, url: str) -> Self:
        """The database at ``url``, whose schema must be this version's. Nothing is created or migrated.

        Raises:
            SchemaError: it has none yet, or an older or newer one.

        """
        file = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None
        if file is not None and not file.is_file():
            raise SchemaError(url, nothing())
        made = cls(url)
        if (found := made.schema).state != "newest":
            made.close()
            raise SchemaError(url, found)
        return made

    def close(self) -> None:
        """Close all connections, and listen to no bell any more."""
        self.bells.close()
        self.engine.dispose()


def _engine(url: str) -> Engine:
    """SQLAlchemy's engine.

    Raises:
        ConfigError: the URL cannot be read, or its driver is not installed.

    """
    try:
        return create_engine(url)
    except (ArgumentError, NoSuchModuleError) as error:
        allowed = "must be a URL of SQLAlchemy, such as postgresql+psycopg://user@host/database"
        raise ConfigError("COHOBATE_DATABASE_URL", mask(url), allowed) from error
    except ModuleNotFoundError as error:
        allowed = f"its driver {error.name} is not installed: pip install cohobate[cluster] for postgresql+psycopg://"
        raise ConfigError("COHOBATE_DATABASE_URL", mask(url), allowed) from error


def _opened(_connection: Any, record: Any) -> None:
    record.info[_alive] = True


def _alive(connection: Any, record: Any, *_: object) -> None:
    """Ask a connection of the pool whether it lives, within the transaction that it is taken for.

    SQLAlchemy's own question (``pool_pre_ping``) is a transaction more for each that does something. One that was just
    opened is not asked, as by that: what is wrong with it, the first statement says by the driver's own error.

    Raises:
        InvalidatePoolError: it does not; the pool opens another, and asks none of those that it had.

    """
    if record.info.pop(_alive, False):
        return
    cursor = connection.cursor()
    try:
        cursor.execute("SELECT 1")
    except Exception as error:  # of whichever driver
        raise InvalidatePoolError(str(error)) from error
    finally:
        cursor.close()


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
