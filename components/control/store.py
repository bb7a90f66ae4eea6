"""Reading and writing the control database. Decisions are made elsewhere; here they become durable.

Every write is one transaction (:mod:`components.control.database`). A row with a revision is written only by who
has seen its last one.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Text, cast, delete, func, select, union, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from components.contracts.errors import NotFoundError
from components.control.clock import DatabaseClock
from components.control.database import Database, StaleRevisionError
from components.control.intent import Intent
from components.control.tables import (
    AckRow,
    AlarmRow,
    GaugeRow,
    JournalRow,
    OrderRow,
    RolloutRow,
    RoutingRow,
    RunRow,
    WindowRow,
)

__all__ = ["Clock", "ControlStore", "StaleRevisionError"]

Clock = Callable[[], float]

ORDERS = "orders"
"""The turn of those who place an order: each has the number after the last one's."""


def routing_bell(workload: str) -> str:
    """The bell that rings when a workload's intent or its lease has changed."""
    return f"routing.{workload}"


def orders_bell(workload: str) -> str:
    """The bell that rings when an order was placed for a workload."""
    return f"orders.{workload}"


def rollout_of(order_id: str) -> str:
    """The id of the rollout that an order to start one begins: the same however often it is carried out."""
    return f"rollout-{hashlib.sha256(order_id.encode()).hexdigest()[:12]}"


def certificates_of(digest: str) -> str:
    """How the ids of the journals of a student's certificates begin; when each began follows."""
    return f"certificate-{digest[:16]}-"


ALIVE_SECONDS = 5.0
"""How old the heartbeat of a replica that lives may be."""


class JournalLine(NamedTuple):
    """A line of a rollout's journal, which counts from 1; without its newline."""

    number: int
    text: str


def _intent(s: Session, workload: str) -> tuple[int, Intent]:
    query = select(RoutingRow.revision, RoutingRow.intent).where(RoutingRow.workload == workload)
    row = s.execute(query).first()
    return (row.revision, msgspec.convert(row.intent, Intent)) if row else (0, Intent())


class ControlStore(Database):
    """The control database at a SQLAlchemy URL. Safe to share between threads; open one per process.

    ``clock``: the time (Unix seconds) that all who share the database go by; see :mod:`components.control.clock`.
    """

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        super().__init__(url)
        self.clock = clock or (DatabaseClock(self.engine) if self.on_postgres else time.time)

    # Routing: the durable intent.

    def intent(self, workload: str) -> tuple[int, Intent]:
        """The revision and intent of a workload; revision 0 and an empty intent where there is none yet."""
        with self.session() as s:
            return _intent(s, workload)

    def put_intent(self, workload: str, expected: int, intent: Intent) -> int:
        """Write the intent if the revision is still ``expected``; returns the new revision.

        Raises:
            StaleRevisionError: somebody else wrote it first.

        """
        with self.compared(f"routing of {workload}", expected) as s:
            row = s.get(RoutingRow, workload, with_for_update=True)
            found = row.revision if row else 0
            if found != expected:
                raise StaleRevisionError(f"routing of {workload}", expected, found)
            if row is None:
                s.add(RoutingRow(workload=workload, revision=1, intent=msgspec.to_builtins(intent)))
            else:
                row.revision, row.intent = expected + 1, msgspec.to_builtins(intent)
        self.bells.ring(routing_bell(workload))
        return expected + 1

    def renew_lease(self, workload: str, epoch: int, until: float) -> None:
        """Move the lease's end without a new revision (replicas re-read the intent on every poll)."""
        with self.transaction() as s:
            row = s.get(RoutingRow, workload, with_for_update=True)
            if row is not None and row.intent.get("epoch", 0) == epoch:
                row.intent = {**row.intent, "lease_until": until}
        self.bells.ring(routing_bell(workload))

    def acknowledge(self, workload: str, replica: str, revision: int, detail: dict[str, Any]) -> None:
        """Say that a replica has applied a revision (also its heartbeat)."""
        with self.transaction() as s:
            s.merge(AckRow(workload=workload, replica=replica, revision=revision, at=self.clock(), detail=detail))

    def heartbeat(self, workload: str, replica: str) -> tuple[int, Intent] | None:
        """Say that a replica lives, and nothing else; returns the :meth:`intent`, or None where it is not known."""
        mine = (AckRow.workload == workload, AckRow.replica == replica)
        with self.transaction() as s:
            found = _intent(s, workload)  # begins the transaction, for which it may have to wait; the beat is of after
            known = s.scalars(update(AckRow).where(*mine).values(at=self.clock()).returning(AckRow.replica)).all()
            return found if known else None

    def acknowledgements(self, workload: str, alive_within: float = ALIVE_SECONDS) -> list[AckRow]:
        """Acknowledgements of the replicas whose heartbeat is at most ``alive_within`` seconds old."""
        with self.session() as s:
            query = select(AckRow).where(AckRow.workload == workload, AckRow.at >= self.clock() - alive_within)
            return list(s.scalars(query.order_by(AckRow.replica)))

    def forget_replica(self, workload: str, replica: str) -> None:
        """Remove a replica that shut down."""
        with self.transaction() as s:
            s.execute(delete(AckRow).where(AckRow.workload == workload, AckRow.replica == replica))

    # Orders: verbs with an idempotency key.

    def order(
        self,
        workload: str,
        verb: str,
        actor: str,
        reason: str,
        args: dict[str, Any] | None = None,
        key: str = "",
    ) -> str:
        """Place an order; the same ``key`` again places nothing new. Returns the order's id."""
        key = key or uuid.uuid4().hex
        try:
            with self.transaction(turn=ORDERS) as s:
                if s.get(OrderRow, key) is None:
                    seq = (s.scalar(select(func.max(OrderRow.seq))) or 0) + 1
                    s.add(
                        OrderRow(
                            id=key, seq=seq, workload=workload, verb=verb, args=args or {}, actor=actor,
                            reason=reason, created_at=self.clock(),
                        )
                    )  # fmt: skip
        except IntegrityError:
            self.get_order(key)  # another process placed it between our look and our insert
        self.bells.ring(orders_bell(workload))
        return key

    def open_orders(self, workload: str) -> list[OrderRow]:
        """Orders that wait, oldest first."""
        with self.session() as s:
            query = select(OrderRow).where(OrderRow.workload == workload, OrderRow.done_at.is_(None))
            return list(s.scalars(query.order_by(OrderRow.seq)))

    def finish_order(self, order_id: str, ok: bool, outcome: str) -> None:
        """Record what came of an order.

        Raises:
            NotFoundError: there is none with this id.

        """
        with self.transaction() as s:
            row = s.get(OrderRow, order_id)
            if row is None:
                raise NotFoundError("order", order_id, "list them with 'cohobate rollout orders'")
            row.done_at, row.ok, row.outcome = self.clock(), ok, outcome

    def get_order(self, order_id: str) -> OrderRow:
        """One order.

        Raises:
            NotFoundError: there is none with this id.

        """
        with self.session() as s:
            row = s.get(OrderRow, order_id)
            if row is None:
                raise NotFoundError("order", order_id, "list them with 'cohobate rollout orders'")
            return row

    def await_order(self, order_id: str, timeout: float = 30.0, poll: float = 0.05) -> OrderRow:
        """Wait until an order is done; returns it as it is when ``timeout`` seconds are over."""
        deadline = time.monotonic() + timeout
        while (row := self.get_order(order_id)).done_at is None and time.monotonic() < deadline:
            time.sleep(poll)
        return row

    # Rollouts.

    def put_rollout(
        self, rollout_id: str, workload: str, expected: int, active: bool, state: dict[str, Any],
        line: JournalLine | None = None,
    ) -> int:  # fmt: skip
        """Write a rollout's state if its revision is still ``expected`` (0: new); returns the new revision.

        ``line``: the line of its journal that led to the state; both are written, or neither is.

        Raises:
            StaleRevisionError: somebody else wrote it first.

        """
        with self.compared(f"rollout {rollout_id}", expected) as s:
            row = s.get(RolloutRow, rollout_id, with_for_update=True)
            found = row.revision if row else 0
            if found != expected:
                raise StaleRevisionError(f"rollout {rollout_id}", expected, found)
            if line is not None:
                s.add(JournalRow(rollout=rollout_id, number=line.number, line=line.text))
            if row is None:
                s.add(
                    RolloutRow(
                        id=rollout_id, workload=workload, revision=1, active=active, created_at=self.clock(),
                        state=state,
                    )
                )  # fmt: skip
                return 1
            row.revision, row.active, row.state = expected + 1, active, state
            return expected + 1

    def journal(self, rollout_id: str, after: int = 0) -> Iterator[JournalLine]:
        """The lines of a rollout's journal beyond the number ``after``, in order, as far as they are kept here."""
        query = select(JournalRow).where(JournalRow.rollout == rollout_id, JournalRow.number > after)
        with self.session() as s:
            for row in s.scalars(query.order_by(JournalRow.number).execution_options(yield_per=100)):
                yield JournalLine(row.number, row.line)

    def keep_journal(self, rollout_id: str, lines: Iterable[JournalLine]) -> None:
        """Keep these lines as a rollout's journal, in place of those that are kept."""
        with self.transaction() as s:
            s.execute(delete(JournalRow).where(JournalRow.rollout == rollout_id))
            s.add_all(JournalRow(rollout=rollout_id, number=x.number, line=x.text) for x in lines)

    def rollouts(self, workload: str) -> list[RolloutRow]:
        """All rollouts of a workload, oldest first."""
        with self.session() as s:
            query = select(RolloutRow).where(RolloutRow.workload == workload)
            return list(s.scalars(query.order_by(RolloutRow.created_at, RolloutRow.id)))

    def last_rollout(self, workload: str) -> RolloutRow | None:
        """The rollout that began last, under way or not; the others are not decoded."""
        with self.session() as s:
            query = select(RolloutRow).where(RolloutRow.workload == workload)
            return s.scalars(query.order_by(RolloutRow.created_at.desc(), RolloutRow.id.desc()).limit(1)).first()

    def workload_of(self, rollout_id: str) -> str | None:
        """The workload of a rollout; None where there is no such rollout."""
        with self.session() as s:
            return s.scalar(select(RolloutRow.workload).where(RolloutRow.id == rollout_id))

    def rollouts_naming(self, workload: str, text: str) -> list[RolloutRow]:
        """The rollouts of a workload whose state has this text somewhere, oldest first; the others are not decoded."""
        with self.session() as s:
            named = cast(RolloutRow.state, Text).contains(json.dumps(text)[1:-1], autoescape=True)
            query = select(RolloutRow).where(RolloutRow.workload == workload, named)
            return list(s.scalars(query.order_by(RolloutRow.created_at, RolloutRow.id)))

    def active_rollout(self, workload: str) -> RolloutRow | None:
        """The rollout under way, if there is one."""
        with self.session() as s:
            query = select(RolloutRow).where(RolloutRow.workload == workload, RolloutRow.active)
            return s.scalars(query.order_by(RolloutRow.created_at)).first()

    # Windows (snapshots).

    def add_window(self, row: WindowRow) -> None:
        """Record a snapshot; recording the same digest again changes nothing.

        Raises:
            StaleRevisionError: another snapshot has this number: somebody else froze a window at the same time.

        """
        with self.compared(f"windows of {row.workload}", row.number - 1) as s:
            if s.get(WindowRow, (row.digest, row.workload)) is None:
                s.add(row)

    def windows(self, workload: str) -> list[WindowRow]:
        """All snapshots of a workload, oldest first."""
        with self.session() as s:
            query = select(WindowRow).where(WindowRow.workload == workload)
            return list(s.scalars(query.order_by(WindowRow.number)))

    # Pipeline runs.

    def start_run(self, workload: str, pipeline: str, reason: str, actor: str) -> str:
        """Record that a pipeline run starts; returns its id."""
        run_id = f"{pipeline}-{uuid.uuid4().hex[:12]}"
        with self.transaction() as s:
            s.add(
                RunRow(
                    id=run_id, workload=workload, pipeline=pipeline, reason=reason, actor=actor,
                    started_at=self.clock(), status="running", detail={},
                )
            )  # fmt: skip
        return run_id

    def finish_run(self, run_id: str, status: str, detail: dict[str, Any]) -> None:
        """Record how a run ended (``succeeded``, ``failed``, ``abandoned``)."""
        with self.transaction() as s:
            row = s.get_one(RunRow, run_id)
            row.status, row.finished_at, row.detail = status, self.clock(), detail

    def runs(self, workload: str) -> list[RunRow]:
        """All runs of a workload, oldest first."""
        with self.session() as s:
            return list(s.scalars(select(RunRow).where(RunRow.workload == workload).order_by(RunRow.started_at)))

    def last_runs(self, workload: str, most: int) -> list[RunRow]:
        """The newest runs of a workload, at most so many, oldest first."""
        with self.session() as s:
            query = select(RunRow).where(RunRow.workload == workload).order_by(RunRow.started_at.desc()).limit(most)
            return list(reversed(s.scalars(query).all()))

    # Alarms and gauges.

    def raise_alarm(self, workload: str, kind: str, input_index: int, detail: dict[str, Any]) -> None:
        """Record a monitor's alarm."""
        with self.transaction() as s:
            s.add(AlarmRow(workload=workload, kind=kind, input_index=input_index, at=self.clock(), detail=detail))

    def alarms(self, workload: str, since: float = 0.0) -> Sequence[AlarmRow]:
        """Alarms raised at or after ``since``, oldest first."""
        with self.session() as s:
            query = select(AlarmRow).where(AlarmRow.workload == workload, AlarmRow.at >= since)
            return list(s.scalars(query.order_by(AlarmRow.id)))

    def last_alarms(self, workload: str, most: int) -> list[AlarmRow]:
        """The newest alarms of a workload, at most so many, oldest first."""
        with self.session() as s:
            query = select(AlarmRow).where(AlarmRow.workload == workload).order_by(AlarmRow.id.desc()).limit(most)
            return list(reversed(s.scalars(query).all()))

    def answer_alarms(self, workload: str, champion: str, until: float, why: str, kind: str | None = None) -> None:
        """Note why the alarms about a champion, raised up to ``until`` (Unix seconds), ask for nothing any more.

        ``kind``: of this kind alone.
        """
        with self.transaction() as s:
            query = select(AlarmRow).where(AlarmRow.workload == workload, AlarmRow.at <= until)
            query = query if kind is None else query.where(AlarmRow.kind == kind)
            for row in s.scalars(query):
                if row.detail.get("champion") == champion and "answered" not in row.detail:
                    row.detail = {**row.detail, "answered": why}

    def open_alarms(self, workload: str, champion: str | None) -> list[AlarmRow]:
        """The alarms about a champion that were not answered (:meth:`answer_alarms`), oldest first."""
        found = self.alarms(workload)
        return [a for a in found if a.detail.get("champion") == champion and "answered" not in a.detail]

    def put_gauge(
        self, workload: str, name: str, value: dict[str, Any], line: tuple[str, JournalLine] | None = None
    ) -> None:
        """Record the last value of a gauge.

        ``line``: a journal's id, and its line that led to the value; both are written, or neither is.
        """
        with self.transaction() as s:
            if line is not None:
                s.add(JournalRow(rollout=line[0], number=line[1].number, line=line[1].text))
            s.merge(GaugeRow(workload=workload, name=name, at=self.clock(), value=value))

    def gauges(self, workload: str) -> dict[str, GaugeRow]:
        """The last value of every gauge, by name."""
        with self.session() as s:
            return {r.name: r for r in s.scalars(select(GaugeRow).where(GaugeRow.workload == workload))}

    def workloads(self) -> list[str]:
        """Names of all workloads that the control database knows."""
        with self.session() as s:
            known = union(*(select(table.workload) for table in (RoutingRow, WindowRow, GaugeRow)))
            return sorted(s.scalars(known))
