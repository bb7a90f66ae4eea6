"""Requests that are answered later, from their acceptance to the delivery of their answer.

They are in the control database, and not on a topic of Kafka: they are looked up by id and by idempotency key, a key is
taken once whoever asks, and what is accepted, answered and delivered changes in one transaction. All replicas of a
workload work on them. Whoever takes one moves ``next_at`` behind the longest time that its work may take, so that a
replica that dies in the middle leaves it due again; an answer is written once, by whoever had it first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from components.control.chain import chain, in_turn
from components.control.store import ControlStore
from components.control.tables import RequestRow

GATEWAY = "gateway"
"""The ledger's actor for callbacks that were given up."""


class Content(msgspec.Struct):
    """What is kept of a request until it is answered: its ``body`` (JSON), and the ids of the inputs in it."""

    body: bytes
    ids: list[str]
    urgency: int


class Acceptance(NamedTuple):
    """What became of a request.

    It is ``new``; it was accepted before (``repeated``); its key stands for ``another`` body; or so many are waiting
    that it was not taken (``full``).
    """

    outcome: Literal["new", "repeated", "another", "full"]
    row: RequestRow


def accept(store: ControlStore, row: RequestRow, most: int) -> Acceptance:
    """Keep a request for as long as it takes, unless ``most`` of its workload have no answer yet."""
    waiting = select(func.count()).select_from(RequestRow)
    waiting = waiting.where(RequestRow.workload == row.workload, RequestRow.answered_at.is_(None))
    with store.transaction(turn=f"requests of {row.workload}") as s:
        if row.key is not None:
            same = select(RequestRow).where(RequestRow.workload == row.workload, RequestRow.key == row.key)
            there = s.scalars(same).first()
            if there is not None:
                return Acceptance("repeated" if there.fingerprint == row.fingerprint else "another", there)
        if (s.scalar(waiting) or 0) >= most:
            return Acceptance("full", row)
        s.add(row)
        return Acceptance("new", row)


def find(store: ControlStore, workload: str, request: str) -> RequestRow | None:
    """The request of this id, if the workload has it still."""
    with store.session() as s:
        row = s.get(RequestRow, request)
        return row if row is not None and row.workload == workload else None


def take(store: ControlStore, workload: str, *, answered: bool, hold: float) -> RequestRow | None:
    """Begin a try of the request that is due first, of those that have an answer or of the others; None: none is due.

    Nobody else takes it for ``hold`` seconds.
    """
    now = store.clock()
    due = select(RequestRow).where(
        RequestRow.workload == workload,
        RequestRow.next_at <= now,
        RequestRow.answered_at.is_not(None) if answered else RequestRow.answered_at.is_(None),
    )
    with store.session() as s:  # mostly none is: nobody waits for a look
        if s.scalars(due.limit(1)).first() is None:
            return None
    with store.transaction() as s:
        first = due.order_by(RequestRow.next_at, RequestRow.id).limit(1).with_for_update(skip_locked=True)
        row = s.scalars(first).first()
        if row is not None:
            row.attempts, row.next_at = row.attempts + 1, now + hold
        return row


def answer(store: ControlStore, request: str, body: bytes) -> None:
    """Write a request's answer, unless it has one, and forget what was asked; what has a callback is due again."""

    def write(row: RequestRow, now: float) -> None:
        if row.answered_at is not None:
            return
        row.answer, row.answered_at, row.content, row.error = body, now, None, None
        row.attempts, row.next_at = 0, None if row.callback is None else now

    _changed(store, request, write)


def put_off(store: ControlStore, request: str, seconds: float, why: str, counts: bool = True) -> None:
    """Try a request again later; ``counts``: whether this one was a try."""

    def write(row: RequestRow, now: float) -> None:
        row.next_at, row.error, row.attempts = now + seconds, why, row.attempts - (not counts)

    _changed(store, request, write)


def delivered(store: ControlStore, request: str) -> None:
    """Note that an answer was taken by whoever is called back."""

    def write(row: RequestRow, now: float) -> None:
        row.delivered_at, row.next_at, row.error = now, None, None

    _changed(store, request, write)


def give_up(store: ControlStore, request: str, why: str) -> None:
    """Note that a callback is not tried again, here and in the ledger; the answer can still be asked for."""

    def note(s: Session) -> None:
        now, row = store.clock(), s.get_one(RequestRow, request, with_for_update=True)
        row.dead_at, row.next_at, row.error = now, None, why
        detail = {"request": row.id, "attempts": row.attempts, "why": why}
        chain(s, now, row.workload, GATEWAY, "callback given up", detail)

    in_turn(store, note)


def forget(store: ControlStore, workload: str, before: float) -> int:
    """Remove requests that were accepted before this time and have nothing left to be done; returns how many."""
    old = delete(RequestRow).where(
        RequestRow.workload == workload, RequestRow.accepted_at < before, RequestRow.next_at.is_(None)
    )
    with store.transaction() as s:
        return int(s.execute(old).rowcount)  # type: ignore[attr-defined]


def _changed(store: ControlStore, request: str, write: Callable[[RequestRow, float], None]) -> None:
    with store.transaction() as s:
        row = s.get(RequestRow, request, with_for_update=True)
        if row is not None:
            write(row, store.clock())
