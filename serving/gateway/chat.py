"""A workload as a chat model, in the form of OpenAI's chat completions: what it says is the class.

https://platform.openai.com/docs/api-reference/chat. So whatever can be pointed at a chat model (an agent framework, an
SDK) can ask a student. The last message of the user is the input: its text, or the bytes of the one image or sound in
it. The answer's content is the class (or the number, or the JSON array of the classes), one token as far as
``logprobs`` goes: its log probability is the student's, ``top_logprobs`` are those of the other classes. The whole
answer as ``/v1/predict`` gives it is beside the choices, as ``cohobate``.

``model`` is the workload, or ``workload@version`` for one loaded version past the split. ``safety_identifier`` or
``user`` is the input's key, ``metadata`` may name its ``id``, ``key`` and ``consent``. ``allow_defer`` is a field of
ours (SDKs send it as an extra one). What a student cannot do is refused, not passed over in silence: several choices,
tools that must be called, an answer in JSON. ``usage`` counts no tokens: no language model was asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from components.contracts.spec import Spec
from serving.gateway.wire import (
    Answered,
    Ask,
    Item,
    Raw,
    RequestError,
    decoded,
    encode,
    raise_for,
    undecodable,
    unpacked64,
)

LEAST = -9999.0
"""The log probability of what has none, as chat servers write it: JSON knows no infinity."""

EVENTS = b"text/event-stream"
"""Media type of a streamed answer."""


class Part(msgspec.Struct, kw_only=True):
    """A part of a message: a text, an image as a ``data:`` URL, or a sound in base64."""

    type: str
    text: str = ""
    image_url: dict[str, Any] = {}
    input_audio: dict[str, Any] = {}


class Message(msgspec.Struct, kw_only=True):
    """One message; further fields mean nothing here."""

    role: str
    content: str | list[Part] | None = None


class StreamOptions(msgspec.Struct, kw_only=True):
    """``include_usage``: whether a streamed answer ends with a chunk that has the usage."""

    include_usage: bool = False


class Completion(msgspec.Struct, kw_only=True):
    """A request for a completion. What shapes how a language model samples (temperature, seed, …) means nothing."""

    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    allow_defer: bool = False


class TopLogprob(msgspec.Struct, kw_only=True):
    """A class that might have been said. ``logprob``: natural logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob, kw_only=True):
    """The class that was said, and the most probable ones."""

    top_logprobs: list[TopLogprob]


class Logprobs(msgspec.Struct, kw_only=True):
    """Of the one token that was said."""

    content: list[TokenLogprob]
    refusal: None = None


class Said(msgspec.Struct, kw_only=True):
    """What is said."""

    role: str = "assistant"
    content: str
    refusal: None = None


class Choice(msgspec.Struct, kw_only=True):
    """The one choice."""

    index: int = 0
    message: Said
    logprobs: Logprobs | None = None
    finish_reason: str = "stop"


class Usage(msgspec.Struct, kw_only=True):
    """Tokens of a language model: none."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class Completed(msgspec.Struct, kw_only=True):
    """An answer. ``model``: workload and version that answered; ``cohobate``: the answer of ``/v1/predict``."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage = msgspec.field(default_factory=Usage)
    cohobate: Answered


class Chunk(msgspec.Struct, kw_only=True):
    """A part of a streamed answer. ``usage``: absent unless it was asked for, null in all chunks but the last."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage | UnsetType | None = UNSET
    cohobate: Answered | UnsetType = UNSET


class Offered(msgspec.Struct, kw_only=True):
    """A model that can be asked."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "cohobate"


class AllOffered(msgspec.Struct, kw_only=True):
    """The models that can be asked."""

    object: str = "list"
    data: list[Offered]


_completion = msgspec.json.Decoder(Completion)


def offered(name: str, versions: Sequence[str]) -> AllOffered:
    """The workload as a model, and each loaded version as one."""
    return AllOffered(data=[Offered(id=name), *(Offered(id=f"{name}@{version}") for version in versions)])


def read(spec: Spec, body: bytes) -> tuple[Completion, Ask, str | None]:
    """A request as it is, as the gateway answers it, and the version that is asked past the split.

    Raises:
        RequestError: 404 for another model; 400 for no JSON, 422 for what is no request that a student can answer.

    """
    request = decoded(_completion.decode, body)
    name, _, version = request.model.partition("@")
    if name != spec.name:
        raise RequestError(404, "no_model", f"the model is {spec.name!r}, or {spec.name}@VERSION")
    if spec.task == "embedding":
        raise _cannot("model", f"{spec.name} gives vectors, which no chat says: ask /v1/embeddings")
    if request.n not in (None, 1):
        raise _cannot("n", "a student has one answer: leave n away")
    if request.tool_choice not in (None, "auto", "none"):
        raise _cannot("tool_choice", "a student calls no tools: leave tool_choice away")
    if request.response_format is not None and request.response_format.get("type") != "text":
        raise _cannot("response_format", "a student says the class alone: its type must be text")
    if spec.task == "regression" and request.logprobs:
        raise _cannot("logprobs", "a number has no log probabilities: its scale is in the answer's cohobate.soft_label")
    if spec.task == "multilabel" and request.logprobs:
        raise _cannot("logprobs", "a set is not one token: each class's chance is in the answer's cohobate.soft_label")
    if spec.task == "tagging" and request.logprobs:
        raise _cannot("logprobs", "spans have no log probabilities: those of tags are in the answer's cohobate.tokens")
    said = request.metadata or {}
    key = said.get("key") or request.safety_identifier or request.user
    item = _item(request.messages, said.get("id") or None, key or None, said.get("consent") or None)
    return request, Ask([item], request.allow_defer, None, True), version or None


def _cannot(field: str, detail: str) -> RequestError:
    return RequestError(422, "not_supported", f"{field}: {detail}")


def _item(messages: Sequence[Message], id: str | None, key: str | None, consent: str | None) -> Item:
    for name, value, most in (("id", id, 256), ("key", key, 256), ("consent", consent, 64)):
        if value is not None and len(value) > most:
            raise RequestError(422, "invalid_request", f"the {name} has at most {most} characters")
    asked = next((m.content for m in reversed(messages) if m.role == "user"), None)
    if asked is None:
        raise RequestError(422, "invalid_request", "messages: there is none of the role user with a content")
    if isinstance(asked, str):
        return Item(id=id, key=key, consent=consent, text=asked)
    files = [part for part in asked if part.type != "text"]
    if not files:
        return Item(id=id, key=key, consent=consent, text="\n".join(part.text for part in asked))
    if len(files) > 1:
        raise _cannot("messages", f"the last message has {len(files)} images or sounds: one is an input")
    return Raw(id=id, key=key, consent=consent, raw=_file(files[0]))


def _file(part: Part) -> bytes:
    if part.type == "image_url":
        url = part.image_url.get("url")
        head, _, found = url.partition(",") if isinstance(url, str) else ("", "", "")
        if not (head.startswith("data:") and head.endswith(";base64")):
            raise _cannot("messages", "an image comes as a data URL in base64: none is fetched")
        data: Any = found
    elif part.type == "input_audio":
        data = part.input_audio.get("data")
    else:
        raise _cannot("messages", f"a part of type {part.type!r} is no input: give text, image_url or input_audio")
    return unpacked64(data, f"the part {part.type}", undecodable)


def write(spec: Spec, request: Completion, answer: Answered, now: float) -> tuple[bytes, bytes]:
    """The body of an answer and its media type; a streamed one is whole, since it was there at once.

    Raises:
        RequestError: the input was refused.

    """
    raise_for(answer.error)
    said = format(answer.soft_label["value"], ".10g") if spec.task == "regression" else answer.label
    top = (request.top_logprobs or 0) if request.logprobs else None
    logprobs = _logprobs(said or "", answer.soft_label, top) if top is not None else None
    done = Completed(
        id=f"chatcmpl-{answer.request_id}",
        created=int(now),
        model=f"{spec.name}@{answer.model_version}",
        choices=[Choice(message=Said(content=said or ""), logprobs=logprobs)],
        cohobate=answer,
    )
    if not request.stream:
        return encode(done), b"application/json"
    return b"".join(_event(chunk) for chunk in _chunks(done, request)) + b"data: [DONE]\n\n", EVENTS


def _logprobs(said: str, soft: dict[str, float], top: int) -> Logprobs:
    def of(name: str) -> dict[str, Any]:
        share = soft[name]
        return {"token": name, "logprob": math.log(share) if share > 0.0 else LEAST, "bytes": list(name.encode())}

    most = sorted(soft, key=lambda name: -soft[name])[:top]
    return Logprobs(content=[TokenLogprob(**of(said), top_logprobs=[TopLogprob(**of(name)) for name in most])])


def _chunks(done: Completed, request: Completion) -> list[Chunk]:
    choice = done.choices[0]
    deltas: list[tuple[dict[str, Any], Logprobs | None, str | None]] = [
        ({"role": "assistant", "content": ""}, None, None),
        ({"content": choice.message.content}, choice.logprobs, None),
        ({}, None, "stop"),
    ]
    counted = request.stream_options is not None and request.stream_options.include_usage
    usage = None if counted else UNSET
    chunks = [
        Chunk(
            id=done.id, created=done.created, model=done.model, usage=usage,
            choices=[{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}],
        )
        for delta, logprobs, reason in deltas
    ]  # fmt: skip
    chunks[-1].cohobate = done.cohobate
    if counted:
        chunks.append(Chunk(id=done.id, created=done.created, model=done.model, choices=[], usage=done.usage))
    return chunks


def _event(chunk: Chunk) -> bytes:
    return b"data: " + encode(chunk) + b"\n\n"
