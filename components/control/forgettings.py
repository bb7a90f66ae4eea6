"""Orders to forget an entity: who is meant, how far each is, and what it asks of the students that had learnt from it.

Nobody's key is kept. An order has a secret of its own, and the entity's key as HMAC-SHA-256 under it: whoever has a key
can ask whether it is meant, as windows do that are frozen later, and whoever has the database alone can only guess. A
proof names the hash and not the secret, so from a proof nobody can even guess.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import func, select

from components.control.store import ControlStore
from components.control.tables import ForgettingRow


def hashed(secret: str, key: str) -> str:
    """The keyed hash (hex) by which an order names an entity."""
    return hmac.new(bytes.fromhex(secret), key.encode(), hashlib.sha256).hexdigest()


def orders(store: ControlStore, workload: str) -> list[ForgettingRow]:
    """All orders of a workload, oldest first."""
    with store.session() as s:
        query = select(ForgettingRow).where(ForgettingRow.workload == workload)
        return list(s.scalars(query.order_by(ForgettingRow.at, ForgettingRow.id)))


def count(store: ControlStore, workload: str) -> int:
    """How many orders of a workload there are; none is ever deleted."""
    with store.session() as s:
        query = select(func.count()).select_from(ForgettingRow).where(ForgettingRow.workload == workload)
        return s.scalar(query) or 0


def open_order(store: ControlStore, workload: str, key: str, actor: str, reason: str) -> ForgettingRow:
    """The order about an entity that is under way, or a new one."""
    with store.transaction(turn="forgettings") as s:
        query = select(ForgettingRow).where(ForgettingRow.workload == workload, ForgettingRow.done_at.is_(None))
        for row in s.scalars(query):
            if hashed(row.secret, key) == row.subject:
                return row
        secret = secrets.token_hex(32)
        row = ForgettingRow(
            id=secrets.token_hex(8), workload=workload, subject=hashed(secret, key), secret=secret, actor=actor,
            reason=reason, at=store.clock(), step=0, found=None, result={}, done_at=None, retrained_at=None,
        )  # fmt: skip
        s.add(row)
    return row


def put(store: ControlStore, order: str, **values: Any) -> ForgettingRow:
    """Write columns of an order; returns it."""
    with store.transaction() as s:
        row = s.get_one(ForgettingRow, order)
        for name, value in values.items():
            setattr(row, name, value)
    return row


class Forgotten:
    """Who was forgotten of a workload, and until when: what happened before that counts for nothing any more."""

    def __init__(self, rows: Iterable[ForgettingRow]) -> None:
        self._orders = [(row.secret, row.subject, row.at) for row in rows]
        self._until: dict[str, float] = {}

    @classmethod
    def of(cls, store: ControlStore, workload: str) -> Forgotten:
        """By the orders of a workload, those under way among them."""
        return cls(orders(store, workload))

    def until(self, key: str) -> float:
        """The time (Unix seconds) of the last order about an entity; minus infinity where there is none."""
        if not self._orders:
            return float("-inf")
        if key not in self._until:
            self._until[key] = max(
                (at for secret, subject, at in self._orders if hashed(secret, key) == subject), default=float("-inf")
            )
        return self._until[key]


def tainted(store: ControlStore, workload: str) -> dict[str, str]:
    """The students, by digest, that learnt from what was forgotten since, each with the order that lists it."""
    return {student["digest"]: row.id for row in orders(store, workload) for student in row.result.get("students", ())}


def waiting(store: ControlStore, workload: str, champion: str | None) -> Sequence[ForgettingRow]:
    """Orders that ask for a student which was not made yet: they list the champion, by its digest."""
    return [
        row
        for row in orders(store, workload)
        if row.retrained_at is None and any(s["digest"] == champion for s in row.result.get("students", ()))
    ]


def retrained(store: ControlStore, workload: str, orders_: Iterable[str]) -> None:
    """Note that the student was made which these orders ask for."""
    wanted = set(orders_)
    with store.transaction() as s:
        query = select(ForgettingRow).where(ForgettingRow.workload == workload, ForgettingRow.id.in_(wanted))
        for row in s.scalars(query):
            row.retrained_at = store.clock()
