"""What managed services ask their containers: SageMaker's ``/invocations`` and Vertex AI's instances and predictions.

SageMaker, "Use Your Own Inference Code with Hosting Services": ``GET /ping`` and ``POST /invocations``, whose body is
of any type; a batch transform sends JSON Lines and wants a line for a line. Vertex AI, "Custom container requirements
for prediction": ``{"instances": […], "parameters": {…}}`` is answered by ``{"predictions": […]}``, one for each, in
order; TensorFlow Serving and MLflow read the same.

=========================================  ======================================================================
``Content-Type``                           what it holds
=========================================  ======================================================================
``application/json``                       ``{"instances": […]}``, or a request as ``/v1/predict`` takes it
``application/jsonlines``, ``…/x-ndjson``  a line an input, each as ``/v1/predict`` takes one alone
``text/plain``, ``text/csv``               one input, its payload the text
anything else                              one input, its payload the body's bytes (an image, audio, a file)
=========================================  ======================================================================

An instance is a string (text), ``{"b64": "…"}`` (bytes in base64), or any other JSON value, which is the payload.
``parameters``: ``allow_defer``, ``priority``, and the lists ``ids`` and ``keys`` beside the instances. Others than the
student may be asked about lines where each of them says ``allow_defer``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from serving.gateway.wire import (
    Answered,
    Ask,
    Item,
    Key,
    Name,
    Raw,
    RequestError,
    Urgency,
    check_depth,
    decoded,
    lines,
    read,
    undecodable,
    unpacked64,
    written,
)

LINES = ("application/jsonlines", "application/x-ndjson", "application/x-jsonlines")
"""Media types of JSON Lines, of which the first is what SageMaker says."""

INSTANCES = b'"instances"'


class Parameters(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a request says beside its instances. ``ids`` and ``keys``: one for each, null where there is none."""

    allow_defer: bool = False
    priority: Urgency | None = None
    ids: list[Name | None] | None = None
    keys: list[Key | None] | None = None


class Instances(msgspec.Struct, kw_only=True):
    """Several inputs at once; further fields, which some clients send, mean nothing."""

    instances: Annotated[list[Any], Meta(min_length=1)]
    parameters: Parameters = msgspec.field(default_factory=Parameters)


_instances = msgspec.json.Decoder(Instances)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def media_type(content_type: bytes) -> str:
    """A media type without its parameters.

    >>> media_type(b"Text/CSV; charset=utf-8")
    'text/csv'
    """
    return content_type.decode("latin-1").partition(";")[0].strip().lower()


def ask(body: bytes, content_type: bytes) -> tuple[Ask, str]:
    """A request as the gateway answers it, and how: ``one``, ``many`` or ``lines``.

    Raises:
        RequestError: 400 for what is no JSON where it should be, 422 for what is no request.

    """
    kind = media_type(content_type)
    if kind in LINES:
        given = [text for text in body.splitlines() if text.strip()]
        if not given:
            raise RequestError(422, "invalid_request", "there is no line in the body")
        asks = [line(n, text) for n, text in enumerate(given, start=1)]
        return Ask([a.items[0] for a in asks], all(a.allow_defer for a in asks)), "lines"
    if kind not in ("application/json", ""):
        return Ask([Raw(raw=body)], alone=True), "one"
    if INSTANCES in body and "instances" in decoded(_fields.decode, body):
        found = _of_instances(decoded(_instances.decode, body))
        check_depth(body, found.items)
        return found, "many"
    found = read(body)
    return found, "one" if found.alone else "many"


def line(number: int, text: bytes) -> Ask:
    """One input of JSON Lines.

    Raises:
        RequestError: it is none; the line is named.

    """
    try:
        found = read(text)
    except RequestError as error:
        raise RequestError.of(error.problem, f"line {number}: ") from error
    if not found.alone:
        raise RequestError(422, "invalid_request", f"line {number}: a line is one input, not a batch")
    return found


def _of_instances(request: Instances) -> Ask:
    count, said = len(request.instances), request.parameters
    for name, given in (("ids", said.ids), ("keys", said.keys)):
        if given is not None and len(given) != count:
            detail = f"parameters.{name} has {len(given)} elements for {count} instances"
            raise RequestError(422, "invalid_request", detail)
    ids, keys = said.ids or [None] * count, said.keys or [None] * count
    items = [_instance(n, *one) for n, one in enumerate(zip(request.instances, ids, keys, strict=True))]
    return Ask(items, said.allow_defer, said.priority)


def _instance(number: int, value: Any, id: str | None, key: str | None) -> Item:
    if isinstance(value, str):
        return Item(id=id, key=key, text=value)
    if not (isinstance(value, dict) and value.keys() == {"b64"}):
        return Item(id=id, key=key, json=value)
    return Raw(id=id, key=key, raw=unpacked64(value["b64"], f"instances[{number}].b64", undecodable))


def answer(answers: Sequence[Answered], form: str) -> bytes:
    """The body of an answer, in the form that was asked in.

    Raises:
        RequestError: there was one input alone, and it was refused.

    """
    return lines(answers) if form == "lines" else written(answers, alone=form == "one")
