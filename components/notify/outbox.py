"""The outbox: notices in the control database, from the entry or alarm that they tell of until somebody took them.

Each notice is sent at least once. It is tried when it is due; a try begins by moving ``next_at`` behind the longest
time that it may take, so that a notifier that dies in the middle leaves it due again, and several may work at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from components.control.alarms import silenced
from components.control.chain import chain, in_turn
from components.control.links import rollback_link_in
from components.control.store import ControlStore
from components.control.tables import AlarmRow, CursorRow, LedgerRow, NoticeRow
from components.notify.events import Event, of_alarm, of_entry, with_link
from components.notify.webhooks import Webhook

CURSOR = "ledger"
BATCH = 500
"""Entries of the ledger that are read in one transaction."""

ALARM_SECONDS = 3600.0
"""How far back alarms are looked for: their ids may become visible out of order, so they have no cursor."""

TRY_SECONDS = 60.0
"""The longest that one try may take: its time limits are well below."""

ATTEMPTS = 12
"""Tries before a notice is given up: about an hour."""

FIRST_WAIT, LONGEST_WAIT = 2.0, 900.0
"""Bounds of the wait after a failed try, in seconds; it doubles, and a random part of it is waited."""

NOTIFIER = "notifier"
"""The ledger's actor for notices that were given up."""


def collect(store: ControlStore, hooks: Sequence[Webhook]) -> int:
    """Turn new entries of the ledger and new alarms into notices; returns how many there are.

    Of an alarm whose kind is silenced there is a notice only if the silence ends within :data:`ALARM_SECONDS` after it.
    The first call ever begins at the ledger's present end. With no webhook the cursor moves on all the same: one that
    is added later hears of what happens then.
    """
    with store.transaction() as s:
        now = store.clock()
        cursor = s.get(CursorRow, CURSOR, with_for_update=True)
        if cursor is None:
            last = s.scalar(select(func.max(LedgerRow.seq))) or 0
            s.add(CursorRow(name=CURSOR, seq=last, since=now))
            return 0
        query = select(LedgerRow).where(LedgerRow.seq > cursor.seq).order_by(LedgerRow.seq).limit(BATCH)
        entries = s.scalars(query).all()
        events = [event for event in map(of_entry, entries) if event is not None]
        if entries:
            cursor.seq = entries[-1].seq
        since = max(cursor.since, now - ALARM_SECONDS)
        silent = silenced(s, now)
        alarms = s.scalars(select(AlarmRow).where(AlarmRow.at >= since))
        events += [of_alarm(row) for row in alarms if (row.workload, row.kind) not in silent]
        links = {name: rollback_link_in(s, name) for name in {event.workload for event in events}}
        events = [with_link(event, links[event.workload]) for event in events]
        return sum(_put(s, event, hook, now) for event in events for hook in hooks)


def _put(s: Session, event: Event, hook: Webhook, now: float) -> bool:
    if not hook.wants(event.name, event.workload) or s.get(NoticeRow, (event.id, hook.name)) is not None:
        return False
    row = NoticeRow(
        id=event.id, hook=hook.name, workload=event.workload, event=event.name, at=event.at,
        content=msgspec.to_builtins(event), attempts=0, next_at=now,
    )  # fmt: skip
    s.add(row)
    return True


def take(store: ControlStore, hook: str) -> NoticeRow | None:
    """Begin a try of the oldest notice to ``hook`` that is due; None where none is."""
    with store.transaction() as s:
        now = store.clock()
        due = select(NoticeRow).where(
            NoticeRow.hook == hook,
            NoticeRow.sent_at.is_(None),
            NoticeRow.dead_at.is_(None),
            NoticeRow.next_at <= now,
        )
        oldest = due.order_by(NoticeRow.at, NoticeRow.id).limit(1).with_for_update(skip_locked=True)
        row = s.scalars(oldest).first()
        if row is not None:
            row.attempts, row.next_at = row.attempts + 1, now + TRY_SECONDS
        return row


def sent(store: ControlStore, notice: NoticeRow) -> None:
    """Note that a notice was taken."""
    with store.transaction() as s:
        row = s.get_one(NoticeRow, (notice.id, notice.hook), with_for_update=True)
        row.sent_at, row.error = store.clock(), None


def failed(
    store: ControlStore,
    notice: NoticeRow,
    why: str,
    *,
    gone: bool = False,
    least: float = 0.0,
    jitter: Callable[[], float] = random.random,
) -> bool:
    """Note a failed try; returns whether the notice was given up, which goes into the ledger.

    ``gone``: the receiver wants no more; ``least``: the receiver asked to be left alone for so many seconds.
    """

    def note(s: Session) -> bool:
        now, row = store.clock(), s.get_one(NoticeRow, (notice.id, notice.hook), with_for_update=True)
        row.error = why
        seconds = again(row.attempts, jitter(), gone=gone, least=least)
        if seconds is not None:
            row.next_at = now + seconds
            return False
        row.dead_at = now
        detail = {"notice": row.id, "webhook": row.hook, "event": row.event, "attempts": row.attempts, "why": why}
        chain(s, now, row.workload, NOTIFIER, "notice given up", detail)
        return True

    return in_turn(store, note)


def again(attempts: int, jitter: float, *, gone: bool = False, least: float = 0.0) -> float | None:
    """Seconds until the next try after so many that failed; None: there is none.

    ``gone`` and ``least`` as in :func:`failed`, ``jitter`` as in :func:`wait`.
    """
    if gone or attempts >= ATTEMPTS:
        return None
    return max(wait(attempts, jitter), min(least, LONGEST_WAIT))


def wait(attempts: int, jitter: float) -> float:
    """Seconds after so many failed tries; ``jitter`` in [0, 1) picks from the upper half.

    >>> [wait(n, 0.0) for n in (1, 2, 3, 20)], wait(1, 0.5)
    ([1.0, 2.0, 4.0, 450.0], 1.5)
    """
    return float(min(FIRST_WAIT * 2 ** min(attempts - 1, 30), LONGEST_WAIT)) * (0.5 + jitter / 2)


def notices(store: ControlStore, *, waiting: bool = False, limit: int = 100) -> list[NoticeRow]:
    """The newest notices, oldest first; with ``waiting`` only those that were neither taken nor given up."""
    query = select(NoticeRow).order_by(NoticeRow.at.desc(), NoticeRow.id.desc()).limit(limit)
    if waiting:
        query = query.where(NoticeRow.sent_at.is_(None), NoticeRow.dead_at.is_(None))
    with store.session() as s:
        return list(reversed(s.scalars(query).all()))


def retry(store: ControlStore) -> int:
    """Make notices that were given up, or wait, due now with all their tries; returns how many."""
    with store.transaction() as s:
        rows = s.scalars(select(NoticeRow).where(NoticeRow.sent_at.is_(None))).all()
        for row in rows:
            row.attempts, row.next_at, row.dead_at = 0, store.clock(), None
        return len(rows)
