"""The admin API's application: ``create_app()`` for uvicorn (``--factory``), Ray Serve (``@serve.ingress``) or us.

Every request passes the :class:`~serving.admin.gate.Gate` first. A verb becomes an order in the control database, in
one transaction with its entry in the ledger, and the answer waits for what the controller makes of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from components.contracts.errors import CohobateError, ConfigError
from components.contracts.settings import Settings, is_loopback
from components.control.store import ControlStore
from components.control.tokens import Tokens
from components.registry.registry import Registry
from components.stream.contract import Broker
from serving.admin.code_flow import CodeFlow
from serving.admin.console.app import create_console
from serving.admin.console.runs import Pipelines
from serving.admin.console.sessions import Sessions
from serving.admin.dependencies import Dependencies
from serving.admin.gate import CONSOLE, Gate, record_refusal
from serving.admin.identity import Door
from serving.admin.oidc import Issuer
from serving.admin.problems import Refused, database_away, refusal
from serving.admin.routes import router

_NO_ISSUER = "is a client of an issuer: set COHOBATE_ADMIN_OIDC_ISSUER too"


def create_app(
    settings: Settings | None = None,
    *,
    store: ControlStore | None = None,
    registry: Registry | None = None,
    issuer: Issuer | None = None,
    pipelines: Pipelines | None = None,
    broker: Callable[[], Broker] | None = None,
) -> FastAPI:
    """The ASGI application; what is not given is made of the settings, which are those of the environment.

    ``pipelines``: what starts runs for the console; None: it shows runs, and starts none. ``broker``: what opens the
    stream for it.

    Raises:
        ConfigError: authentication is off and the API would answer others than this machine, or the issuer's settings
            are incomplete.

    """
    settings = settings or Settings()
    if settings.admin_auth == "off" and not is_loopback(settings.admin_host):
        allowed = f"only where COHOBATE_ADMIN_HOST is the loopback, and it is {settings.admin_host!r}"
        raise ConfigError("COHOBATE_ADMIN_AUTH", "off", allowed)
    store = store or ControlStore.open(settings.control_url)
    if issuer is None and settings.admin_oidc_issuer:
        issuer = Issuer(settings)
    if settings.admin_oidc_client_id and issuer is None:
        raise ConfigError("COHOBATE_ADMIN_OIDC_CLIENT_ID", settings.admin_oidc_client_id, _NO_ISSUER)
    flow = CodeFlow(settings, issuer) if issuer is not None and settings.admin_oidc_client_id else None
    app = FastAPI(
        title="Cohobate admin API",
        version="1",
        description="Look at rollouts and order verbs on them. Every action and every refusal goes into the ledger.",
        docs_url=None,
        redoc_url=None,
    )
    door = Door(Tokens(store), issuer, off=settings.admin_auth == "off")
    needs = app.state.dependencies = Dependencies(store, registry or Registry(settings))
    closing = app.state.closing = threading.Event()
    app.include_router(router)
    app.add_exception_handler(CohobateError, _of_ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(SQLAlchemyError, _of_database)
    console = create_console(needs, settings, Sessions(store, door, flow), closing, pipelines, broker)
    app.state.traffic, app.state.warm = console.state.console.traffic, console.state.console.warm
    app.mount(f"/{CONSOLE}", console)
    app.add_middleware(Gate, store=store, door=door)
    return app


def _refuse(request: Request, refused: Refused) -> Response:
    needs: Dependencies = request.app.state.dependencies
    record_refusal(needs.store, request.scope, refused)
    return refused.response()


def _of_ours(request: Request, error: Exception) -> Response:
    return _refuse(request, refusal(error) if isinstance(error, CohobateError) else Refused(500, "failed", ""))


def _invalid(request: Request, error: Exception) -> Response:
    raw: list[Any] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    errors = [{"at": ".".join(map(str, e["loc"])), "problem": str(e["msg"])} for e in raw[:10]]
    said = "; ".join(f"{e['at']}: {e['problem']}" for e in errors)
    return _refuse(request, Refused(422, "invalid", said, errors=errors))


def _of_http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "invalid" if status < 500 else "failed")
    detail = str(getattr(error, "detail", "")) or code
    return _refuse(request, Refused(status, code, detail, headers=headers, silent=status in (404, 405)))


def _of_database(request: Request, error: Exception) -> Response:
    return database_away(error).response()
