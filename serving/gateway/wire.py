"""What goes over HTTP: requests, answers and problems (RFC 9457), read and written by msgspec.

``Single`` and ``Batch`` are the two forms of a request as the OpenAPI document shows them; :class:`Body` is both, as
it is read, so that a request is parsed once and whatever is wrong with it is told about the form that was meant.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from components.contracts.errors import RecordError
from components.contracts.records import LATEST_TIME, Span, Token, json_bytes

PROBLEM = "application/problem+json"
"""Media type of an error's body."""

MAX_DEPTH = 64
"""JSON nested deeper than this is refused: no payload of sense is, and every reader downstream recurses over it."""

PRIORITY = 3
"""Urgency of a request that names none (RFC 9218: 0 is the most urgent, 7 the least)."""

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Key = Annotated[str, Meta(max_length=256)]
Terms = Annotated[str, Meta(min_length=1, max_length=64)]
Urgency = Annotated[int, Meta(ge=0, le=7)]


_OF_AN_INPUT = partial(RecordError, "undecodable")


def unpacked64(text: Any, what: str, refusal: Callable[[str], Exception]) -> bytes:
    """The bytes of a base64 text; ``refusal`` makes of a reason what is raised where it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise refusal(f"{what} is not base64: {error}") from error


class Problem(msgspec.Struct, kw_only=True):
    """Why something was not answered (RFC 9457); ``title`` is a stable code, ``detail`` is for people."""

    title: str
    status: int
    detail: str


class Item(msgspec.Struct, forbid_unknown_fields=True):
    """One input: exactly one of ``payload`` (base64), ``text`` and ``json``.

    ``id``: identity, made up when absent; ``key``: the entity, which decides the arm, by default the id; ``time``:
    event time in Unix seconds, by default now; ``consent``: the terms under which it may be labelled and trained on.
    """

    id: Name | None = None
    key: Key | None = None
    time: Annotated[float, Meta(gt=0)] | None = None
    consent: Terms | None = None
    payload: Annotated[str, Meta(description="The bytes, in base64.")] | UnsetType = UNSET
    text: str | UnsetType = UNSET
    json: Annotated[Any, Meta(description="Any JSON value.")] = UNSET

    def content(self) -> bytes:
        """The payload's bytes; JSON is written out again, so that equal values are equal content.

        Raises:
            RecordError: ``payload`` is not base64.

        """
        if self.text is not UNSET:
            return self.text.encode()
        if self.payload is UNSET:
            return json_bytes(self.json)
        return unpacked64(self.payload, "payload", _OF_AN_INPUT)

    def forms(self) -> int:
        """How many of the three forms of a payload are given."""
        return (self.payload is not UNSET) + (self.text is not UNSET) + (self.json is not UNSET)


class Raw(Item, kw_only=True):
    """An input whose payload came as it is."""

    raw: bytes = b""

    def content(self) -> bytes:
        """The payload's bytes."""
        return self.raw


class Single(Item, kw_only=True):
    """One input alone; its answer comes alone, and a refusal as the response's own status.

    ``allow_defer``: where the student is not sure, those that the workload defers to may be asked, which is slow.
    ``priority``: urgency from 0, the most urgent, to 7, as in the header ``Priority`` (RFC 9218), which it overrides.
    """

    allow_defer: bool = False
    priority: Urgency | None = None


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    """Several inputs, each answered or refused on its own; the other fields as for one alone."""

    inputs: Annotated[list[Item], Meta(min_length=1)]
    allow_defer: bool = False
    priority: Urgency | None = None


class Body(Single, kw_only=True):
    """A request in either form."""

    inputs: Annotated[list[Item], Meta(min_length=1)] | UnsetType = UNSET


class LaterBody(Body, kw_only=True):
    """A request, in either form, whose answer comes later.

    ``callback``: where the answer is sent, below an address that the workload allows; ``callback_mode``: as which form
    of a CloudEvent.
    """

    callback: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    callback_mode: Literal["structured", "binary"] = "structured"


class Ask(msgspec.Struct, frozen=True):
    """A request as the gateway answers it. ``priority`` is None where the body names none."""

    items: Sequence[Item]
    allow_defer: bool = False
    priority: int | None = None
    alone: bool = False


class Answered(msgspec.Struct):
    """The answer to one input, or the ``error`` why there is none.

    ``label``: the class, the value, of multilabel the set of classes as a JSON array, of tagging the spans as one.
    ``soft_label``: probabilities by class, or ``value`` and ``scale`` for regression, or ``vector`` (of length 1) and
    ``scale`` for embedding; empty for tagging, which has ``spans`` of the text and ``tokens`` with the probability of
    each tag. ``defer``: the student is not sure enough; ``answered_by`` says whose label, confidence and soft label
    these are (``neighbour``: the teacher's of the nearest input that it was asked about). ``degraded``: others were to
    be asked about this input, and did not answer: it is the student's own, or a neighbour's. ``novelty``: p-value in
    [0, 1] of the input's likeness to what the version knows, near 0 where it is unlike; null where it tells none.
    """

    id: str
    request_id: str
    label: str | None = None
    confidence: float | None = None
    soft_label: dict[str, Any] = {}
    model_version: str | None = None
    snapshot: str | None = None
    teacher: str | None = None
    arm: Literal["champion", "candidate"] | None = None
    defer: bool = False
    defer_reason: str | None = None
    degraded: bool = False
    answered_by: Literal["student", "expert", "teacher", "neighbour"] | None = None
    error: Problem | None = None
    novelty: float | None = None
    spans: Sequence[Span] | UnsetType = UNSET
    tokens: Sequence[Token] | UnsetType = UNSET


class Answers(msgspec.Struct):
    """Answers in the order of the inputs."""

    predictions: list[Answered]


class AcceptedRequest(msgspec.Struct):
    """A request that was accepted, and where its answer will be."""

    id: str
    location: str


class LaterRequest(msgspec.Struct, kw_only=True):
    """What became of a request that is answered later.

    ``predictions``: the answers in the order of the inputs, once there are; ``error``: why there will be none.
    ``callback``: whether the answer was sent; null where none was asked for.
    """

    id: str
    workload: str
    status: Literal["accepted", "answered", "failed"]
    accepted_at: float
    answered_at: float | None = None
    predictions: list[Answered] = []
    error: Problem | None = None
    callback: Literal["waiting", "delivered", "given_up"] | None = None


class TruthItem(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What is true of one input, named by its ``id`` or by the ``request_id`` of an answer to it.

    A client leaves out what is not given: a gateway of before a field refuses a body that names it.

    ``label`` for classification, ``value`` for regression, ``labels`` for multilabel, ``spans`` for tagging (an empty
    list where there is none, no two of which overlap); ``source``: who says so; ``known_at``: when it became known, by
    default now; ``time``: event time of the input, by default ``known_at`` (both Unix seconds). Of several truths of
    one input the one that was known last counts.
    """

    source: Name
    id: Name | None = None
    request_id: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    label: Name | None = None
    value: float | None = None
    labels: list[Name] | None = None
    time: Annotated[float, Meta(gt=0, le=LATEST_TIME)] | None = None
    known_at: Annotated[float, Meta(gt=0, le=LATEST_TIME)] | None = None
    spans: list[Span] | None = None


class TruthBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Several truths, each taken or refused on its own."""

    truths: Annotated[list[TruthItem], Meta(min_length=1)]


class Accepted(msgspec.Struct):
    """Whether a truth was taken, and of which input; ``error``: why not."""

    id: str | None
    accepted: bool
    error: Problem | None = None


class AllAccepted(msgspec.Struct):
    """What became of truths, in their order."""

    truths: list[Accepted]


class Version(msgspec.Struct, kw_only=True):
    """A version that a replica has loaded. ``defer_below``: its limit in force; above 1 it defers every answer.

    ``novelty``: the p-value of novelty at or below which it defers; null where the spec sets none, or it tells none.
    """

    version: str
    digest: str
    snapshot: str
    teacher: str
    space: str
    classes: list[str]
    precision: str
    defer_below: float
    novelty: float | None = None


class ColdStart(msgspec.Struct, kw_only=True):
    """Seconds from the start of the replica's process; None for what has not come yet."""

    ready_seconds: float | None
    first_answer_seconds: float | None


class Model(msgspec.Struct, kw_only=True):
    """What a replica serves. ``weight``: the candidate's share in force; ``failed``: artifacts that do not load."""

    workload: str
    replica: str
    revision: int
    champion: Version | None
    candidate: Version | None
    weight: float
    shadow: bool
    failed: dict[str, str]
    cold_start: ColdStart


class Health(msgspec.Struct):
    """Whether the replica lives, or is ready."""

    status: str


STATUS = {
    "oversize": 413, "student_failed": 500, "no_champion": 503, "timeout": 503, "mask_unavailable": 503,
    "no_version": 404,
}  # fmt: skip
"""HTTP status of a refusal by its reason; every other reason is the input's own fault, 422."""

RETRY_AFTER = {"Retry-After": "5"}
"""Seconds until what cannot be answered for now may be asked again: about what a bootstrap takes to be followed."""


def problem_of(error: RecordError) -> Problem:
    """What is told of an input that is refused."""
    return Problem(title=error.reason, status=STATUS.get(error.reason, 422), detail=error.detail)


class RequestError(Exception):
    """A request that is not answered: an HTTP ``status``, a stable code, and what is wrong."""

    def __init__(self, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.problem, self.headers = Problem(title=title, status=status, detail=detail), dict(headers or {})

    @classmethod
    def of(cls, problem: Problem, where: str = "") -> RequestError:
        """A problem as the request's own; ``where`` precedes what it says."""
        headers = RETRY_AFTER if problem.status == 503 else None
        return cls(problem.status, problem.title, f"{where}{problem.detail}", headers)


def undecodable(detail: str) -> RequestError:
    """A request with bytes that cannot be read."""
    return RequestError(422, "undecodable", detail)


def raise_for(error: Problem | None) -> None:
    """Refuse a request for what is wrong with the one thing in it, if anything is.

    Raises:
        RequestError: something is.

    """
    if error is not None:
        raise RequestError.of(error)


encode = msgspec.json.Encoder().encode
packed = msgspec.msgpack.Encoder().encode
_body = msgspec.json.Decoder(Body)
_later = msgspec.json.Decoder(LaterBody)
_any = msgspec.json.Decoder(dict[str, msgspec.Raw])
_truth, _truths = msgspec.json.Decoder(TruthItem), msgspec.json.Decoder(TruthBatch)
_PAYLOAD = "give exactly one of payload (base64), text and json"


def written(answers: Sequence[Answered], *, alone: bool) -> bytes:
    """The body of an answer to one input ``alone``, or to several, each answered or refused on its own.

    Raises:
        RequestError: the one input was refused.

    """
    if not alone:
        return encode(Answers(predictions=list(answers)))
    raise_for(answers[0].error)
    return encode(answers[0])


def lines(answers: Sequence[Answered]) -> bytes:
    """Answers as JSON Lines."""
    return b"".join(encode(a) + b"\n" for a in answers)


def read(raw: bytes) -> Ask:
    """A request's body.

    Raises:
        RequestError: 400 for what is no JSON text, 422 for what is no request.

    """
    return _asked(decoded(_body.decode, raw), raw)


def read_later(raw: bytes) -> tuple[Ask, LaterBody]:
    """A request's body whose answer comes later.

    Raises:
        RequestError: as for :func:`read`.

    """
    body = decoded(_later.decode, raw)
    return _asked(body, raw), body


def _asked(body: Body, raw: bytes) -> Ask:
    items: Sequence[Item] = _batch(body) if body.inputs is not UNSET else (body,)
    for item in items:
        if item.forms() != 1:
            raise RequestError(422, "invalid_request", _PAYLOAD)
    check_depth(raw, items)
    return Ask(items, body.allow_defer, body.priority, body.inputs is UNSET)


def masked_item(item: Item, content: bytes) -> Item:
    """An input with another content, in base64."""
    payload = base64.b64encode(content).decode()
    return msgspec.structs.replace(item, payload=payload, text=UNSET, json=UNSET)


def read_truths(raw: bytes) -> tuple[Sequence[TruthItem], bool]:
    """The truths in a request's body, and whether it is one alone.

    Raises:
        RequestError: as for :func:`read`.

    """
    if "truths" in decoded(_any.decode, raw):
        return decoded(_truths.decode, raw).truths, False
    return [decoded(_truth.decode, raw)], True


T = TypeVar("T")


def decoded(decode: Callable[[bytes], T], raw: bytes) -> T:
    """A body as what it should be.

    Raises:
        RequestError: as for :func:`read`.

    """
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        raise RequestError(422, "invalid_request", str(error)) from error
    except RecursionError as error:
        raise _too_deep() from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(400, "not_json", f"the body is not JSON in UTF-8: {error}") from error


def _batch(body: Body) -> list[Item]:
    if body.forms() or any(v is not None for v in (body.id, body.key, body.time, body.consent)):
        raise RequestError(422, "invalid_request", "a request with inputs has no input of its own beside them")
    return list(body.inputs or ())


def check_depth(raw: bytes, items: Sequence[Item]) -> None:
    """Refuse JSON payloads of a body that are nested too deeply.

    Raises:
        RequestError: 422.

    """
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and any(_deep(item.json) for item in items):
        raise _too_deep()


def _deep(value: Any) -> bool:
    """Whether a JSON value is nested deeper than :data:`MAX_DEPTH`, looked at level by level."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _too_deep() -> RequestError:
    return RequestError(422, "too_deep", f"JSON is nested at most {MAX_DEPTH} deep")
