"""The HTTP interface of a gateway: an ASGI application, for Ray Serve, any ASGI server, or a test.

Every error is a problem (RFC 9457); below ``/v2`` it also has the member ``error``, which clients of the Open Inference
Protocol read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from components.telemetry import tracing
from serving.gateway import oip
from serving.gateway.answering import Gateway
from serving.gateway.bodies import Bodies
from serving.gateway.openapi import document
from serving.gateway.pressure import Pressure, urgency_of
from serving.gateway.truths import UNDER_WAY
from serving.gateway.wire import (
    PROBLEM,
    AllAccepted,
    Answered,
    Answers,
    Ask,
    ColdStart,
    Health,
    Model,
    Problem,
    RequestError,
    Version,
    encode,
    read,
    read_truths,
)
from serving.replica.loaded_versions import Loaded

__all__ = ["Gateway", "create_app"]

log = logging.getLogger(__name__)

RETRY_AFTER = {"Retry-After": "5"}
"""Seconds until a gateway without a champion may be asked again: a bootstrap takes about this long to be followed."""

OVERHEAD_BYTES = 1_024
"""JSON around one payload: id, key, time and the field names."""

ESCAPED = 4 / 3
"""How much longer than its payload base64 is; JSON text with many escapes may be longer, and is refused earlier."""

TRUTH_BYTES = 2 * OVERHEAD_BYTES
"""One truth: its names are the longest part, and are bounded."""

PREDICT = "/v1/predict"
"""Where predictions are asked for, below the workload's prefix."""

TRACEPARENT, LENGTH = tracing.TRACEPARENT.encode(), oip.LENGTH_HEADER.lower().encode()

JSON = [(b"content-type", b"application/json")]

Pairs = list[tuple[bytes, bytes]]
Answer = Callable[[bytes, "Call"], Awaitable[tuple[bytes, Pairs]]]
"""Answers a request's body; gives a body and headers."""


class Call(NamedTuple):
    """What an answer may depend on besides the body: the headers, their names in lower case, and the path."""

    headers: Mapping[bytes, bytes]
    path_params: Mapping[str, str]


class Post:
    """An ASGI endpoint that takes bodies: let in by urgency, read within bounds, answered, traced.

    Written against ASGI itself: a tenth of a millisecond is what a request takes in all.
    """

    def __init__(
        self, gateway: Gateway, name: str, bodies: Bodies, answer: Answer, pressure: Pressure | None = None
    ) -> None:
        self._pressure = gateway.pressure if pressure is None else pressure
        self._bodies, self._name, self._answer = bodies, name, answer
        self._labels = {"cohobate.workload": gateway.spec.name}
        self._traces = tracing.recording()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body, pairs = await self._within(scope, receive)
            status = 200
        except RequestError as error:
            status, body, pairs = _refusal(error.problem, error.headers, scope["path"])
        except Exception as error:
            log.exception("%s failed", scope["path"])
            status, body, pairs = _refusal(_internal(error), {}, scope["path"])
        pairs = [*pairs, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})

    async def _within(self, scope: Scope, receive: Receive) -> tuple[bytes, Pairs]:
        headers = dict(scope["headers"])
        call = Call(headers, scope.get("path_params", {}))
        self._pressure.enter(urgency_of(headers.get(b"priority")))
        try:
            await asyncio.sleep(0)  # what came in at the same time is counted before any of it is answered
            body = await self._bodies.read(headers, receive)
            if not self._traces and TRACEPARENT not in headers:
                return await self._answer(body, call)
            text = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
            with tracing.request(self._name, text, **self._labels):
                return await self._answer(body, call)
        finally:
            self._pressure.leave()


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


def side_by_side(fronts: Mapping[str, Front], *, apart: bool = False) -> Starlette:
    """The applications of several workloads as one, each below ``/<workload>``; they start and end together.

    ``apart``: there is one, and whatever routes to the application has that in its prefix.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as running:
            for front in fronts.values():
                await running.enter_async_context(front.routes.router.lifespan_context(front.routes))
            yield

    mounts = [Mount("" if apart else f"/{name}", app=front) for name, front in fronts.items()]
    return Starlette(routes=mounts, exception_handlers={HTTPException: _http}, lifespan=lifespan)


def problem(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None, path: str = "") -> Response:
    """A response that says why there is no answer."""
    _, body, pairs = _refusal(Problem(title=title, status=status, detail=detail), headers or {}, path)
    response = Response(body, status)
    for name, value in pairs:
        response.headers[name.decode()] = value.decode("latin-1")
    return response


def _refusal(what: Problem, headers: Mapping[str, str], path: str) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    body: Any = what
    if "/v2" in path:
        body = {**msgspec.structs.asdict(what), "error": f"{what.title}: {what.detail}"}
    pairs = [(b"content-type", PROBLEM.encode())]
    return what.status, encode(body), pairs + [(n.lower().encode(), v.encode()) for n, v in headers.items()]


def create_app(gateway: Gateway, on_stop: Callable[[], None] | None = None) -> Front:
    """The application of a gateway; ``on_stop`` is called when its server ends."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        gateway.truths.close()
        if on_stop is not None:
            on_stop()

    serve, payload = gateway.spec.serve, gateway.spec.payload
    most = int(serve.max_batch * (payload.max_bytes * ESCAPED + OVERHEAD_BYTES))
    asks, v2, bodies = _Asks(gateway), _V2(gateway), Bodies(most, serve.request_seconds)
    model = "/v2/models/{name}"
    predict, infer = Post(gateway, "predict", bodies, asks.predict), Post(gateway, "infer", bodies, v2.infer)
    told = Bodies(serve.max_batch * TRUTH_BYTES, serve.request_seconds)
    truth = Post(gateway, "truth", told, asks.truth, Pressure(UNDER_WAY))
    routes = Starlette(
        routes=[
            Route(PREDICT, predict, methods=["POST"]),
            Route("/v1/truth", truth, methods=["POST"]),
            Route("/healthz", asks.healthz),
            Route("/readyz", asks.readyz),
            Route("/v1/model", asks.model),
            Route("/metrics", asks.metrics),
            Route("/openapi.json", asks.openapi),
            Route("/v2", v2.server),
            Route("/v2/health/live", asks.healthz),
            Route("/v2/health/ready", asks.readyz),
            Route(f"{model}/infer", infer, methods=["POST"]),
            Route(f"{model}/versions/{{version}}/infer", infer, methods=["POST"]),
            Route(f"{model}/ready", v2.ready),
            Route(f"{model}/versions/{{version}}/ready", v2.ready),
            Route(model, v2.model),
            Route(f"{model}/versions/{{version}}", v2.model),
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
    found = _internal(error)
    return problem(found.status, found.title, found.detail, None, request.url.path)


def _internal(error: Exception) -> Problem:
    return Problem(title="internal", status=500, detail=f"the gateway failed: {type(error).__name__}; see its log")


async def _predictions(gateway: Gateway, ask: Ask, call: Call, version: str | None = None) -> list[Answered]:
    if ask.priority is not None:
        gateway.pressure.check(ask.priority, mine=1)
    if gateway.versions.routing.champion is None:
        raise _no_champion("no student serves yet: run the bootstrap pipeline")
    most = gateway.spec.serve.max_batch
    if len(ask.items) > most:
        raise RequestError(413, "too_many_inputs", f"a batch has at most {most} inputs")
    urgency = urgency_of(call.headers.get(b"priority")) if ask.priority is None else ask.priority
    return await gateway.predict(ask.items, ask.allow_defer, version, urgency)


def _no_champion(detail: str) -> RequestError:
    return RequestError(503, "no_champion", detail, RETRY_AFTER)


class _Asks:
    """The native interface."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._versions = gateway, gateway.versions
        self._document = b""

    async def predict(self, body: bytes, call: Call) -> tuple[bytes, Pairs]:
        """Answer one input or a batch. In a batch each input has its own answer or error."""
        ask = read(body)
        answers = await _predictions(self._gateway, ask, call)
        if not ask.alone:
            return encode(Answers(predictions=answers)), JSON
        error = answers[0].error
        if error is not None:
            raise RequestError(error.status, error.title, error.detail)
        return encode(answers[0]), JSON

    async def truth(self, body: bytes, _: Call) -> tuple[bytes, Pairs]:
        """Take one truth or a batch. In a batch each truth is taken or refused on its own."""
        items, alone = read_truths(body)
        most = self._gateway.spec.serve.max_batch
        if len(items) > most:
            raise RequestError(413, "too_many_truths", f"a batch has at most {most} truths")
        taken = await self._gateway.truths.take(items)
        if not alone:
            return encode(AllAccepted(truths=taken)), JSON
        error = taken[0].error
        if error is not None:
            raise RequestError(error.status, error.title, error.detail)
        return encode(taken[0]), JSON

    async def healthz(self, _: Request) -> Response:
        """Whether the replica lives: its threads follow the intent and publish what it does."""
        if not (self._versions.alive and self._gateway.telemetry.alive):
            raise RequestError(503, "not_alive", "a background thread of this replica ended: restart it")
        return _json(Health(status="ok"))

    async def readyz(self, _: Request) -> Response:
        """Whether a champion is loaded."""
        if self._versions.routing.champion is None:
            raise _no_champion("no champion is loaded")
        return _json(Health(status="ready"))

    async def model(self, _: Request) -> Response:
        """Which versions this replica serves."""
        versions, routing, cold = self._versions, self._versions.routing, self._gateway.cold_start
        return _json(
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


class _V2:
    """The Open Inference Protocol."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._versions = gateway, gateway.versions

    def _known(self, request: Request | Call) -> str | None:
        """The version that the path names, if any.

        Raises:
            RequestError: 404, there is no such model, or its version is not loaded here.

        """
        name, version = request.path_params["name"], request.path_params.get("version")
        if name != self._gateway.spec.name:
            raise RequestError(404, "no_model", f"there is no model {name!r}, only {self._gateway.spec.name!r}")
        if version is not None and version not in oip.versions_of(self._versions.routing):
            raise RequestError(404, "no_version", f"version {version!r} is not loaded here")
        return version

    async def server(self, _: Request) -> Response:
        """Which server this is."""
        return _json(oip.ServerMetadata(name="cohobate", version="1", extensions=["binary_tensor_data"]))

    async def model(self, request: Request) -> Response:
        """What the model takes and gives."""
        self._known(request)
        return _json(oip.metadata(self._gateway.spec, self._versions.routing))

    async def ready(self, request: Request) -> Response:
        """Whether the model, or a version of it, can be asked."""
        self._known(request)
        if self._versions.routing.champion is None:
            raise _no_champion("no champion is loaded")
        return _json({"name": self._gateway.spec.name, "ready": True})

    async def infer(self, body: bytes, call: Call) -> tuple[bytes, Pairs]:
        """Answer inputs as tensors."""
        version = self._known(call)
        inferred, ask = oip.read(body, call.headers.get(LENGTH, b"").decode("latin-1") or None)
        answers = await _predictions(self._gateway, ask, call, version)
        written, length = oip.write(self._gateway.spec, self._versions.routing, inferred, answers)
        if length is None:
            return written, JSON
        header = (oip.LENGTH_HEADER.lower().encode(), str(length).encode())
        return written, [(b"content-type", b"application/octet-stream"), header]


def _json(value: Any) -> Response:
    return Response(encode(value), media_type="application/json")
