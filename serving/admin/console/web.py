"""What every request to the console passes, and every answer carries: a session, no forgery, and headers that shut out.

Pure ASGI, in front of the console's application.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.contracts.errors import CohobateError
from serving.admin.console.sessions import Session, Sessions
from serving.admin.gate import caller_of
from serving.admin.problems import Refused, database_away, refusal

ROOT = "/console"
COOKIE = "cohobate_console"
FORM = "application/x-www-form-urlencoded"

CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""Nothing from elsewhere, nothing inline, and in nobody's frame."""

HEADERS = {
    "content-security-policy": CONTENT_SECURITY,
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
"""What every answer carries, unless it says otherwise itself."""

OPEN = ("/sign-in", "/static/")
"""Paths that need no session."""


class Guarded:
    """Wraps the console's application: puts the session into ``scope["state"]``, or sends the caller to sign in."""

    def __init__(self, app: ASGIApp, sessions: Sessions, away: Callable[[Request, Refused], ASGIApp]) -> None:
        self._app, self._sessions, self._away = app, sessions, away

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, redirect it to the sign-in, or answer 401 where a script asks."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        path = scope["path"].removeprefix(ROOT)
        state = scope.setdefault("state", {})
        if not path.startswith(OPEN):
            try:
                session = await run_in_threadpool(self._session, scope)
            except (SQLAlchemyError, CohobateError) as error:
                refused = refusal(error) if isinstance(error, CohobateError) else database_away(error)
                await self._away(Request(scope), refused)(scope, receive, guarded)
                return
            if session is None:
                await _to_sign_in(scope, path)(scope, receive, guarded)
                return
            state["session"], state["identity"] = session, session.identity
        await self._app(scope, receive, guarded)

    def _session(self, scope: Scope) -> Session | None:
        secret = cookie_of(scope)
        return self._sessions.find(secret, caller_of(scope)) if secret else None


def cookie_of(scope: Scope, name: str = COOKIE) -> str:
    """What a cookie holds, by default the session's secret; empty where there is none."""
    try:
        found = SimpleCookie(Headers(scope=scope).get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _to_sign_in(scope: Scope, path: str) -> Any:
    headers = Headers(scope=scope)
    if headers.get("hx-request") or "text/event-stream" in headers.get("accept", "") or path == "/session":
        return Refused(401, "unauthenticated", "the session has ended: sign in again").response()
    back = scope["path"] if scope["method"] == "GET" else ROOT
    return RedirectResponse(f"{ROOT}/sign-in?next={quote(back, safe='/')}", status_code=303)


def session_of(request: Request) -> Session:
    """The session that a request came with."""
    found: Session = request.state.session
    return found


def same_origin(request: Request) -> None:
    """Refuse what another site's page sent.

    Raises:
        Refused: 403, the browser names another origin than the one that it asks.

    """
    site, origin = request.headers.get("sec-fetch-site", ""), request.headers.get("origin", "")
    if site not in ("", "same-origin", "none") or (origin and urlsplit(origin).netloc != request.headers.get("host")):
        raise Refused(403, "forbidden", "the request came from another site's page")


FIELDS = 500
"""The most fields that a form may have."""


async def fields_of(request: Request) -> list[tuple[str, str]]:
    """The fields of a form that was sent, as often as they come.

    Raises:
        Refused: 422, it is no form, or no text.

    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Refused(422, "invalid", f"send a form as {FORM}")
    try:
        fields = parse_qsl(
            (await request.body()).decode(), keep_blank_values=True, max_num_fields=FIELDS, errors="strict"
        )
    except ValueError as error:
        raise Refused(422, "invalid", f"the form cannot be read: {error}") from error
    if any("\0" in value for _, value in fields):
        raise Refused(422, "invalid", "the form has a null byte in it")
    return fields


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form that was sent; of a field that comes twice the last one.

    Raises:
        Refused: see :func:`fields_of`.

    """
    return dict(await fields_of(request))


async def checked_fields(request: Request) -> list[tuple[str, str]]:
    """The fields of a form of this very session, as often as they come.

    Raises:
        Refused: 403, it was made elsewhere; 422, see :func:`fields_of`.

    """
    same_origin(request)
    fields = await fields_of(request)
    if not hmac.compare_digest(dict(fields).get("csrf", "").encode(), session_of(request).csrf.encode()):
        raise Refused(403, "forbidden", "the form is not of this session: open the page again")
    return [(name, value) for name, value in fields if name != "csrf"]


async def checked_form(request: Request) -> dict[str, str]:
    """The fields of a form of this very session; of a field that comes twice the last one.

    Raises:
        Refused: see :func:`checked_fields`.

    """
    return dict(await checked_fields(request))
