"""The HTTP interface of a gateway: an ASGI application, for Ray Serve, any ASGI server, or a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.telemetry import tracing
from serving.answering import Gateway
from serving.slots import Loaded
from serving.wire import PROBLEM, Answered, Answers, Batch, Body, Health, Model, Problem, Single, Version

__all__ = ["Gateway", "create_app"]

RETRY_AFTER = {"Retry-After": "5"}
"""Seconds until a gateway without a champion may be asked again: a bootstrap takes about this long to be followed."""

OVERHEAD_BYTES = 1_024
"""JSON around one payload: id, key, time and the field names."""


class LimitBody:
    """Refuses a request's body beyond ``most`` bytes before it is parsed, announced or not."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 413."""
        headers = dict(scope.get("headers") or ())
        announced = headers.get(b"content-length", b"")
        if announced.isdigit():
            fits = int(announced) <= self.most
        elif b"transfer-encoding" in headers:
            receive, fits = await self._read(receive)
        else:
            fits = True
        if fits:
            await self.app(scope, receive, send)
        else:
            await problem(413, "too_large", f"a request has at most {self.most} bytes")(scope, receive, send)

    async def _read(self, receive: Receive) -> tuple[Receive, bool]:
        """Read a body of unknown length, at most a little more than is allowed; give it back as one message."""
        body = bytearray()
        while len(body) <= self.most:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        return replay, len(body) <= self.most


def problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """A response that says why there is no answer."""
    body = Problem(title=title, status=status, detail=detail).model_dump_json()
    return Response(body, status, headers=headers, media_type=PROBLEM)


def create_app(gateway: Gateway, on_stop: Callable[[], None] | None = None) -> FastAPI:
    """The application of a gateway; ``on_stop`` is called when its server ends."""
    spec, slots = gateway.spec, gateway.slots

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if on_stop is not None:
            on_stop()

    app = FastAPI(title=f"Cohobate gateway: {spec.name}", description=spec.description, version="1", lifespan=lifespan)
    most = spec.serve.max_batch * (spec.payload.max_bytes * 4 // 3 + OVERHEAD_BYTES)
    app.add_middleware(LimitBody, most=most)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(422, "invalid_request", f"{where}: {first['msg']}")

    refusals: dict[int | str, dict[str, Any]] = {
        status: {"description": what, "content": {PROBLEM: {"schema": Problem.model_json_schema()}}}
        for status, what in ((413, "Too large"), (422, "Invalid"), (500, "The student failed"), (503, "No champion"))
    }

    @app.post("/v1/predict", response_model=Answers | Answered, responses=refusals)
    async def predict(body: Body, request: Request) -> Response:
        """Answer one input or a batch. In a batch each input has its own answer or error."""
        with tracing.request("predict", request.headers, **{"cohobate.workload": spec.name}):
            return await answer(body)

    async def answer(body: Single | Batch) -> Response:
        if slots.routing.champion is None:
            return problem(503, "no_champion", "no student serves yet: run the bootstrap pipeline", RETRY_AFTER)
        if isinstance(body, Batch):
            if len(body.inputs) > spec.serve.max_batch:
                return problem(413, "too_many_inputs", f"a batch has at most {spec.serve.max_batch} inputs")
            answers = await gateway.predict(body.inputs, body.allow_defer)
            return _json(Answers(predictions=answers))
        return _alone((await gateway.predict([body], body.allow_defer))[0])

    @app.get("/healthz", response_model=Health, responses={503: refusals[503]})
    async def healthz() -> Response:
        """Whether the replica lives: its threads follow the intent and publish what it does."""
        if not (slots.alive and gateway.telemetry.alive):
            return problem(503, "not_alive", "a background thread of this replica ended: restart it")
        return _json(Health(status="ok"))

    @app.get("/readyz", response_model=Health, responses={503: refusals[503]})
    async def readyz() -> Response:
        """Whether a champion is loaded."""
        if slots.routing.champion is None:
            return problem(503, "no_champion", "no champion is loaded", RETRY_AFTER)
        return _json(Health(status="ready"))

    @app.get("/v1/model", response_model=Model)
    async def model() -> Response:
        """Which versions this replica serves."""
        routing = slots.routing
        return _json(
            Model(
                workload=spec.name,
                replica=slots.replica,
                revision=routing.revision,
                champion=_version(routing.champion),
                candidate=_version(routing.candidate),
                weight=routing.intent.weight_at(slots.clock()),
                shadow=routing.intent.shadow,
                failed=slots.failed,
            )
        )

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Prometheus metrics of this replica."""
        return Response(gateway.metrics.text(), media_type="text/plain; version=0.0.4")

    return app


def _alone(answer: Answered) -> Response:
    if answer.error is not None:
        return problem(answer.error.status, answer.error.title, answer.error.detail)
    return _json(answer)


def _json(model: Answers | Answered | Health | Model) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


def _version(loaded: Loaded | None) -> Version | None:
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
    )
