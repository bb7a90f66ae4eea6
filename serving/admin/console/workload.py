"""One workload: who serves, the rollout step by step, what speaks against the candidate, and who has applied what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import select

from components.contracts.settings import Settings
from components.control.intent import Intent
from components.control.looks import said
from components.control.order_client import revision_of
from components.control.store import ControlStore
from components.control.tables import OrderRow, RolloutRow
from serving.admin.console.overview import Row, Rows
from serving.admin.console.series import Arms, arms_of
from serving.rollout.guards import assess
from serving.rollout.state import RolloutState, from_dict
from serving.rollout.step import needs

LAST = 8
"""How many orders, alarms and runs the page shows."""


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the policy, and what it has of what it needs. ``status``: ``done``, ``now`` or ``ahead``.

    ``needs``: pairs of what is needed and how much there is, with the amount; None of a step that is not reached.
    """

    name: str
    weight: float
    status: str
    started_at: float | None
    seconds: float | None
    applied_seconds: float | None
    needs: tuple[tuple[str, int, int], ...]


class GuardView(msgspec.Struct, frozen=True, kw_only=True):
    """A guard: its e-value, the one at which it takes the candidate back alone, and what it saw in words."""

    name: str
    e_value: float
    limit: float
    says: str


class RolloutView(msgspec.Struct, frozen=True, kw_only=True):
    """The last rollout. ``missing``: what its step still needs, in words; ``seconds_left``: of its patience."""

    state: RolloutState
    revision: int
    steps: tuple[StepView, ...]
    guards: tuple[GuardView, ...]
    evidence: float
    limit: float
    missing: tuple[str, ...]
    seconds_left: float | None
    arms: Arms | None


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway replica that lives, and what it applied."""

    name: str
    at: float
    revision: int
    behind: bool
    detail: dict[str, Any]


class WorkloadView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the page shows."""

    row: Row
    intent: Intent
    routing_revision: int
    rollout: RolloutView | None
    replicas: tuple[Replica, ...]
    orders: Sequence[dict[str, Any]]
    alarms: Sequence[dict[str, Any]]
    gauges: dict[str, dict[str, Any]]


def workload_view(store: ControlStore, settings: Settings, rows: Rows, workload: str) -> WorkloadView:
    """One workload as it is now."""
    (row,) = rows.read([workload])
    revision, intent = store.intent(workload)
    last = store.last_rollout(workload)
    return WorkloadView(
        row=row,
        intent=intent,
        routing_revision=revision,
        rollout=rollout_view(last, store.clock(), store, settings.artifacts) if last is not None else None,
        replicas=tuple(
            Replica(name=a.replica, at=a.at, revision=a.revision, behind=a.revision < revision, detail=a.detail)
            for a in store.acknowledgements(workload)
        ),
        orders=_orders(store, workload),
        alarms=[
            {"id": a.id, "kind": a.kind, "at": a.at, "input_index": a.input_index, "detail": a.detail}
            for a in reversed(store.last_alarms(workload, LAST))
        ],
        gauges={name: {**said(g.value), "at": g.at} for name, g in sorted(store.gauges(workload).items())},
    )


def _orders(store: ControlStore, workload: str) -> list[dict[str, Any]]:
    names = ("id", "verb", "actor", "reason", "created_at", "done_at", "ok", "outcome")
    with store.session() as s:
        query = select(OrderRow).where(OrderRow.workload == workload).order_by(OrderRow.seq.desc()).limit(LAST)
        return [{name: getattr(row, name) for name in names} for row in s.scalars(query)]


def rollout_view(row: RolloutRow, now: float, store: ControlStore, artifacts: str) -> RolloutView:
    """A rollout, from its row."""
    state = from_dict(row.state)
    assessed = assess(state.guards, state.policy)
    limit = 1.0 / state.policy.alpha
    left = None if state.ended or state.phase == "paused" else state.entered_at + state.policy.patience_seconds - now
    return RolloutView(
        state=state,
        revision=revision_of(row.state),
        steps=_steps(state),
        guards=tuple(
            GuardView(name=g.name.replace("_", " "), e_value=g.e_value, limit=limit / g.share, says=g.says())
            for g in assessed
        ),
        evidence=sum(g.share * g.e_value for g in assessed),
        limit=limit,
        missing=() if state.ended else tuple(needs(state)),
        seconds_left=None if left is None else max(0.0, left),
        arms=arms_of(store, artifacts, state),
    )


def _steps(state: RolloutState) -> tuple[StepView, ...]:
    """The steps of the policy; each with its last record, as one may be taken several times."""
    found = []
    for index, wanted in enumerate(state.policy.steps):
        record = next((r for r in reversed(state.steps) if r.weight == wanted.weight), None)
        current = index == state.step and not state.ended
        status = "now" if current else "done" if record is not None else "ahead"
        asked: tuple[tuple[str, int, int], ...] = ()
        if record is not None:
            asked = (
                ("requests", record.requests, wanted.min_requests),
                ("of the candidate", record.candidate, wanted.min_candidate),
            )
        found.append(
            StepView(
                name="shadow" if wanted.weight == 0.0 else f"{100 * wanted.weight:g} %", weight=wanted.weight,
                status=status, started_at=record.started_at if record else None,
                seconds=record.seconds if record else None,
                applied_seconds=record.applied_seconds if record else None, needs=asked,
            )
        )  # fmt: skip
    promoted = next((r for r in state.steps if r.weight == 1.0), None)
    status = "done" if state.phase == "promoted" else "ahead"
    found.append(
        StepView(
            name="100 %", weight=1.0, status=status, started_at=promoted.started_at if promoted else None, seconds=None,
            applied_seconds=promoted.applied_seconds if promoted else None, needs=(),
        )
    )  # fmt: skip
    return tuple(found)
