"""The Open Inference Protocol, version 2, over HTTP, as KServe and Triton speak it, with the binary tensor extension.

https://github.com/kserve/open-inference-protocol (inference_rest.yaml) and Triton's "Binary Tensor Data Extension".

A workload is a model of this form, N inputs at once:

======================  =======  ========  =================================================================
tensor                  type     shape     meaning
======================  =======  ========  =================================================================
``payload`` (in)        BYTES    [N]       the inputs' bytes (in JSON: text in UTF-8)
``id``, ``key`` (in)    BYTES    [N]       optional: identity, and the entity that decides the arm
``consent`` (in)        BYTES    [N]       optional: the terms under which it may be labelled and trained on
``label``               BYTES    [N]       the answer (multilabel: a JSON array); empty where there is an error
``confidence``          FP64     [N]
``probabilities``       FP64     [N, C]    of classes: in the order of the metadata's ``classes_json``
``value``, ``scale``    FP64     [N]       regression
``vector``              FP32     [N, D]    embedding, of length 1; with ``scale`` (FP64, [N])
``version``, ``arm``    BYTES    [N]       who answered
``defer``               BOOL     [N]       the student is not sure enough
``error``               BYTES    [N]       why there is no answer; empty where there is one
======================  =======  ========  =================================================================

Parameters of a request: ``allow_defer`` (bool), ``priority`` (0 to 7, as in RFC 9218), ``binary_data_output``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from components.contracts.spec import Spec
from serving.gateway.wire import Answered, Ask, Item, Raw, RequestError, raise_for
from serving.replica.loaded_versions import Routing

LENGTH_HEADER = "Inference-Header-Content-Length"
"""Bytes of JSON at the start of a body; what follows are the tensors' bytes."""

INPUTS = ("payload", "id", "key", "consent")

MOST = {"id": 256, "key": 256, "consent": 64}
"""Characters of one element, as in the native interface."""

Count = Annotated[int, Meta(ge=0)]


class Tensor(msgspec.Struct, kw_only=True):
    """A tensor of a request: its elements are in ``data``, or behind the JSON (parameter ``binary_data_size``)."""

    name: str
    shape: list[Count]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | UnsetType = UNSET


class Wanted(msgspec.Struct, kw_only=True):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct, kw_only=True):
    """A request for inference."""

    id: str | None = None
    inputs: Annotated[list[Tensor], Meta(min_length=1)]
    outputs: list[Wanted] | None = None
    parameters: dict[str, Any] = {}


class Output(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A tensor of an answer."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}
    data: list[Any] | UnsetType = UNSET


class InferResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An answer; ``model_version`` is empty where the inputs were answered by more than one."""

    model_name: str
    model_version: str = ""
    id: str | UnsetType = UNSET
    outputs: list[Output]


class TensorMetadata(msgspec.Struct, kw_only=True):
    """A tensor's name, type and shape; -1 stands for any number."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, kw_only=True):
    """What a model takes and gives.

    ``parameters``: ``classes_json`` are the classes' names as a JSON list; ``classes`` are the same with commas between
    them, which a name may hold too; ``task``, ``space``.
    """

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, str]


class ServerMetadata(msgspec.Struct, kw_only=True):
    """Which server this is, and what of the protocol's extensions it knows."""

    name: str
    version: str
    extensions: list[str]


_decoder = msgspec.json.Decoder(InferRequest)
_encode = msgspec.json.Encoder().encode


SERVER = ServerMetadata(name="cohobate", version="1", extensions=["binary_tensor_data"])


def read(body: bytes, header_length: str | None) -> tuple[InferRequest, Ask]:
    """A request, as it is and as the gateway answers it.

    Raises:
        RequestError: 400, with what is wrong.

    """
    length = len(body) if header_length is None else _length(header_length, len(body))
    try:
        request = _decoder.decode(memoryview(body)[:length])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(str(error)) from error
    return request, asked(_columns(request.inputs, memoryview(body)[length:]), request.parameters)


def asked(columns: Mapping[str, Sequence[bytes]], parameters: Mapping[str, Any]) -> Ask:
    """A request's inputs, by the names of their tensors, as the gateway answers them.

    Raises:
        RequestError: 400, with what is wrong.

    """
    if "payload" not in columns:
        raise _bad("the input 'payload' is missing")
    payloads = columns["payload"]
    if not payloads or any(len(c) != len(payloads) for c in columns.values()):
        raise _bad("the inputs must have equally many elements, at least one")
    items = [
        _item(*row) for row in zip(payloads, *(columns.get(n, [b""] * len(payloads)) for n in INPUTS[1:]), strict=True)
    ]
    return Ask(items, parameters.get("allow_defer") is True, _priority(parameters), False)


def _length(text: str, size: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > size:
        raise _bad(f"{LENGTH_HEADER} must be a number of at most the body's {size} bytes")
    return int(text)


def _priority(parameters: Mapping[str, Any]) -> int | None:
    given = parameters.get("priority")
    if given is None:
        return None
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise _bad("the parameter 'priority' must be a number from 0, the most urgent, to 7")
    return min(given, 7)


def _columns(tensors: Sequence[Tensor], binary: memoryview) -> dict[str, list[bytes]]:
    columns: dict[str, list[bytes]] = {}
    at = 0
    for tensor in tensors:
        check_input(tensor.name, tensor.datatype, columns)
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            found = _flat(tensor)
        elif isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= len(binary) - at:
            found, at = split(binary[at : at + size], tensor.name), at + size
        else:
            raise _bad(f"binary_data_size of {tensor.name!r} is {size!r}, and {len(binary) - at} bytes are left")
        check_shape(tensor.name, tensor.shape, len(found))
        columns[tensor.name] = found
    if at != len(binary):
        raise _bad(f"{len(binary) - at} bytes behind the inputs' tensors belong to none")
    return columns


def check_input(name: str, datatype: str, before: Mapping[str, Any]) -> None:
    """Refuse an input that is none, or is given twice.

    Raises:
        RequestError: 400.

    """
    if name not in INPUTS or name in before:
        raise _bad(f"the input {name!r} is not one of {', '.join(INPUTS)}, or is given twice")
    if datatype != "BYTES":
        raise _bad(f"the input {name!r} has type BYTES, not {datatype!r}")


def check_shape(name: str, shape: Sequence[int], elements: int) -> None:
    """Refuse a shape that is not that of a column of so many elements.

    Raises:
        RequestError: 400.

    """
    if prod(shape) != elements or not 1 <= len(shape) <= 2 or (len(shape) == 2 and shape[1] != 1):
        raise _bad(f"the input {name!r} has shape {list(shape)} and {elements} elements: it must be [N]")


def _flat(tensor: Tensor) -> list[bytes]:
    rows = tensor.data if tensor.data is not UNSET else []
    flat = [cell for row in rows for cell in (row if isinstance(row, list) else [row])]
    if not all(isinstance(cell, str) for cell in flat):
        raise _bad(f"the input {tensor.name!r} has elements that are no strings")
    return [cell.encode() for cell in flat]


def split(data: memoryview, name: str) -> list[bytes]:
    """Elements of a BYTES tensor: each has its length before it, four bytes, little end first."""
    found, at = [], 0
    while at < len(data):
        if at + 4 > len(data) or at + 4 + (size := struct.unpack_from("<I", data, at)[0]) > len(data):
            raise _bad(f"the input {name!r} is cut within an element")
        found.append(bytes(data[at + 4 : at + 4 + size]))
        at += 4 + size
    return found


def _item(payload: bytes, id: bytes, key: bytes, consent: bytes) -> Item:
    return Raw(id=_name("id", id), key=_name("key", key), consent=_name("consent", consent), raw=payload)


def _name(what: str, data: bytes) -> str | None:
    try:
        name = data.decode()
    except UnicodeDecodeError as error:
        raise _bad(f"the input {what!r} is text in UTF-8: {error}") from error
    if len(name) > MOST[what]:
        raise _bad(f"the input {what!r} has at most {MOST[what]} characters")
    return name or None


def _bad(detail: str) -> RequestError:
    return RequestError(400, "invalid_request", detail)


Column = tuple[str, Sequence[int], Callable[[Sequence[Answered]], list[Any]]]
"""Type, shape of one element, and values (flat) of an output."""


def outputs(spec: Spec, classes: Sequence[str], dimension: int = 0) -> dict[str, Column]:
    """The outputs of a workload by name; ``dimension``: of an embedding's vectors."""
    made: dict[str, Column] = {
        "label": ("BYTES", (), lambda answers: [a.label or "" for a in answers]),
        "confidence": ("FP64", (), lambda answers: [a.confidence or 0.0 for a in answers]),
    }
    if spec.task == "regression":
        for name in ("value", "scale"):
            made[name] = ("FP64", (), lambda answers, n=name: [a.soft_label.get(n, 0.0) for a in answers])  # type: ignore[misc]
    elif spec.task == "tagging":  # a text has as many tokens as it has
        made["tokens"] = ("BYTES", (), lambda answers: [_encode(a.tokens or []).decode() for a in answers])
    elif spec.task == "embedding":
        none = [0.0] * dimension
        made["vector"] = (
            "FP32", (dimension,), lambda answers: [v for a in answers for v in a.soft_label.get("vector", none)],
        )  # fmt: skip
        made["scale"] = ("FP64", (), lambda answers: [a.soft_label.get("scale", 0.0) for a in answers])
    else:
        made["probabilities"] = (
            "FP64", (len(classes),), lambda answers: [a.soft_label.get(c, 0.0) for a in answers for c in classes],
        )  # fmt: skip
    return made | {
        "version": ("BYTES", (), lambda answers: [a.model_version or "" for a in answers]),
        "arm": ("BYTES", (), lambda answers: [a.arm or "" for a in answers]),
        "defer": ("BOOL", (), lambda answers: [a.defer for a in answers]),
        "answered_by": ("BYTES", (), lambda answers: [a.answered_by or "" for a in answers]),
        "degraded": ("BOOL", (), lambda answers: [a.degraded for a in answers]),
        "error": (
            "BYTES",
            (),
            lambda answers: [f"{a.error.title}: {a.error.detail}" if a.error else "" for a in answers],
        ),
    }


def write(spec: Spec, routing: Routing, request: InferRequest, answers: Sequence[Answered]) -> tuple[bytes, int | None]:
    """The body of an answer, and how much of it is JSON; None where all of it is.

    Raises:
        RequestError: 400, an output is asked for that there is not; or, where no input was answered, the first's error.

    """
    check_answered(answers)
    known = outputs(spec, classes_of(routing), dimension_of(routing))
    wanted = request.outputs or [Wanted(name=name) for name in known]
    all_binary = request.parameters.get("binary_data_output") is True
    made, tail = [], bytearray()
    for want in wanted:
        datatype, shape, values = column(known, want.name)
        out = Output(name=want.name, datatype=datatype, shape=[len(answers), *shape])
        data = values(answers)
        if want.parameters.get("binary_data", all_binary) is True:
            packed = pack(datatype, data)
            out.parameters = {"binary_data_size": len(packed)}
            tail += packed
        else:
            out.data = data
        made.append(out)
    response = InferResponse(
        model_name=spec.name,
        model_version=answered_by(answers),
        id=request.id if request.id is not None else UNSET,
        outputs=made,
    )
    head = _encode(response)
    return (head + tail, len(head)) if tail or any(o.parameters for o in made) else (head, None)


def check_answered(answers: Sequence[Answered]) -> None:
    """Refuse a request of which no input was answered.

    Raises:
        RequestError: the first input's error.

    """
    if all(a.error is not None for a in answers):
        raise_for(answers[0].error)


def column(known: Mapping[str, Column], name: str) -> Column:
    """The output of this name.

    Raises:
        RequestError: 400, there is none.

    """
    if name not in known:
        raise _bad(f"there is no output {name!r}: there are {', '.join(known)}")
    return known[name]


def answered_by(answers: Sequence[Answered]) -> str:
    """The version that answered; empty where it was more than one."""
    versions = {a.model_version for a in answers if a.model_version is not None}
    return versions.pop() if len(versions) == 1 else ""


def pack(datatype: str, data: list[Any]) -> bytes:
    """A tensor's bytes, as the binary extension and gRPC have them."""
    if datatype == "BYTES":
        encoded = [value.encode() for value in data]
        return b"".join(struct.pack("<I", len(e)) + e for e in encoded)
    if datatype == "FP32":
        return struct.pack(f"<{len(data)}f", *data)
    return struct.pack(f"<{len(data)}d", *data) if datatype == "FP64" else bytes(map(bool, data))


def classes_of(routing: Routing) -> tuple[str, ...]:
    """The classes that ``probabilities`` has: the champion's, in its order."""
    return routing.champion.student.card.classes if routing.champion is not None else ()


def dimension_of(routing: Routing) -> int:
    """The numbers of the champion's vectors; 0 of what gives none."""
    return routing.champion.student.card.dimension if routing.champion is not None else 0


def versions_of(routing: Routing) -> list[str]:
    """The versions that can be asked."""
    return [loaded.ref.version for loaded in (routing.champion, routing.candidate) if loaded is not None]


def loaded(routing: Routing, version: str | None) -> str | None:
    """The version that is asked, if one is.

    Raises:
        RequestError: 404, it is not loaded here.

    """
    if version is not None and version not in versions_of(routing):
        raise RequestError(404, "no_version", f"version {version!r} is not loaded here")
    return version


def metadata(spec: Spec, routing: Routing) -> ModelMetadata:
    """What the workload takes and gives."""
    classes = classes_of(routing)
    space = routing.champion.student.card.space if routing.champion is not None else ""
    return ModelMetadata(
        name=spec.name,
        versions=versions_of(routing),
        platform="onnxruntime_onnx",
        inputs=[TensorMetadata(name=name, datatype="BYTES", shape=[-1]) for name in INPUTS],
        outputs=[
            TensorMetadata(name=name, datatype=datatype, shape=[-1, *shape])
            for name, (datatype, shape, _) in outputs(spec, classes, dimension_of(routing)).items()
        ],
        parameters={
            "task": spec.task,
            "space": space,
            "classes": ",".join(classes),
            "classes_json": _encode(list(classes)).decode(),
        },
    )
