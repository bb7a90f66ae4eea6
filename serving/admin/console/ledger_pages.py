"""The routes of the ledger: who did what, and whether it is still what was written."""

from __future__ import annotations

import json
import time
from typing import Annotated
from urllib.parse import urlencode

from fastapi import FastAPI, Query, Request
from sqlalchemy import select
from starlette.responses import Response

from components.contracts.errors import LedgerError
from components.control.store import ControlStore
from components.control.tables import LedgerRow
from components.ledger.anchor import head_of
from components.ledger.ledger import verify
from serving.admin.console.console import Console
from serving.admin.console.web import session_of

PAGE = 100
"""Entries on one page."""

Text = Annotated[str, Query(max_length=128, pattern=r"^[^\x00]*$")]


def entries(
    store: ControlStore, *, workload: str = "", actor: str = "", action: str = "", before: int = 0, most: int = PAGE
) -> list[LedgerRow]:
    """The newest entries that fit, newest first. ``action``: what the action contains; ``before``: an entry's seq."""
    query = select(LedgerRow).order_by(LedgerRow.seq.desc()).limit(most)
    if workload:
        query = query.where(LedgerRow.workload == workload)
    if actor:
        query = query.where(LedgerRow.actor == actor)
    if action:
        query = query.where(LedgerRow.action.contains(action, autoescape=True))
    if before:
        query = query.where(LedgerRow.seq < before)
    with store.session() as s:
        return list(s.scalars(query))


def add(app: FastAPI, console: Console) -> None:
    """Add the routes."""
    store = console.store

    @app.get("/ledger")
    def ledger_page(
        request: Request,
        workload: Text = "",
        actor: Text = "",
        action: Text = "",
        before: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    ) -> Response:
        """Entries, newest first, filtered."""
        wanted = {"workload": workload, "actor": actor, "action": action}
        found = entries(store, workload=workload, actor=actor, action=action, before=before, most=PAGE + 1)
        shown, older = found[:PAGE], ""
        if len(found) > PAGE:
            older = urlencode({**{n: v for n, v in wanted.items() if v}, "before": shown[-1].seq})
        values = {
            "here": "/ledger", "entries": [(row, _told(row)) for row in shown], "older": older, "wanted": wanted,
            "workloads": store.workloads(), "first": not before,
        }  # fmt: skip
        return console.page(request, "ledger.html", values)

    @app.get("/ledger/verify")
    def verify_page(request: Request) -> Response:
        """Recompute the hash chain; for a script the result alone."""
        console.limit(session_of(request))
        began, problem, count = time.perf_counter(), "", 0
        try:
            count = verify(store)
        except LedgerError as error:
            problem = str(error)
        values = {
            "here": "/ledger", "problem": problem, "count": count, "seconds": time.perf_counter() - began,
            "head": head_of(store),
        }  # fmt: skip
        return console.page(request, "_verified.html" if request.headers.get("hx-request") else "verified.html", values)


def _told(row: LedgerRow) -> list[tuple[str, str]]:
    """An entry's detail, a line each; what is no text is JSON."""
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in row.detail.items()
        if value not in (None, "", [], {})
    ]
