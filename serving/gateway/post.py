"""How a gateway takes a request and gives an answer or a problem, whatever protocol it is of.

Every error is a problem (RFC 9457). It also has the member ``error`` that clients of the protocol read: below ``/v2`` a
text (Open Inference Protocol), below ``/v1/chat``, ``/v1/embeddings`` and ``/v1/models`` an object (OpenAI).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from components.telemetry import tracing
from serving.gateway.answering import Gateway
from serving.gateway.bodies import Bodies
from serving.gateway.pressure import Pressure, urgency_of
from serving.gateway.wire import PROBLEM, RETRY_AFTER, Answered, Ask, Problem, RequestError, encode

log = logging.getLogger(__name__)

TRACEPARENT = tracing.TRACEPARENT.encode()

JSON = [(b"content-type", b"application/json")]

Pairs = list[tuple[bytes, bytes]]
Answer = Callable[[bytes, "Call"], Awaitable[tuple[bytes, Pairs]]]
"""Answers a request's body; gives a body and headers."""


class Call(NamedTuple):
    """What an answer may depend on besides the body: the headers, their names in lower case, and the path.

    ``path``: all of it, with the workload's prefix.
    """

    headers: Mapping[bytes, bytes]
    path_params: Mapping[str, str]
    path: str = ""


class Post:
    """An ASGI endpoint that takes bodies: let in by urgency, read within bounds, answered, traced.

    Written against ASGI itself: a tenth of a millisecond is what a request takes in all.
    """

    def __init__(
        self,
        gateway: Gateway,
        name: str,
        bodies: Bodies,
        answer: Answer,
        pressure: Pressure | None = None,
        status: int = 200,
    ) -> None:
        self._status = status
        self._pressure = gateway.pressure if pressure is None else pressure
        self._bodies, self._name, self._answer = bodies, name, answer
        self._labels = {"cohobate.workload": gateway.spec.name}
        self._traces = tracing.recording()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body, pairs = await self._within(scope, receive)
            status = self._status
        except RequestError as error:
            status, body, pairs = refusal(error.problem, error.headers, scope["path"])
        except Exception as error:
            log.exception("%s failed", scope["path"])
            status, body, pairs = refusal(internal(error), {}, scope["path"])
        await respond(send, status, body, pairs)

    async def _within(self, scope: Scope, receive: Receive) -> tuple[bytes, Pairs]:
        headers = dict(scope["headers"])
        call = Call(headers, scope.get("path_params", {}), scope["path"])
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


async def respond(send: Send, status: int, body: bytes, pairs: Pairs) -> None:
    """Send a whole response."""
    headers = [*pairs, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def problem(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None, path: str = "") -> Response:
    """A response that says why there is no answer."""
    _, body, pairs = refusal(Problem(title=title, status=status, detail=detail), headers or {}, path)
    response = Response(body, status)
    for name, value in pairs:
        response.headers[name.decode()] = value.decode("latin-1")
    return response


def refusal(what: Problem, headers: Mapping[str, str], path: str) -> tuple[int, bytes, Pairs]:
    """Status, body and headers of a problem, as the clients of the protocol at ``path`` read it."""
    body: Any = what
    if "/v2" in path:
        body = {**msgspec.structs.asdict(what), "error": f"{what.title}: {what.detail}"}
    elif path.endswith(("/v1/chat/completions", "/v1/embeddings", "/v1/models")):
        kind = "server_error" if what.status >= 500 else "invalid_request_error"
        said = {"message": f"{what.title}: {what.detail}", "type": kind, "param": None, "code": what.title}
        body = {**msgspec.structs.asdict(what), "error": said}
    pairs = [(b"content-type", PROBLEM.encode())]
    return what.status, encode(body), pairs + [(n.lower().encode(), v.encode()) for n, v in headers.items()]


def internal(error: Exception) -> Problem:
    """What is told of a failure of the gateway itself."""
    return Problem(title="internal", status=500, detail=f"the gateway failed: {type(error).__name__}; see its log")


async def predictions(gateway: Gateway, ask: Ask, call: Call, version: str | None = None) -> list[Answered]:
    """The answers to a request; ``version`` asks that one past the split.

    Raises:
        RequestError: shed, too many inputs, or there is no champion.

    """
    if ask.priority is not None:
        gateway.pressure.check(ask.priority, mine=1)
    require_champion(gateway)
    check_count(gateway, len(ask.items))
    urgency = urgency_of(call.headers.get(b"priority")) if ask.priority is None else ask.priority
    return await gateway.predict(ask.items, ask.allow_defer, version, urgency)


def require_champion(gateway: Gateway) -> None:
    """Refuse a request where there is no champion yet.

    Raises:
        RequestError: 503, so it is.

    """
    routing = gateway.versions.routing
    if routing.champion is None:
        wanted = routing.intent.champion
        if wanted is None:
            raise no_champion("no student serves yet: run the bootstrap pipeline")
        if wanted.digest in gateway.versions.failed:  # why is not for everybody: it names stores and addresses
            raise no_champion(f"version {wanted.version} does not load: 'cohobate status' says why")
        raise no_champion(f"version {wanted.version} is being loaded")


def check_count(gateway: Gateway, inputs: int) -> None:
    """Refuse a request of more inputs than a batch may have.

    Raises:
        RequestError: 413, it has.

    """
    most = gateway.spec.serve.max_batch
    if inputs > most:
        raise RequestError(413, "too_many_inputs", f"a batch has at most {most} inputs")


def no_champion(detail: str) -> RequestError:
    """There is nobody who could answer."""
    return RequestError(503, "no_champion", detail, RETRY_AFTER)


def json_response(value: Any) -> Response:
    """A value as a response."""
    return Response(encode(value), media_type="application/json")
