"""The HTTP interface of a gateway: an ASGI application, for Ray Serve, any ASGI server, or a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from serving.gateway import protocols
from serving.gateway.answering import Gateway
from serving.gateway.asynchronous import Later, later_routes, no_later_routes
from serving.gateway.bodies import Bodies
from serving.gateway.edge import Edges
from serving.gateway.openapi import document
from serving.gateway.post import (
    JSON,
    Call,
    Pairs,
    Post,
    internal,
    json_response,
    predictions,
    problem,
    require_champion,
)
from serving.gateway.pressure import Pressure
from serving.gateway.truths import UNDER_WAY
from serving.gateway.wire import (
    AllAccepted,
    ColdStart,
    Health,
    Model,
    RequestError,
    Version,
    encode,
    raise_for,
    read,
    read_truths,
    written,
)
from serving.replica.loaded_versions import Loaded

__all__ = ["Gateway", "create_app"]

OVERHEAD_BYTES = 1_024
"""JSON around one payload: id, key, time and the field names."""

ESCAPED = 4 / 3
"""How much longer than its payload base64 is; JSON text with many escapes may be longer, and is refused earlier."""

TRUTH_BYTES = 2 * OVERHEAD_BYTES
"""One truth: its names are the longest part, and are bounded."""

PREDICT = "/v1/predict"
"""Where predictions are asked for, below the workload's prefix."""


Beside = Callable[[], AbstractAsyncContextManager[object]]


class Front:
    """The application: what most requests ask for goes its way directly, everything else through the routes."""

    def __init__(self, predict: Post, routes: Starlette) -> None:
        self.predict, self.routes = predict, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's life."""
        if scope["type"] == "http" and scope["method"] == "POST":
            path, root = scope["path"], scope.get("root_path", "")
            if path.removeprefix(root) == PREDICT:
                await self.predict(scope, receive, send)
                return
        await self.routes(scope, receive, send)


def side_by_side(fronts: Mapping[str, Front], *, apart: bool = False, beside: Beside | None = None) -> Starlette:
    """The applications of several workloads as one, each below ``/<workload>``; they start and end together.

    ``apart``: there is one, and whatever routes to the application has that in its prefix. ``beside``: what else runs
    on their event loop for as long as they do.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as running:
            for front in fronts.values():
                await running.enter_async_context(front.routes.router.lifespan_context(front.routes))
            if beside is not None:  # it ends first: what it answers needs what the fronts stop
                await running.enter_async_context(beside())
            yield

    mounts = [Mount("" if apart else f"/{name}", app=front) for name, front in fronts.items()]
    return Starlette(routes=mounts, exception_handlers={HTTPException: _http}, lifespan=lifespan)


def create_app(
    gateway: Gateway,
    on_stop: Callable[[], None] | None = None,
    later: Later | None = None,
    edges: Edges | None = None,
) -> Front:
    """The application of a gateway; ``on_stop`` is called when its server ends.

    ``later``: what takes requests that are answered later, ``edges``: what answers edges; None: nothing does.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with nullcontext() if later is None else later.running():
            yield
        gateway.truths.close()
        if edges is not None:
            edges.close()
        if on_stop is not None:
            on_stop()

    serve, payload = gateway.spec.serve, gateway.spec.payload
    most = int(serve.max_batch * (payload.max_bytes * ESCAPED + OVERHEAD_BYTES))
    asks, bodies = _Asks(gateway), Bodies(most, serve.request_seconds)
    predict = Post(gateway, "predict", bodies, asks.predict)
    told = Bodies(serve.max_batch * TRUTH_BYTES, serve.request_seconds)
    truth = Post(gateway, "truth", told, asks.truth, Pressure(UNDER_WAY))
    taken = no_later_routes() if later is None else later_routes(later, bodies)
    taken += [] if edges is None else edges.routes()
    routes = Starlette(
        routes=[
            Route(PREDICT, predict, methods=["POST"]),
            Route("/v1/truth", truth, methods=["POST"]),
            Route("/healthz", asks.healthz),
            Route("/readyz", asks.readyz),
            Route("/v1/model", asks.model),
            Route("/metrics", asks.metrics),
            Route("/openapi.json", asks.openapi),
            *taken,
            *protocols.routes(gateway, bodies, asks.healthz, asks.readyz),
        ],
        exception_handlers={HTTPException: _http, RequestError: _request, Exception: _failed},
        lifespan=lifespan,
    )
    return Front(predict, routes)


async def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    titles = {404: "not_found", 405: "method_not_allowed"}
    detail = str(error.detail) if isinstance(error, HTTPException) else ""
    headers = error.headers if isinstance(error, HTTPException) else None
    return problem(status, titles.get(status, "refused"), f"{detail}: see /openapi.json", headers, request.url.path)


async def _request(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestError):
        raise error
    found = error.problem
    return problem(found.status, found.title, found.detail, error.headers, request.url.path)


async def _failed(request: Request, error: Exception) -> Response:
    found = internal(error)
    return problem(found.status, found.title, found.detail, None, request.url.path)


class _Asks:
    """The native interface."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._versions = gateway, gateway.versions
        self._document = b""

    async def predict(self, body: bytes, call: Call) -> tuple[bytes, Pairs]:
        """Answer one input or a batch. In a batch each input has its own answer or error."""
        ask = read(body)
        answers = await predictions(self._gateway, ask, call)
        return written(answers, alone=ask.alone), JSON

    async def truth(self, body: bytes, _: Call) -> tuple[bytes, Pairs]:
        """Take one truth or a batch. In a batch each truth is taken or refused on its own."""
        items, alone = read_truths(body)
        most = self._gateway.spec.serve.max_batch
        if len(items) > most:
            raise RequestError(413, "too_many_truths", f"a batch has at most {most} truths")
        taken = await self._gateway.truths.take(items)
        if not alone:
            return encode(AllAccepted(truths=taken)), JSON
        raise_for(taken[0].error)
        return encode(taken[0]), JSON

    async def healthz(self, _: Request) -> Response:
        """Whether the replica lives: its threads follow the intent and publish what it does."""
        if not (self._versions.alive and self._gateway.telemetry.alive):
            raise RequestError(503, "not_alive", "a background thread of this replica ended: restart it")
        return json_response(Health(status="ok"))

    async def readyz(self, _: Request) -> Response:
        """Whether a champion is loaded."""
        require_champion(self._gateway)
        return json_response(Health(status="ready"))

    async def model(self, _: Request) -> Response:
        """Which versions this replica serves."""
        versions, routing, cold = self._versions, self._versions.routing, self._gateway.cold_start
        return json_response(
            Model(
                workload=self._gateway.spec.name,
                replica=versions.replica,
                revision=routing.revision,
                champion=self._version(routing.champion),
                candidate=self._version(routing.candidate),
                weight=routing.intent.weight_at(versions.clock()),
                shadow=routing.intent.shadow,
                failed=versions.failed,
                cold_start=ColdStart(ready_seconds=cold.ready_seconds, first_answer_seconds=cold.first_answer_seconds),
            )
        )

    def _version(self, loaded: Loaded | None) -> Version | None:
        if loaded is None:
            return None
        card, ref = loaded.student.card, loaded.ref
        return Version(
            version=ref.version,
            digest=ref.digest,
            snapshot=ref.snapshot,
            teacher=ref.teacher,
            space=card.space,
            classes=list(card.classes),
            precision=card.precision,
            defer_below=self._gateway.limit(loaded),
            novelty=self._gateway.spec.serve.novelty if loaded.student.tells_novelty else None,
        )

    async def metrics(self, _: Request) -> Response:
        """Prometheus metrics of this replica."""
        return Response(self._gateway.metrics.text(), media_type="text/plain; version=0.0.4")

    async def openapi(self, _: Request) -> Response:
        """The OpenAPI document."""
        self._document = self._document or encode(document(self._gateway.spec))
        return Response(self._document, media_type="application/json")
