"""The routes of the admin API."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.security import HTTPBearer
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from components.contracts.errors import LedgerError
from components.control.looks import said, shown
from components.control.order_client import Order, order_dict, revision_of
from components.control.tables import LedgerRow, OrderRow, RolloutRow
from components.ledger.anchor import head_of
from components.ledger.ledger import verify
from serving.admin.dependencies import Dependencies, caller, operator, order_of
from serving.admin.problems import Refused
from serving.admin.wire import (
    VERBS,
    Entries,
    Entry,
    Evidence,
    Head,
    Health,
    Me,
    OrderOutcome,
    Orders,
    OrderView,
    Problem,
    Rollouts,
    RolloutView,
    VerbBody,
    Verified,
    Versions,
    Workload,
    Workloads,
)
from serving.gateway.wire import PROBLEM
from serving.rollout.state import from_dict

VerbName = Enum("VerbName", {v: v for v in VERBS}, type=str)  # type: ignore[misc]  # an enum of what the rollout knows


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    described = {"model": Problem, "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    return dict.fromkeys(statuses, described)


public = APIRouter()
reading = APIRouter(
    prefix="/v1", dependencies=[Depends(HTTPBearer(auto_error=False))], responses=_problems(401, 403, 422, 429, 503)
)
"""What every role may see."""

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="The workload's name.")]
Id = Annotated[str, Path(pattern=r"^[\x21-\x7e]{1,128}$")]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]


def _dependencies(request: Request) -> Dependencies:
    found: Dependencies = request.app.state.dependencies
    return found


Needs = Annotated[Dependencies, Depends(_dependencies)]


@public.get("/healthz")
def healthz() -> Health:
    """Whether the process lives."""
    return Health(status="ok")


@public.get("/readyz", responses=_problems(503))
def readyz(needs: Needs) -> Health:
    """Whether the control database answers."""
    needs.store.workloads()
    return Health(status="ok")


@reading.get("/me")
def me(request: Request) -> Me:
    """Who the API takes the caller for."""
    return Me(**msgspec.to_builtins(caller(request)))


@reading.get("/workloads")
def workloads(needs: Needs) -> Workloads:
    """All workloads."""
    return Workloads(workloads=needs.store.workloads())


@reading.get("/workloads/{workload}", responses=_problems(404))
def workload_(workload: Name, needs: Needs) -> Workload:
    """The routing of a workload, its live replicas, and what its workers report."""
    needs.require(workload)
    revision, intent = needs.store.intent(workload)
    alive = needs.store.acknowledgements(workload)
    return Workload(
        workload=workload,
        routing_revision=revision,
        intent=msgspec.to_builtins(intent),
        replicas=[{"replica": a.replica, "revision": a.revision, "at": a.at, **a.detail} for a in alive],
        gauges={name: {"at": g.at, **said(g.value)} for name, g in shown(needs.store.gauges(workload)).items()},
        alarms=[
            {"kind": a.kind, "input_index": a.input_index, "at": a.at, "detail": a.detail}
            for a in needs.store.alarms(workload)[-100:]
        ],
    )


@reading.get("/workloads/{workload}/rollouts", responses=_problems(404))
def rollouts(workload: Name, needs: Needs, request: Request) -> Rollouts:
    """All rollouts of a workload in full, as their state machine keeps them, oldest first."""
    needs.require(workload)
    return Rollouts(rollouts=needs.order_client(request).rollouts(workload))


@reading.get("/workloads/{workload}/rollout", responses=_problems(404))
def rollout(workload: Name, needs: Needs, response: Response) -> RolloutView:
    """The rollout that is under way, or the last one; its ``ETag`` is what ``If-Match`` of a verb takes."""
    needs.require(workload)
    row = needs.store.active_rollout(workload) or next(reversed(needs.store.rollouts(workload)), None)
    if row is None:
        raise Refused(404, "not_found", f"{workload} had no rollout yet")
    return _view(row, response)


@reading.get("/rollouts/{rollout_id}", responses=_problems(404))
def rollout_by_id(rollout_id: Id, needs: Needs, response: Response) -> RolloutView:
    """One rollout."""
    with needs.store.session() as s:
        row = s.get(RolloutRow, rollout_id)
    if row is None:
        raise Refused(404, "not_found", f"no rollout {rollout_id!r}")
    return _view(row, response)


def _view(row: RolloutRow, response: Response) -> RolloutView:
    state, revision = from_dict(row.state), revision_of(row.state)
    response.headers["ETag"] = f'"{row.id}.{revision}"'
    return RolloutView(
        id=row.id, workload=row.workload, revision=revision, active=row.active, phase=state.phase,
        outcome=state.outcome, reason=state.reason, forced=state.forced, candidate=state.candidate.version,
        champion=state.champion.version, step=state.step, weight=state.weight,
        steps=[msgspec.to_builtins(s) for s in state.steps], legal=list(state.legal),
        created_at=row.created_at, ended_at=state.ended_at,
        evidence=Evidence(
            requests=state.requests, candidate_requests=state.candidate_requests,
            audited=sum(s.audited for s in state.steps), guards=row.state["guards"],
        ),
    )  # fmt: skip


@reading.get("/workloads/{workload}/versions", responses=_problems(404))
def versions(workload: Name, needs: Needs) -> Versions:
    """Registered versions of a workload's student, oldest first."""
    needs.require(workload)
    return Versions(versions=[msgspec.to_builtins(v) for v in needs.registry.versions(workload)])


@reading.get("/workloads/{workload}/orders", responses=_problems(404))
def orders(workload: Name, needs: Needs, request: Request) -> Orders:
    """All orders of a workload, oldest first."""
    needs.require(workload)
    return Orders(orders=needs.order_client(request).orders(workload))


@reading.get("/orders/{order_id}", responses=_problems(404))
def order(order_id: Id, needs: Needs) -> OrderView:
    """One order and what came of it."""
    with needs.store.session() as s:
        row = s.get(OrderRow, order_id)
    if row is None:
        raise Refused(404, "not_found", f"no order {order_id!r}")
    found = order_dict(row)
    return OrderView(order=found.pop("id"), **found)


@reading.get("/ledger")
def ledger(
    needs: Needs,
    workload: Annotated[str | None, Query(max_length=64)] = None,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="Only entries with a greater seq.")] = 0,
    limit: Limit = 100,
) -> Entries:
    """Entries of the ledger, oldest first."""
    query = select(LedgerRow).where(LedgerRow.seq > after).order_by(LedgerRow.seq).limit(limit)
    if workload is not None:
        query = query.where(LedgerRow.workload == workload)
    with needs.store.session() as s:
        rows = s.scalars(query).all()
    found = [Entry(**{name: getattr(row, name) for name in Entry.model_fields}) for row in rows]
    return Entries(entries=found, next_after=found[-1].seq if len(found) == limit else None)


@reading.get("/ledger/head")
def ledger_head(needs: Needs) -> Head:
    """The last entry's seq and hash: an anchor to keep elsewhere."""
    return Head(**msgspec.to_builtins(head_of(needs.store)))


@reading.get("/ledger/verify")
def ledger_verify(
    needs: Needs,
    anchor: Annotated[str | None, Query(pattern=r"^[0-9a-f]{64}$", description="Hash of an entry seen before.")] = None,
) -> Verified:
    """Recompute the ledger's hash chain."""
    try:
        return Verified(ok=True, entries=verify(needs.store, anchor))
    except LedgerError as error:
        return Verified(ok=False, seq=error.seq, detail=str(error))


@reading.post(
    "/workloads/{workload}/rollout/{verb}",
    dependencies=[Depends(operator)],
    responses={202: {"model": OrderOutcome}, **_problems(400, 404, 408, 409, 413)},
)
async def act(
    workload: Name,
    verb: VerbName,
    body: VerbBody,
    needs: Needs,
    request: Request,
    response: Response,
    idempotency_key: Annotated[
        str | None, Header(description="The same key orders nothing twice.", pattern=r"^[\x21-\x7e]{1,128}$")
    ] = None,
    if_match: Annotated[str | None, Header(description="ETag of the rollout that this was decided on.")] = None,
) -> OrderOutcome:
    """Order a verb and wait for what comes of it; 202 while no controller has taken it.

    Needs the role operator, and admin with ``forced``. 409 says that the rollout is at another revision, or that the
    controller refused; the detail says why and what is legal.
    """
    placed = await _placed(needs, request, workload, verb.value, body)
    done = await needs.outcome(placed.key, body.wait_seconds)
    if done.ok is False:
        raise Refused(409, "refused", done.outcome or "refused", silent=True, order=done.order)
    if done.ok is None:
        response.status_code = 202
    return OrderOutcome(order=done.order, ok=done.ok, outcome=done.outcome)


async def _placed(needs: Dependencies, request: Request, workload: str, verb: str, body: VerbBody) -> Order:
    def put() -> Order:
        needs.require(workload)
        wanted = order_of(request, workload, verb, body)
        needs.order_client(request).put(wanted)
        return wanted

    return await run_in_threadpool(put)


router = APIRouter()
router.include_router(public)
router.include_router(reading)
