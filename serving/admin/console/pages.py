"""The routes of the console: sign-in, the overview, a workload with its verbs, and what is live on them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote, unquote

import msgspec
from fastapi import FastAPI, Path, Query, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from components.contracts.errors import ConfigError, UnavailableError
from components.control.database import StaleRevisionError
from components.control.order_client import REASON_CHARACTERS, Order
from serving.admin.code_flow import CodeFlow
from serving.admin.console.console import STREAMS, Console
from serving.admin.console.live import Topic
from serving.admin.console.sessions import Session
from serving.admin.console.verbs import TITLES, goes_back_to, happens, verb_of
from serving.admin.console.web import COOKIE, ROOT, checked_form, cookie_of, form_of, same_origin, session_of
from serving.admin.console.workload import workload_view
from serving.admin.dependencies import order_of, require_role
from serving.admin.gate import caller_of, record_refusal
from serving.admin.problems import Refused, refusal
from serving.admin.wire import VerbBody

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
VerbName = Annotated[str, Path(pattern=f"^({'|'.join(TITLES)})$")]
Key = Annotated[str, Query(pattern=r"^[\x21-\x7e]{0,128}$")]
Version = Annotated[str, Query(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")]


def add(app: FastAPI, console: Console) -> None:
    """Add the routes."""
    _signing(app, console)
    _looking(app, console)
    _ordering(app, console)


def _back(given: str) -> str:
    """A page of ours to go on to; the overview where another place is named."""
    ours = given.startswith(f"{ROOT}/") and "\\" not in given and ".." not in given and given.isprintable()
    return given if ours else f"{ROOT}/"


def _signing(app: FastAPI, console: Console) -> None:
    sessions, settings = console.sessions, console.settings

    def form(request: Request, after: str, problem: str = "", status: int = 200, left: bool = False) -> Response:
        values = {
            "next": _back(after), "problem": problem, "open_to_all": sessions.open_to_all,
            "oidc": settings.admin_oidc_issuer, "redirects": sessions.flow is not None,
            "leaves": left and sessions.flow is not None and bool(sessions.flow.leave()),
        }  # fmt: skip
        return console.page(request, "sign_in.html", values, status=status)

    def begun(answer: Response, request: Request, secret: str, session: Session) -> Response:
        """The answer, with the session's cookie."""
        answer.set_cookie(
            COOKIE, secret, max_age=max(0, int(session.expires_at - console.store.clock())), path=ROOT, httponly=True,
            samesite="strict", secure=request.url.scheme == "https",
        )  # fmt: skip
        return answer

    if sessions.flow is not None and not sessions.open_to_all:
        _at_the_issuer(app, console, sessions.flow, form, begun)

    @app.get("/sign-in")
    def sign_in_page(
        request: Request,
        next: Annotated[str, Query(max_length=500)] = "",
        left: Annotated[str, Query(pattern="^(issuer)?$")] = "",
    ) -> Response:
        """The form to sign in with; ``left``: behind a sign-out of a session of the issuer's."""
        return form(request, next, left=bool(left))

    @app.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        """Begin a session."""
        same_origin(request)
        given = await form_of(request)
        token, after = given.get("token", "").strip(), given.get("next", "")
        caller = msgspec.structs.replace(caller_of(request.scope), authorization=f"Bearer {token}")
        try:
            secret, session = await run_in_threadpool(sessions.sign_in, caller)
        except Refused as refused:
            await run_in_threadpool(record_refusal, console.store, request.scope, refused)
            return form(request, after, refused.detail, refused.status)
        return begun(RedirectResponse(_back(after), status_code=303), request, secret, session)

    @app.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        """End the session."""
        await checked_form(request)
        await run_in_threadpool(sessions.sign_out, session_of(request), caller_of(request.scope))
        left = "?left=issuer" if session_of(request).identity.via == "oidc" else ""
        answer = RedirectResponse(f"{ROOT}/sign-in{left}", status_code=303)
        answer.delete_cookie(COOKIE, path=ROOT)
        return answer

    @app.get("/session")
    def session(request: Request) -> Response:
        """Whether the session still holds: a page's script asks when its stream broke."""
        return JSONResponse({"expires_at": session_of(request).expires_at})


TRY_COOKIE = "cohobate_sign_in"
TRY_SECONDS = 600
"""How long somebody may be at the issuer's page."""


def _at_the_issuer(
    app: FastAPI,
    console: Console,
    flow: CodeFlow,
    form: Callable[[Request, str, str, int], Response],
    begun: Callable[[Response, Request, str, Session], Response],
) -> None:
    """Add the routes that lead to the issuer's page and back."""
    path = f"{ROOT}/sign-in/oidc"

    def back_to(request: Request) -> str:
        return f"{request.url.scheme}://{request.headers.get('host', '')}{path}/callback"

    def refused(request: Request, error: Refused | UnavailableError, after: str) -> Response:
        why = refusal(error)
        record_refusal(console.store, request.scope, why)
        hint = " A token of the admin API works meanwhile." if why.status == 503 else ""
        return form(request, after, f"{why.detail}.{hint}", why.status)

    @app.get("/sign-in/oidc")
    def at_the_issuer(request: Request, next: Annotated[str, Query(max_length=500)] = "") -> Response:
        """Go to the issuer's page."""
        try:
            url, secret = flow.begin(back_to(request))
        except UnavailableError as error:
            return refused(request, error, next)
        answer = RedirectResponse(url, status_code=303)
        # Lax: the browser comes back from another site, and has to bring this one along.
        answer.set_cookie(
            TRY_COOKIE, f"{secret}.{quote(_back(next), safe='')}", max_age=TRY_SECONDS, path=path, httponly=True,
            samesite="lax", secure=request.url.scheme == "https",
        )  # fmt: skip
        return answer

    @app.get("/sign-in/oidc/callback")
    def back(request: Request) -> Response:
        """Come back from the issuer's page, and begin a session."""
        secret, _, after = cookie_of(request.scope, TRY_COOKIE).partition(".")
        after, caller = unquote(after), caller_of(request.scope)
        try:
            made, session = console.sessions.sign_in_by_code(
                flow, caller, secret, back_to(request), dict(request.query_params)
            )
        except (Refused, UnavailableError) as error:
            answer = refused(request, error, after)
        else:
            # A page, and no redirect: one that began at another site would not bring the session's strict cookie.
            answer = begun(console.page(request, "signed_in.html", {"next": _back(after)}), request, made, session)
        answer.delete_cookie(TRY_COOKIE, path=path)
        return answer

    @app.get("/sign-in/oidc/leave")
    def leave(request: Request) -> Response:
        """Go to the issuer's page to sign out there."""
        url = flow.leave()
        return RedirectResponse(url or f"{ROOT}/sign-in", status_code=303)


def _looking(app: FastAPI, console: Console) -> None:
    @app.get("/")
    def overview_page(request: Request) -> Response:
        """All workloads, worst first."""
        console.history.look()
        rows = list(console.rows().values())
        return console.page(request, "overview.html", {"rows": rows, "here": "/", "live": f"{ROOT}/events/overview"})

    @app.get("/w/{workload}")
    def workload_page(request: Request, workload: Name, order: Key = "") -> Response:
        """One workload."""
        console.needs.require(workload)
        console.history.look()
        view = workload_view(console.store, console.settings, console.rows_of, workload)
        live = f"{ROOT}/events/workload?about={workload}" + (f"&order={quote(order)}" if order else "")
        regions = console.workload_regions(view, session_of(request).identity.role, order)
        return console.page(request, "workload.html", {"view": view, "regions": regions, "live": live})

    @app.get("/events/{page}")
    async def events(
        request: Request,
        page: Annotated[str, Path(pattern="^(overview|workload)$")],
        about: Annotated[str, Query(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")] = "",
        order: Key = "",
    ) -> Response:
        """What is live on a page, as server-sent events."""
        session = session_of(request)
        if page == "workload":
            await run_in_threadpool(console.needs.require, about)
        if console.streams.get(session.id, 0) >= STREAMS:
            raise Refused(429, "too_many", f"a session may have {STREAMS} pages open", headers={"Retry-After": "5"})
        topic = Topic(page=page, role=session.identity.role, about=about, order=order)
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(console.events(session, topic), media_type="text/event-stream", headers=headers)


def _ordering(app: FastAPI, console: Console) -> None:
    def form(request: Request, workload: str, verb: str, version: str, **more: Any) -> Response:
        """The form of a verb, as a page or for the dialog; ``more`` says what was wrong with the last try."""
        view = workload_view(console.store, console.settings, console.rows_of, workload)
        rollout = view.rollout
        state = rollout.state if rollout is not None else None
        given: dict[str, str] = more.pop("given", {})
        status: int = more.pop("status", 200)
        values = {
            "workload": workload,
            "verb": verb_of(verb),
            "view": view,
            "happens": happens(verb, view.intent, state, version),
            "goes_to": goes_back_to(view.intent, state),
            "revision": rollout.revision if rollout is not None else 0,
            "rollout_id": state.id if state is not None else "",
            "version": version,
            "key": uuid.uuid4().hex,
            "given": {"reason": given.get("reason", ""), "to": given.get("to", "")},
            "reason_characters": REASON_CHARACTERS,
            "conflict": "",
            "problem": "",
            **more,
        }
        name = "_verb.html" if request.headers.get("hx-request") else "verb.html"
        return console.page(request, name, values, status=status)

    @app.get("/w/{workload}/order/{verb}")
    def order_page(request: Request, workload: Name, verb: VerbName, version: Version = "") -> Response:
        """What a verb will do, and the form to order it with."""
        require_role(request, "operator")
        console.needs.require(workload)
        return form(request, workload, verb, version)

    @app.post("/w/{workload}/order/{verb}")
    async def order(request: Request, workload: Name, verb: VerbName) -> Response:
        """Order a verb, and go on to the workload's page, which shows what comes of it."""
        given = await checked_form(request)
        console.limit(session_of(request))
        version = given.get("version", "")
        try:
            placed, before = await run_in_threadpool(_place, console, request, workload, verb, given)
        except StaleRevisionError as error:
            refused = Refused(
                409, "stale_revision", str(error), expected=error.expected, revision=error.found,
                reason=given.get("reason", ""),
            )  # fmt: skip
            await run_in_threadpool(record_refusal, console.store, request.scope, refused)
            conflict = (
                f"Somebody else, or the controller, decided since you looked (you saw revision {error.expected}, it is "
                f"at {error.found}): nothing was ordered. Look at the new state, and decide again."
            )
            return await run_in_threadpool(
                lambda: form(request, workload, verb, version, given=given, status=409, conflict=conflict)
            )
        except (Refused, ConfigError) as error:
            if isinstance(error, Refused) and error.status != 422:
                raise
            refused = error if isinstance(error, Refused) else Refused(422, "invalid", str(error))
            await run_in_threadpool(record_refusal, console.store, request.scope, refused)
            return await run_in_threadpool(
                lambda: form(request, workload, verb, version, given=given, status=422, problem=refused.detail)
            )
        console.watch.begin(workload, placed.key, before)
        return RedirectResponse(f"{ROOT}/w/{workload}?order={quote(placed.key)}", status_code=303)


def _place(console: Console, request: Request, workload: str, verb: str, given: dict[str, str]) -> tuple[Order, int]:
    """Place the order of a form; returns it, and the routing's revision before it.

    Raises:
        Refused: 403, it needs another role; 404, there is no such workload; 422, the form makes no sense.
        StaleRevisionError, ConfigError: see :meth:`OrderClient.place`.

    """
    require_role(request, "operator")
    console.needs.require(workload)
    fields = {n: given[n] for n in ("reason", "revision", "rollout", "version", "forced", "skip_shadow", "to")
              if given.get(n)}  # fmt: skip
    if "revision" not in fields:
        raise Refused(422, "invalid", "the form names no revision: open it again", reason=given.get("reason", ""))
    try:
        body = VerbBody(**fields, wait_seconds=0.0)  # type: ignore[arg-type]  # texts, which pydantic converts
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise Refused(422, "invalid", said) from error
    wanted = order_of(request, workload, verb, body)
    if given.get("key"):
        wanted = msgspec.structs.replace(wanted, key=given["key"])
    before, _ = console.store.intent(workload)
    console.needs.order_client(request).put(wanted)
    return wanted, before
