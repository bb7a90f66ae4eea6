"""The protocols of others beside the native one: Open Inference, managed services, chat completions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.gateway import chat, embeddings, managed, oip
from serving.gateway.answering import Gateway
from serving.gateway.batch import Files
from serving.gateway.bodies import Bodies
from serving.gateway.post import JSON, Answer, Call, Pairs, Post, json_response, predictions, require_champion
from serving.gateway.wire import RequestError

Look = Callable[[Request], Awaitable[Response]]

LENGTH = oip.LENGTH_HEADER.lower().encode()


def routes(gateway: Gateway, bodies: Bodies, live: Look, ready: Look) -> list[Route]:
    """The routes of all of them. ``live`` and ``ready`` say whether the replica lives, and has a champion."""
    v2, services, models = _V2(gateway), _Managed(gateway), _Chat(gateway)

    def post(path: str, name: str, answer: Answer) -> Route:
        return Route(path, Post(gateway, name, bodies, answer), methods=["POST"])

    model = "/v2/models/{name}"
    return [
        Route("/v2", v2.server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        post(f"{model}/infer", "infer", v2.infer),
        post(f"{model}/versions/{{version}}/infer", "infer", v2.infer),
        Route(f"{model}/ready", v2.ready),
        Route(f"{model}/versions/{{version}}/ready", v2.ready),
        Route(model, v2.model),
        Route(f"{model}/versions/{{version}}", v2.model),
        Route("/ping", ready),
        post("/invocations", "invocations", services.invoke),
        Route("/v1/batch", Files(gateway), methods=["POST"]),
        Route("/v1/models", models.offered),
        post("/v1/chat/completions", "chat", models.complete),
        post("/v1/embeddings", "embeddings", models.embed),
    ]


class _Managed:
    """SageMaker's and Vertex AI's containers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def invoke(self, body: bytes, call: Call) -> tuple[bytes, Pairs]:
        """Answer one input or several, in the form that was asked in."""
        ask, form = managed.ask(body, call.headers.get(b"content-type", b""))
        answers = await predictions(self._gateway, ask, call)
        media = managed.LINES[0] if form == "lines" else "application/json"
        return managed.answer(answers, form), [(b"content-type", media.encode())]


class _Chat:
    """OpenAI's chat completions, and its embeddings."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def offered(self, _: Request) -> Response:
        """The workload, and its loaded versions, as models."""
        return json_response(chat.offered(self._gateway.spec.name, oip.versions_of(self._gateway.versions.routing)))

    async def complete(self, body: bytes, call: Call) -> tuple[bytes, Pairs]:
        """Say the class of the last message."""
        spec = self._gateway.spec
        request, ask, version = chat.read(spec, body)
        (answer,) = await predictions(self._gateway, ask, call, version)
        written, media = chat.write(spec, request, answer, self._gateway.clock())
        return written, [(b"content-type", media)]

    async def embed(self, body: bytes, call: Call) -> tuple[bytes, Pairs]:
        """The vectors of texts."""
        spec, routing = self._gateway.spec, self._gateway.versions.routing
        request, ask, version = embeddings.read(spec, body, oip.dimension_of(routing) or None)
        answers = await predictions(self._gateway, ask, call, version)
        return embeddings.write(spec, request, answers), JSON


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
        return oip.loaded(self._versions.routing, version)

    async def server(self, _: Request) -> Response:
        """Which server this is."""
        return json_response(oip.SERVER)

    async def model(self, request: Request) -> Response:
        """What the model takes and gives."""
        self._known(request)
        return json_response(oip.metadata(self._gateway.spec, self._versions.routing))

    async def ready(self, request: Request) -> Response:
        """Whether the model, or a version of it, can be asked."""
        self._known(request)
        require_champion(self._gateway)
        return json_response({"name": self._gateway.spec.name, "ready": True})

    async def infer(self, body: bytes, call: Call) -> tuple[bytes, Pairs]:
        """Answer inputs as tensors."""
        version = self._known(call)
        inferred, ask = oip.read(body, call.headers.get(LENGTH, b"").decode("latin-1") or None)
        answers = await predictions(self._gateway, ask, call, version)
        written, length = oip.write(self._gateway.spec, self._versions.routing, inferred, answers)
        if length is None:
            return written, JSON
        header = (oip.LENGTH_HEADER.lower().encode(), str(length).encode())
        return written, [(b"content-type", b"application/octet-stream"), header]
