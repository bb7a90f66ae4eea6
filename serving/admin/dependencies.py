"""What the routes of the admin API work with: the database in a caller's name, its role, and what it orders."""

from __future__ import annotations

import asyncio
import re
import time

from fastapi import Request

from components.control.order_client import LocalOrderClient, Order, Outcome, outcome_of
from components.control.store import ControlStore
from components.control.tokens import Role, allows
from components.registry.registry import Registry
from serving.admin.identity import Identity
from serving.admin.problems import Refused
from serving.admin.wire import ARGUMENTS, VerbBody

POLL_SECONDS = 0.05
"""How often a waiting order is looked at."""

ETAG = re.compile(r'(?:W/)?"(?:(?P<rollout>[A-Za-z0-9][A-Za-z0-9_-]{0,63})\.)?(?P<revision>\d{1,9})"')
"""A revision in ``If-Match``, with or without the rollout's id: ``"rollout-3f2a.5"``."""


class Dependencies:
    """What the routes work with: the control database and the registry, in the name of a request's caller."""

    def __init__(self, store: ControlStore, registry: Registry) -> None:
        self.store, self.registry = store, registry

    def require(self, workload: str) -> None:
        """Check that a workload is known.

        Raises:
            Refused: 404, it is not.

        """
        if workload not in self.store.workloads():
            raise Refused(404, "not_found", f"no workload {workload!r}: GET /v1/workloads lists them")

    def order_client(self, request: Request) -> LocalOrderClient:
        """The order client with which the request's caller orders."""
        who = caller(request)
        client = request.client.host if request.client else ""
        detail = {"via": who.via, "role": who.role, "credential": who.credential, "client": client}
        return LocalOrderClient(self.store, who.actor, detail)

    async def outcome(self, key: str, seconds: float) -> Outcome:
        """What came of an order, waited for without holding a thread."""
        deadline = time.monotonic() + seconds
        while True:
            row = await asyncio.to_thread(self.store.get_order, key)
            if row.done_at is not None or time.monotonic() >= deadline:
                return outcome_of(row)
            await asyncio.sleep(POLL_SECONDS)


def caller(request: Request) -> Identity:
    """Who the gate let in."""
    found: Identity = request.state.identity
    return found


def require_role(request: Request, least: Role) -> None:
    """Check the caller's role.

    Raises:
        Refused: 403, it is less than ``least``.

    """
    who = caller(request)
    if not allows(who.role, least):
        raise Refused(403, "forbidden", f"{who.actor} has the role {who.role}; this needs {least}")


def operator(request: Request) -> None:
    """The dependency of routes that need an operator."""
    require_role(request, "operator")


def order_of(request: Request, workload: str, verb: str, body: VerbBody) -> Order:
    """The order that a request places.

    Raises:
        Refused: 403, it needs the role admin; 422, it has an argument that its verb does not take, or contradicts
            itself.

    """
    args = body.args()
    for name in args:
        if ARGUMENTS[name] != verb:
            raise Refused(422, "invalid", f"{name} is for {ARGUMENTS[name]}, not for {verb}", reason=body.reason)
    if args.get("forced"):
        require_role(request, "admin")
    revision, rollout = body.revision, body.rollout
    asked = request.headers.get("if-match", "*")
    if asked.strip() != "*":
        found = ETAG.fullmatch(asked.strip())
        if found is None or (revision is not None and revision != int(found["revision"])):
            raise Refused(422, "invalid", 'If-Match must be one revision, as "ROLLOUT.5", and the body\'s if both are')
        revision, rollout = int(found["revision"]), found["rollout"] or rollout
    if rollout is not None and revision is None:
        raise Refused(422, "invalid", "rollout goes with a revision", reason=body.reason)
    named = {"key": request.headers["idempotency-key"]} if "idempotency-key" in request.headers else {}
    return Order(
        workload=workload, verb=verb, reason=body.reason, args=args, revision=revision, rollout=rollout, **named
    )
