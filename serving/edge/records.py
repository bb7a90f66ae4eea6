"""What an edge keeps of inputs and predictions until it can send them: a bounded store in SQLite.

SQLite's own journal makes each change whole or none, whatever ends the process or the power.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any, NamedTuple

FILE = "records.db"


class Kept(NamedTuple):
    """A record and its place in the store."""

    seq: int
    body: dict[str, Any]


SPOILT = f"{FILE}.spoilt"
"""Where a store goes that SQLite cannot read; one that went there before is replaced."""


class Records:
    """Records of at most ``most`` bytes in all; where a new one finds no room the oldest go, and are counted.

    ``problem``: why a store that was there is not used; empty where it is.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._most, self._lock, self.problem = most, threading.Lock(), ""
        try:
            self._database = _opened(folder / FILE)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # of the disk or of who has it, not of what is in it
                raise
            self.problem = f"what waited to be sent could not be read, and is in {SPOILT} now: {error}"
            for end in ("", "-wal", "-shm"):
                if (folder / f"{FILE}{end}").exists():
                    (folder / f"{FILE}{end}").replace(folder / f"{SPOILT}{end}")
            self._database = _opened(folder / FILE)
        self._bytes = self._sum()

    def put(self, body: dict[str, Any]) -> bool:
        """Keep a record; returns whether there was room for it at all."""
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                fits = len(data) <= self._most
                left, gone = self._evicted(self._most - len(data)) if fits else (self._bytes, 0)
                if fits:
                    insert = "INSERT INTO records (size, body) VALUES (?, ?)"
                    self._database.execute(insert, (len(data), data))
                self._count("dropped", gone + (not fits))
                self._database.execute("COMMIT")
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._bytes = left + len(data) * fits
        return fits

    def _evicted(self, most: int) -> tuple[int, int]:
        """Remove the oldest records until at most so many bytes are left; how many are, and how many records went."""
        left, gone = self._bytes, 0
        while left > most:
            seq, size = self._database.execute("SELECT seq, size FROM records ORDER BY seq LIMIT 1").fetchone()
            self._database.execute("DELETE FROM records WHERE seq = ?", (seq,))
            left, gone = left - size, gone + 1
        return left, gone

    def _sum(self) -> int:
        return int(self._database.execute("SELECT coalesce(sum(size), 0) FROM records").fetchone()[0])

    def _count(self, name: str, n: int) -> None:
        if n:
            add = "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET n = n + excluded.n"
            self._database.execute(add, (name, n))

    def first(self, n: int) -> list[Kept]:
        """The oldest records, at most ``n``."""
        with self._lock:
            rows = self._database.execute("SELECT seq, body FROM records ORDER BY seq LIMIT ?", (n,)).fetchall()
        return [Kept(seq, json.loads(bytes(body).decode("utf-8", "surrogatepass"))) for seq, body in rows]

    def sent(self, up_to: int, refused: int) -> None:
        """Forget the records up to this one: the platform has them, but for those that it ``refused``."""
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            gone = self._database.execute("DELETE FROM records WHERE seq <= ?", (up_to,)).rowcount
            self._count("refused", refused)
            self._count("sent", gone - refused)
            self._bytes = self._sum()

    def counts(self) -> dict[str, int]:
        """How many wait, and how many were ever ``sent``, ``refused`` and ``dropped``; ``bytes`` of those that wait."""
        with self._lock:
            found = dict(self._database.execute("SELECT name, n FROM counts").fetchall())
            waiting = self._database.execute("SELECT count(*) FROM records").fetchone()[0]
            total = self._bytes
        return {"waiting": waiting, "bytes": total} | {n: int(found.get(n, 0)) for n in ("sent", "refused", "dropped")}

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()


def _opened(path: Path) -> sqlite3.Connection:
    """A store that SQLite finds whole, made where there is none.

    Raises:
        sqlite3.DatabaseError: it is not.

    """
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        with database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS records"
                " (seq INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL, body BLOB NOT NULL)"
            )
            database.execute("CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, n INTEGER NOT NULL)")
        found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
    except BaseException:
        database.close()
        raise
    return database
