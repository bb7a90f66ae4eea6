"""The hash-chained ledger in the control database (:mod:`components.control.chain` says how entries hang together).

A chain cannot show that its own end was cut off: for that, keep the last hash elsewhere and give it to :func:`verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from components.contracts.errors import LedgerError
from components.control.chain import GENESIS, chain, entry_hash, in_turn, last, link
from components.control.store import ControlStore
from components.control.tables import LedgerRow


def append(store: ControlStore, workload: str, actor: str, action: str, detail: dict[str, Any]) -> LedgerRow:
    """Add an entry at the end of the chain and return it. Any number of threads and processes may append.

    ``action`` is a verb of the field (``register``, ``promote``, ``rollback``, ...); ``detail`` is JSON, without NaN.

    Raises:
        ValueError: ``detail`` is not JSON (or has NaN or an infinity in it).
        UnavailableError: other writers were always faster.

    """
    return in_turn(store, lambda s: chain(s, store.clock(), workload, actor, action, detail))


def append_if(
    store: ControlStore,
    workload: str,
    actor: str,
    action: str,
    decide: Callable[[Sequence[LedgerRow]], dict[str, Any] | None],
    *,
    after: int = 0,
    everybodys: Collection[str] = (),
) -> LedgerRow | None:
    """Add the entry whose detail ``decide`` makes of the workload's entries with a ``seq`` above ``after``.

    ``everybodys``: actions whose entries of other workloads are among them.

    Nothing comes between the reading and the adding: of two writers that decide on the same entries one is too late,
    and decides again on what the other wrote. So ``decide`` may be called several times; it returns None to add
    nothing.

    Raises:
        ValueError: the detail is not JSON (or has NaN or an infinity in it).
        UnavailableError: other writers were always faster.

    """

    def write(s: Session) -> LedgerRow | None:
        newest = last(s)
        asked = or_(LedgerRow.workload == workload, LedgerRow.action.in_(everybodys))
        query = select(LedgerRow).where(asked, LedgerRow.seq > after)
        query = query.where(LedgerRow.seq <= (newest.seq if newest else 0)).order_by(LedgerRow.seq)
        detail = decide(s.scalars(query).all())
        return None if detail is None else link(s, newest, store.clock(), workload, actor, action, detail)

    return in_turn(store, write)


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
