"""How entries are chained onto the ledger's table, inside the transaction of whoever writes them.

Entry *n* holds ``hash(n) = SHA-256(hash(n-1) + content(n))``, where the content is the canonical JSON (sorted keys,
no spaces, UTF-8) of its seq, time, workload, actor, action and detail, and ``hash(0)`` is :data:`GENESIS`. So an
entry cannot be changed, taken out or moved without breaking the chain after it (Haber and Stornetta 1991).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from components.contracts.errors import UnavailableError
from components.control.store import ControlStore
from components.control.tables import LedgerRow

T = TypeVar("T")

GENESIS = "0" * 64
"""The hash before the first entry."""

ATTEMPTS = 50
"""Tries of an append against writers that take the same number; on SQLite writers take turns and one is enough."""


def entry_hash(row: LedgerRow) -> str:
    """The hash that ``row`` must have, from its content and its ``previous`` (hex)."""
    content = {
        "seq": row.seq, "at": row.at, "workload": row.workload,
        "actor": row.actor, "action": row.action, "detail": row.detail,
    }  # fmt: skip
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(row.previous.encode() + canonical.encode()).hexdigest()


def last(s: Session) -> LedgerRow | None:
    """The newest entry; None in an empty ledger."""
    return s.scalars(select(LedgerRow).order_by(LedgerRow.seq.desc()).limit(1)).first()


def link(
    s: Session, last: LedgerRow | None, at: float, workload: str, actor: str, action: str, detail: dict[str, Any]
) -> LedgerRow:
    """Chain an entry onto the ``last`` one."""
    seq, previous = (last.seq + 1, last.hash) if last else (1, GENESIS)
    detail = json.loads(json.dumps(detail, allow_nan=False))  # what the database will give back, tuples as lists
    row = LedgerRow(
        seq=seq, previous=previous, hash="", at=at, workload=workload, actor=actor, action=action, detail=detail
    )  # fmt: skip
    row.hash = entry_hash(row)
    s.add(row)
    return row


def chain(s: Session, at: float, workload: str, actor: str, action: str, detail: dict[str, Any]) -> LedgerRow:
    """An append inside a writing transaction of the caller's: the entry stands if, and only if, it commits.

    Raises:
        ValueError: ``detail`` is not JSON (or has NaN or an infinity in it).
        IntegrityError: at the flush, where writers do not take turns, another one took this place; see :func:`in_turn`.

    """
    return link(s, last(s), at, workload, actor, action, detail)


def in_turn(store: ControlStore, write: Callable[[Session], T], turn: str = "") -> T:
    """Run ``write`` in a transaction, again where another writer took the same place in the chain.

    ``turn``: see :meth:`~components.control.database.Database.transaction`.

    Raises:
        UnavailableError: other writers were always faster.

    """
    for _ in range(ATTEMPTS):
        try:
            with store.transaction(turn) as s:
                return write(s)
        except IntegrityError:
            continue  # another writer took this seq: chain onto its entry
    raise UnavailableError("ledger", store.url, f"{ATTEMPTS} appends lost to other writers; try again")
