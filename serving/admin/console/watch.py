"""What became of an order: what the controller made of it, and when each replica applied it.

A replica's acknowledgement is also its heartbeat, which overwrites when it first applied something. So whoever ordered
is watched over from here: for :data:`WATCH_SECONDS` at most, the acknowledgements are looked at every
:data:`LOOK_SECONDS`. What was seen is kept in memory, for the last :data:`KEPT` orders of this process.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from components.contracts.errors import NotFoundError
from components.control.store import ControlStore

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.02
WATCH_SECONDS = 60.0
KEPT = 500


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that applied the order's change, ``seconds`` after it was placed."""

    replica: str
    seconds: float


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """An order. ``ok`` is None while it waits. ``waiting``: live replicas that have not applied what it changed.

    ``seconds``: from placed to carried out. ``watched``: whether this process saw the acknowledgements.
    """

    order: str
    workload: str
    verb: str
    actor: str
    reason: str
    created_at: float
    ok: bool | None
    outcome: str | None
    seconds: float | None
    acknowledged: tuple[Acknowledged, ...] = ()
    waiting: tuple[str, ...] = ()
    watched: bool = False


class _Seen:
    def __init__(self, before: int, created_at: float) -> None:
        self.before, self.created_at = before, created_at
        self.at: dict[str, float] = {}
        self.waiting: tuple[str, ...] = ()


class Watch:
    """Watches over orders. ``tell`` is called with an order's workload whenever there is something new to see."""

    def __init__(self, store: ControlStore, tell: Callable[[str], None]) -> None:
        self._store, self._tell = store, tell
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, workload: str, order: str, before: int) -> None:
        """Watch over an order that was just placed; ``before``: the routing's revision before it was."""
        if order in self._seen:
            return
        self._seen[order] = _Seen(before, self._store.clock())
        while len(self._seen) > KEPT:
            self._seen.popitem(last=False)
        task = asyncio.create_task(self._follow(workload, order))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, workload: str, order: str) -> None:
        seen, until = self._seen[order], asyncio.get_running_loop().time() + WATCH_SECONDS
        while asyncio.get_running_loop().time() < until:
            try:
                changed, over = await asyncio.to_thread(self._look, workload, order, seen)
            except SQLAlchemyError as error:
                log.warning("console: order %s: %s", order, type(error).__name__)
                changed, over = False, False
            if changed:
                self._tell(workload)
            if over:
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self, workload: str, order: str, seen: _Seen) -> tuple[bool, bool]:
        """Whether something is new, and whether nothing more is to come."""
        row = self._store.get_order(order)
        revision, _ = self._store.intent(workload)
        alive = self._store.acknowledgements(workload)
        known = len(seen.at)
        if revision > seen.before:
            for ack in alive:
                if ack.revision > seen.before and ack.replica not in seen.at:
                    seen.at[ack.replica] = max(0.0, ack.at - row.created_at)
        waiting = tuple(a.replica for a in alive if revision > seen.before and a.revision <= seen.before)
        changed = len(seen.at) != known or waiting != seen.waiting
        seen.waiting = waiting
        return changed or row.done_at is not None, row.done_at is not None and not waiting

    def progress(self, order: str) -> Progress | None:
        """How far an order is; None where there is none with this id."""
        try:
            row = self._store.get_order(order)
        except NotFoundError:
            return None
        seen = self._seen.get(order)
        return Progress(
            order=row.id,
            workload=row.workload,
            verb=row.verb,
            actor=row.actor,
            reason=row.reason,
            created_at=row.created_at,
            ok=row.ok,
            outcome=row.outcome,
            seconds=None if row.done_at is None else max(0.0, row.done_at - row.created_at),
            acknowledged=tuple(Acknowledged(replica=r, seconds=s) for r, s in sorted(seen.at.items())) if seen else (),
            waiting=seen.waiting if seen else (),
            watched=seen is not None,
        )
