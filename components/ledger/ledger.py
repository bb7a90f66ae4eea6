"""The hash-chained ledger in the control database.

Entry *n* holds ``hash(n) = SHA-256(hash(n-1) + content(n))``, where the content is the canonical JSON (sorted keys,
no spaces, UTF-8) of its seq, time, workload, actor, action and detail, and ``hash(0)`` is :data:`GENESIS`. So an
entry cannot be changed, taken out or moved without breaking the chain after it (Haber and Stornetta 1991). A chain
cannot show that its own end was cut off: for that, keep the last hash elsewhere and give it to :func:`verify`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from components.contracts.errors import LedgerError, UnavailableError
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


def append(store: ControlStore, workload: str, actor: str, action: str, detail: dict[str, Any]) -> LedgerRow:
    """Add an entry at the end of the chain and return it. Any number of threads and processes may append.

    ``action`` is a verb of the field (``register``, ``promote``, ``rollback``, ...); ``detail`` is JSON, without NaN.

    Raises:
        ValueError: ``detail`` is not JSON (or has NaN or an infinity in it).
        UnavailableError: other writers were always faster.

    """
    return in_turn(store, lambda s: chain(s, store.clock(), workload, actor, action, detail))


def chain(s: Session, at: float, workload: str, actor: str, action: str, detail: dict[str, Any]) -> LedgerRow:
    """:func:`append` inside a writing transaction of the caller's: the entry stands if, and only if, it commits.

    Raises:
        ValueError: ``detail`` is not JSON (or has NaN or an infinity in it).
        IntegrityError: at the flush, where writers do not take turns, another one took this place; see :func:`in_turn`.

    """
    return _link(s, _last(s), at, workload, actor, action, detail)


def append_if(
    store: ControlStore,
    workload: str,
    actor: str,
    action: str,
    decide: Callable[[Sequence[LedgerRow]], dict[str, Any] | None],
    *,
    after: int = 0,
) -> LedgerRow | None:
    """Add the entry whose detail ``decide`` makes of the workload's entries with a ``seq`` above ``after``.

    Nothing comes between the reading and the adding: of two writers that decide on the same entries one is too late,
    and decides again on what the other wrote. So ``decide`` may be called several times; it returns None to add
    nothing.

    Raises:
        ValueError: the detail is not JSON (or has NaN or an infinity in it).
        UnavailableError: other writers were always faster.

    """

    def write(s: Session) -> LedgerRow | None:
        last = _last(s)
        query = select(LedgerRow).where(LedgerRow.workload == workload, LedgerRow.seq > after)
        query = query.where(LedgerRow.seq <= (last.seq if last else 0)).order_by(LedgerRow.seq)
        detail = decide(s.scalars(query).all())
        return None if detail is None else _link(s, last, store.clock(), workload, actor, action, detail)

    return in_turn(store, write)


def _last(s: Session) -> LedgerRow | None:
    return s.scalars(select(LedgerRow).order_by(LedgerRow.seq.desc()).limit(1)).first()


def _link(
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


def in_turn(store: ControlStore, write: Callable[[Session], T]) -> T:
    """Run ``write`` in a transaction, again where another writer took the same place in the chain.

    Raises:
        UnavailableError: other writers were always faster.

    """
    for _ in range(ATTEMPTS):
        try:
            with store.transaction() as s:
                return write(s)
        except IntegrityError:
            continue  # another writer took this seq: chain onto its entry
    raise UnavailableError("ledger", store.url, f"{ATTEMPTS} appends lost to other writers; try again")


def verify(store: ControlStore, head: str | None = None) -> int:
    """Check the whole chain and return the number of its entries.

    With ``head``, the hash of an entry that was seen earlier, that entry must still be there: this finds a chain
    whose end was cut off or rewritten.

    Raises:
        LedgerError: an entry was changed, taken out or moved, or ``head`` is not in the chain.

    """
    previous, count, anchored = GENESIS, 0, head in (None, GENESIS)
    with store.session() as s:
        for row in s.scalars(select(LedgerRow).order_by(LedgerRow.seq).execution_options(yield_per=1000)):
            expected = count + 1
            if row.seq != expected:
                raise LedgerError(expected, f"is missing (the next one is {row.seq})")
            if row.previous != previous:
                raise LedgerError(row.seq, "does not follow the entry before it")
            if row.hash != entry_hash(row):
                raise LedgerError(row.seq, "was changed after it was written")
            previous, count, anchored = row.hash, expected, anchored or row.hash == head
    if not anchored:
        raise LedgerError(count + 1, f"was cut off: no entry has the anchored hash {head}")
    return count


def entries(store: ControlStore, workload: str | None = None, *, after: int = 0) -> list[LedgerRow]:
    """All entries with a ``seq`` above ``after``, or those of one workload, oldest first."""
    query = select(LedgerRow).where(LedgerRow.seq > after).order_by(LedgerRow.seq)
    if workload is not None:
        query = query.where(LedgerRow.workload == workload)
    with store.session() as s:
        return list(s.scalars(query))
