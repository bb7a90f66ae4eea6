"""The Open Inference Protocol over gRPC, for all workloads of a replica: a server of its own on the event loop.

https://github.com/kserve/open-inference-protocol (open_inference_grpc.proto). The model is the workload, its tensors
those of :mod:`serving.gateway.oip`, its metadata the same.

It does not go through Ray Serve's gRPC proxy, which is a process in Python before each replica; the proxies of HTTP
are HAProxy. All replicas of a node listen at one port (SO_REUSEPORT), and the kernel gives each new connection to one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from components.contracts.errors import UnavailableError
from components.telemetry import tracing
from serving.gateway import oip
from serving.gateway.answering import Gateway
from serving.gateway.oip_messages import MESSAGES, SERVICE, message
from serving.gateway.post import Call, internal, predictions
from serving.gateway.pressure import urgency_of
from serving.gateway.wire import Ask, RequestError

log = logging.getLogger(__name__)

CODES = {
    404: grpc.StatusCode.NOT_FOUND, 429: grpc.StatusCode.RESOURCE_EXHAUSTED, 503: grpc.StatusCode.UNAVAILABLE,
    500: grpc.StatusCode.INTERNAL,
}  # fmt: skip
"""Codes by the HTTP status of a refusal; every other is an argument's fault."""

OVERHEAD = 4
"""How many times its payloads a message may be: ids, keys and names beside small ones."""

LEAST_BYTES = 4 * 1024 * 1024
"""Bytes that a message may have in any case: gRPC's default."""

END_SECONDS = 5.0
"""How long calls under way are waited for when the server ends."""

FORMS = 256
"""Forms of responses (outputs, and how many answers) whose encoded description is kept."""

Method = Callable[[Any, Any], Awaitable[Any]]

_INFER = message("ModelInferResponse")


@asynccontextmanager
async def served(gateways: Sequence[Gateway], host: str, port: int) -> AsyncIterator[int]:
    """Answer at this address while the block lasts; gives the port, which is any free one where ``port`` is 0.

    Raises:
        UnavailableError: the address is taken, or none of this machine's.

    """
    most = max(g.spec.serve.max_batch * g.spec.payload.max_bytes for g in gateways)
    size = max(LEAST_BYTES, min(OVERHEAD * most, 2**31 - 1))
    server = grpc.aio.server(
        options=[("grpc.so_reuseport", 1), ("grpc.max_receive_message_length", size),
                 ("grpc.max_send_message_length", -1)],
    )  # fmt: skip
    server.add_generic_rpc_handlers((Models(gateways).handlers(),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        remedy = "the port is taken, or the address is none of this machine's: see COHOBATE_GATEWAY_GRPC_PORT"
        raise UnavailableError("gRPC", address, remedy) from error
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(END_SECONDS)


class Models:
    """The service: each workload's gateway as a model of its name."""

    def __init__(self, gateways: Sequence[Gateway]) -> None:
        self._gateways = {gateway.spec.name: gateway for gateway in gateways}
        self._traces = tracing.recording()
        self._heads: dict[Any, bytes] = {}

    def handlers(self) -> grpc.GenericRpcHandler:
        """What the server is given."""
        methods: dict[str, Method] = {
            "ServerLive": self.server_live, "ServerReady": self.server_ready, "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata, "ModelMetadata": self.model_metadata, "ModelInfer": self.infer,
        }  # fmt: skip
        assert all(f"{name}Request" in MESSAGES for name in methods)  # noqa: S101
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    _refusing(name, method),
                    request_deserializer=message(f"{name}Request").FromString,
                    # a response to inference is encoded already
                    response_serializer=None if name == "ModelInfer" else message(f"{name}Response").SerializeToString,
                )
                for name, method in methods.items()
            },
        )

    async def server_live(self, _: Any, __: Any) -> Any:
        """Whether the replica lives."""
        alive = all(g.versions.alive and g.telemetry.alive for g in self._gateways.values())
        return message("ServerLiveResponse")(live=alive)

    async def server_ready(self, _: Any, __: Any) -> Any:
        """Whether every workload has a champion."""
        ready = all(g.versions.routing.champion is not None for g in self._gateways.values())
        return message("ServerReadyResponse")(ready=ready)

    async def model_ready(self, request: Any, _: Any) -> Any:
        """Whether a workload, or a version of it, can be asked."""
        gateway = self._named(request.name)
        oip.loaded(gateway.versions.routing, request.version or None)
        return message("ModelReadyResponse")(ready=gateway.versions.routing.champion is not None)

    async def server_metadata(self, _: Any, __: Any) -> Any:
        """Which server this is."""
        told = oip.SERVER
        return message("ServerMetadataResponse")(name=told.name, version=told.version, extensions=told.extensions)

    async def model_metadata(self, request: Any, _: Any) -> Any:
        """What a workload takes and gives."""
        gateway = self._named(request.name)
        oip.loaded(gateway.versions.routing, request.version or None)
        told = oip.metadata(gateway.spec, gateway.versions.routing)
        tensors = [
            [{"name": t.name, "datatype": t.datatype, "shape": t.shape} for t in side]
            for side in (told.inputs, told.outputs)
        ]
        return message("ModelMetadataResponse")(
            name=told.name, versions=told.versions, platform=told.platform, inputs=tensors[0], outputs=tensors[1],
            properties=told.parameters,
        )  # fmt: skip

    async def infer(self, request: Any, context: Any) -> bytes:
        """Answer inputs: let in by urgency, through the same split, cascade and telemetry as over HTTP.

        Returns the response encoded.
        """
        gateway = self._named(request.model_name)
        headers = {k.encode(): v.encode("latin-1") for k, v in context.invocation_metadata() if isinstance(v, str)}
        version = oip.loaded(gateway.versions.routing, request.model_version or None)
        gateway.pressure.enter(urgency_of(headers.get(b"priority")))
        try:
            await asyncio.sleep(0)  # what came in at the same time is counted before any of it is answered
            ask = _asked(request)
            if not self._traces and b"traceparent" not in headers:
                answers = await predictions(gateway, ask, Call(headers, {}), version)
            else:
                text = {name.decode(): value.decode("latin-1") for name, value in headers.items()}
                with tracing.request("infer", text, **{"cohobate.workload": gateway.spec.name}):
                    answers = await predictions(gateway, ask, Call(headers, {}), version)
        finally:
            gateway.pressure.leave()
        oip.check_answered(answers)
        classes = oip.classes_of(gateway.versions.routing)
        known = oip.outputs(gateway.spec, classes, dimension := oip.dimension_of(gateway.versions.routing))
        names = tuple(o.name for o in request.outputs) or tuple(known)
        raw = [oip.pack(datatype, values(answers)) for datatype, _, values in (oip.column(known, n) for n in names)]
        tail = _INFER(
            model_name=gateway.spec.name, model_version=oip.answered_by(answers), id=request.id,
            raw_output_contents=raw,
        )  # fmt: skip
        encoded: bytes = tail.SerializeToString()
        return _described(known, names, len(answers), len(classes) or dimension, self._heads) + encoded

    def _named(self, name: str) -> Gateway:
        """The gateway of a model.

        Raises:
            RequestError: 404, there is no such model.

        """
        gateway = self._gateways.get(name)
        if gateway is None:
            raise RequestError(404, "no_model", f"there is no model {name!r}, only {', '.join(self._gateways)}")
        return gateway


def _described(
    known: Mapping[str, oip.Column], names: tuple[str, ...], answers: int, classes: int, kept: dict[Any, bytes]
) -> bytes:
    """The part of a response that says which tensors it has, encoded: the same for all responses of a form.

    Encoded messages one after the other are one message with the fields of both (Protocol Buffers, "Encoding").
    """
    form = (names, answers, classes, "value" in known, "vector" in known)
    if form not in kept:
        made = _INFER()
        for name in names:
            datatype, shape, _ = known[name]
            made.outputs.add(name=name, datatype=datatype, shape=[answers, *shape])
        if len(kept) >= FORMS:
            kept.clear()
        kept[form] = made.SerializeToString()
    return kept[form]


def _asked(request: Any) -> Ask:
    """A request as the gateway answers it: its tensors' elements are in ``contents``, or all of them raw."""
    columns: dict[str, list[bytes]] = {}
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise RequestError(400, "invalid_request", f"{len(request.inputs)} inputs have {len(raw)} raw contents")
    for n, tensor in enumerate(request.inputs):
        oip.check_input(tensor.name, tensor.datatype, columns)
        found = oip.split(memoryview(raw[n]), tensor.name) if raw else list(tensor.contents.bytes_contents)
        oip.check_shape(tensor.name, tensor.shape, len(found))
        columns[tensor.name] = found
    return oip.asked(columns, _parameters(request.parameters))


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in given.items()}
    return {name: getattr(given[name], choice) for name, choice in chosen.items() if choice is not None}


def _refusing(name: str, method: Method) -> Method:
    """The same, with refusals as gRPC's statuses: the code as over HTTP begins their text."""

    async def call(request: Any, context: Any) -> Any:
        try:
            return await method(request, context)
        except RequestError as error:
            what, headers = error.problem, error.headers
        except Exception as error:
            log.exception("%s failed", name)
            what, headers = internal(error), {}
        trailing = tuple((n.lower(), v) for n, v in headers.items())
        code = CODES.get(what.status, grpc.StatusCode.INVALID_ARGUMENT)
        return await context.abort(code, f"{what.title}: {what.detail}", trailing_metadata=trailing)

    return call
