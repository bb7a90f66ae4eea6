"""What every request to the admin API passes before it is routed: its body is bounded, its caller is known.

Pure ASGI, in front of the application: nothing of a request is parsed before its caller is let in.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import unquote

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.contracts.errors import CohobateError
from components.control.store import ControlStore
from components.ledger.ledger import append
from serving.admin.identity import EVERYTHING, Caller, Door, Identity
from serving.admin.problems import Refused, database_away, refusal

PUBLIC = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""Paths that need no login: what they say is no secret."""

CONSOLE = "console"
"""Below this path are pages, whose callers have a session (:mod:`serving.admin.console.web`) and no bearer token."""

MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 10.0
"""How long a client may take to send a body."""

UNKNOWN = "unauthenticated"
"""The ledger's actor where a login failed."""

WORKLOAD = re.compile(r"/(?:v1/workloads|console/w)/([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:/|$)")
VERB = re.compile(r"/(?:rollout|order)/([a-z-]{1,32})$")


class Gate:
    """Wraps the admin application."""

    def __init__(self, app: ASGIApp, store: ControlStore, door: Door) -> None:
        self._app, self._store, self._door = app, store, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through with its caller in ``scope["state"]["identity"]``, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        try:
            if scope["path"] not in PUBLIC and scope["path"].split("/")[1:2] != [CONSOLE]:
                state["identity"] = await run_in_threadpool(self._door.enter, caller_of(scope))
            body = await _body(receive)
        except SQLAlchemyError as error:
            await database_away(error).response()(scope, receive, send)
            return
        except CohobateError as error:
            refused = refusal(error)
            await run_in_threadpool(record_refusal, self._store, scope, refused)
            await refused.response()(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)


def caller_of(scope: Scope) -> Caller:
    """What is known of a request's caller before anything is believed."""
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    client, server = scope.get("client") or ("", 0), scope.get("server") or ("", 0)
    return Caller(
        client=str(client[0]),
        server=str(server[0]),
        host=headers.get(b"host", ""),
        authorization=headers.get(b"authorization", ""),
    )


async def _body(receive: Receive) -> bytes:
    """The whole body.

    Raises:
        Refused: 413 or 408, it is too large or too slow.

    """
    try:
        return await asyncio.wait_for(_read(receive), BODY_SECONDS)
    except TimeoutError as error:
        late = f"the body did not come in {BODY_SECONDS:.0f} s"
        raise Refused(408, "too_slow", late, headers={"Connection": "close"}) from error


async def _read(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise Refused(413, "too_large", f"a body may have {MAX_BODY_BYTES} bytes", headers={"Connection": "close"})
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    first = True

    async def again() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def record_refusal(store: ControlStore, scope: Scope, refused: Refused) -> None:
    """Put a refusal into the ledger: every one of a verb, and every one for want of a right."""
    if refused.silent or not (scope["method"] == "POST" or refused.status in (401, 403, 429)):
        return
    identity: Identity | None = scope.get("state", {}).get("identity")
    workload, verb = WORKLOAD.match(scope["path"]), VERB.search(scope["path"])
    did = verb.group(1) if verb and scope["method"] == "POST" else scope["method"].lower()
    detail: dict[str, Any] = {
        "why": refused.detail,
        "status": refused.status,
        "path": unquote(scope["path"])[:200],
        "client": caller_of(scope).client,
        **({"role": identity.role, "via": identity.via, "credential": identity.credential} if identity else {}),
        **{
            k: v for k, v in refused.more.items() if k in ("token", "order", "expected", "revision", "reason", "errors")
        },
    }
    actor = identity.actor if identity else UNKNOWN
    append(store, workload.group(1) if workload else EVERYTHING, actor, f"refused {did}", detail)
