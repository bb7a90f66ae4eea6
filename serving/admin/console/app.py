"""The console's application, mounted below ``/console`` of the admin API: the pages and what they are made of."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from components.contracts.errors import CohobateError
from components.contracts.settings import Settings
from components.stream.contract import Broker
from serving.admin.console import inbox_pages, ledger_pages, pages, run_pages, savings_pages, version_pages
from serving.admin.console.console import Console
from serving.admin.console.rendering import STATIC
from serving.admin.console.runs import Pipelines
from serving.admin.console.sessions import Sessions
from serving.admin.console.web import ROOT, Guarded
from serving.admin.dependencies import Dependencies
from serving.admin.gate import record_refusal
from serving.admin.problems import Refused, database_away, refusal


def create_console(
    needs: Dependencies,
    settings: Settings,
    sessions: Sessions,
    closing: threading.Event,
    pipelines: Pipelines | None = None,
    broker: Callable[[], Broker] | None = None,
) -> FastAPI:
    """The console's ASGI application. ``closing`` ends the streams, so that the server need not wait for them.

    ``pipelines`` starts runs and knows the specs; without it none is started from here. ``broker`` opens the stream;
    None: as the settings say.
    """
    app = FastAPI(title="Cohobate console", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.console = console = Console(needs, settings, sessions, closing, pipelines, broker)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for routes in (pages, version_pages, run_pages, inbox_pages, ledger_pages, savings_pages):
        routes.add(app, console)

    def refuse(request: Request, refused: Refused) -> Response:
        record_refusal(console.store, request.scope, refused)
        return _shown(console, request, refused)

    def ours(request: Request, error: Exception) -> Response:
        return refuse(request, refusal(error) if isinstance(error, CohobateError) else Refused(500, "failed", ""))

    def invalid(request: Request, error: Exception) -> Response:
        said = "; ".join(str(e["msg"]) for e in error.errors()[:5]) if isinstance(error, RequestValidationError) else ""
        return refuse(request, Refused(422, "invalid", said))

    def of_http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = "there is no such page" if status == 404 else str(getattr(error, "detail", ""))
        return refuse(request, Refused(status, "not_found" if status == 404 else "invalid", detail, silent=True))

    def away(request: Request, error: Exception) -> Response:
        return _shown(console, request, database_away(error))

    app.add_exception_handler(CohobateError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(SQLAlchemyError, away)
    app.add_middleware(Guarded, sessions=sessions, away=lambda request, refused: _shown(console, request, refused))
    return app


HEADINGS = {
    401: "Sign in again",
    403: "Not allowed",
    404: "Not found",
    409: "It is different now",
    422: "Not understood",
    429: "Too many",
    503: "Not available",
}


def _shown(console: Console, request: Request, refused: Refused) -> Response:
    """A refusal as a page; as a problem document for what is no page."""
    if "text/html" not in request.headers.get("accept", "text/html") and "*/*" not in request.headers.get("accept", ""):
        return refused.response()
    values = {
        "heading": HEADINGS.get(refused.status, "Refused"),
        "detail": refused.detail,
        "back": f"{ROOT}/",
        "back_name": "To the overview",
    }
    page = console.page(request, "problem.html", values, status=refused.status)
    page.headers.update(refused.headers)
    return page
