"""The records on the wire: typed, versioned, encoded as MessagePack and validated on reading by msgspec.

Every record carries ``schema``, its *major* version. A reader ignores fields that it does not know and refuses a
major that it does not know with :class:`~components.contracts.errors.RecordError`, so that the record goes to the
dead letters instead of being half understood. A *minor* version is nothing on the wire: it counts the fields that were
added since (``Label`` 1.1 is 1.0 with ``policy``, ``probability``, ``audit`` and ``annotator``).

How a record may change, so that what was written once stays readable for good and old readers go on reading:

1. A field is added at the end, with a default that says what its absence meant in older records. That is a minor
   version; ``schema`` stays. Old readers ignore the field, so nothing that must not be ignored is added in this way.
2. A field is never renamed, removed, given another type, unit or meaning, or narrower limits; the set of values that a
   reader accepts only grows. What old records may lack or hold is refused where they come in
   (:mod:`components.contracts.admission`), not here, where labels of years ago are read back.
3. Anything else is a new major: raise :data:`SCHEMA_VERSION`, keep reading the old major by turning its fields into
   the new ones in :func:`decode`, and let readers be deployed before the first writer.
4. Every version's bytes are pinned in ``tests/components/contracts/golden``; a pinned file is never changed.
   ``python -m tests.components.contracts.golden`` pins a new version.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeVar

import msgspec

from components.contracts.errors import RecordError

SCHEMA_VERSION = 1
"""The major version that this code writes, and the only one that it reads so far but for synthetic inputs."""

SYNTHETIC_VERSION = 2
"""The major version of an input that was made up: a reader who would take it for traffic, and hold it out, refuses it.
"""

PROBABILITY_FLOOR = 1e-6
"""Classes below this probability are left out of a soft label: together they weigh less than its rounding."""

MASS_TOLERANCE = 1e-3
"""How far a soft label's mass may be from one: float32 softmaxes of a few hundred classes stay within 1e-5."""

LATEST_TIME = 9_214_646_400.0
"""The last time that a record may carry (Unix seconds, the start of 2262): nanosecond timestamps end there."""


class NotFiniteError(ValueError):
    """A number that must be finite is NaN or infinite; :func:`decode` turns it into the reason ``not_finite``."""


Task = Literal["classification", "regression", "multilabel", "tagging", "embedding"]
Arm = Literal["champion", "candidate"]

CLASSED: tuple[Task, ...] = ("classification", "multilabel")
"""Tasks in which an input as a whole is of a class, or of several."""

NAMED: tuple[Task, ...] = (*CLASSED, "tagging")
"""Tasks whose answers are made of names, of classes or tags: a student has a logit for each, and an answer is right
where its text (:attr:`SoftLabel.label`) is that of the truth, and else wrong."""

OUTSIDE = "O"
"""The tag of a token that is in no span (Ramshaw and Marcus, 1995)."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """One token of a text with its tags: characters ``start`` to ``end`` of it (Unicode code points, end excluded).

    ``distribution`` maps tags to probabilities that sum to one. A tag is the name of a kind of span, plain (``PER``)
    or with the mark of its place in the span (``B-PER`` begins one, ``I-PER`` is inside), or :data:`OUTSIDE`.
    """

    start: int
    end: int
    distribution: dict[str, float]

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a token has at least one character, not {self.start} to {self.end}")
        _sums_to_one(self.distribution, "token")

    @property
    def tag(self) -> str:
        """The most probable tag, the first by name among equals."""
        return _mode(self.distribution)


class Span(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A part of a text and its kind: characters ``start`` to ``end`` (Unicode code points, end excluded)."""

    start: int
    end: int
    label: str

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a span has at least one character, not {self.start} to {self.end}")
        if not self.label or self.label == OUTSIDE:
            raise ValueError(f"a span's label is the name of a kind of span, not {self.label!r}")


class SoftLabel(msgspec.Struct, frozen=True, kw_only=True):
    """The teacher's answer for one input, or a student's imitation of it.

    ``space`` names the label space with its version (``"magika-v3_3@1"``), or the unit for regression.
    Classification: ``distribution`` maps class names to probabilities; classes left out have probability zero.
    Regression: ``value`` with ``scale``, the predictive standard deviation (> 0), in the unit of the target.
    Multilabel: ``distribution`` maps class names to the probability that the input has that class, each by itself.
    Tagging: ``tokens`` of the text with a distribution each, in order and apart; text between them is in no span.
    Embedding: ``vector`` (direction counts, not length), with ``scale``, the expected cosine distance (> 0) from it.
    """

    task: Task
    space: str
    distribution: dict[str, float] = {}
    value: float | None = None
    scale: float | None = None
    tokens: tuple[Token, ...] = ()
    vector: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.task == "classification":
            _sums_to_one(self.distribution, "soft label")
        elif self.task == "multilabel":
            if any(not 0 <= p <= 1 for p in self.distribution.values()):
                raise ValueError("a multilabel soft label's probabilities are in [0, 1] each")
        elif self.task == "tagging":
            if any(a.end > b.start for a, b in pairwise(self.tokens)):
                raise ValueError("a soft label's tokens are in the order of the text and do not overlap")
        else:
            self._check_scale()

    def _check_scale(self) -> None:
        if self.task == "regression":
            if self.value is None or not math.isfinite(self.value):
                raise ValueError(f"a regression soft label needs a finite value, not {self.value!r}")
        elif not self.vector or not math.isfinite(norm := math.hypot(*self.vector)) or norm == 0:
            raise ValueError("an embedding soft label needs a vector of finite numbers that are not all zero")
        if self.scale is None or not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"a soft label of {self.task} needs a finite scale > 0, not {self.scale!r}")

    @classmethod
    def of(cls, space: str, classes: tuple[str, ...], probabilities: list[float]) -> SoftLabel:
        """Make a classification soft label from probabilities in the order of ``classes``, renormalised to one."""
        if len(classes) != len(probabilities):
            raise ValueError(f"{len(probabilities)} probabilities for {len(classes)} classes")
        kept = {str(c): float(p) for c, p in zip(classes, probabilities, strict=True) if not p < PROBABILITY_FLOOR}
        mass = math.fsum(kept.values())
        if not math.isfinite(mass) or abs(mass - 1.0) > MASS_TOLERANCE:
            raise ValueError(f"a soft label's probabilities sum to one, not {mass!r}")
        return cls(task="classification", space=space, distribution={c: p / mass for c, p in kept.items()})

    @classmethod
    def multilabel(cls, space: str, classes: Sequence[str], probabilities: Sequence[float]) -> SoftLabel:
        """Make a multilabel soft label from each class's probability, in the order of ``classes``."""
        if len(classes) != len(probabilities):
            raise ValueError(f"{len(probabilities)} probabilities for {len(classes)} classes")
        shares = zip(classes, probabilities, strict=True)
        kept = {str(c): float(p) for c, p in shares if not p < PROBABILITY_FLOOR or p < 0}
        return cls(task="multilabel", space=space, distribution=kept)

    @property
    def label(self) -> str:
        """The most probable answer as text: equal answers have equal texts, whatever their probabilities.

        Classification: the class, the first by name among equals. Regression: the value. Multilabel: :func:`set_text`
        of the classes with a probability of at least one half. Tagging: :func:`spans_text` of :attr:`spans`.
        Embedding: :func:`vector_text`.
        """
        if self.task == "regression":
            return repr(self.value)
        if self.task == "multilabel":
            return set_text(c for c, p in self.distribution.items() if p >= 0.5)
        if self.task == "tagging":
            return spans_text(self.spans)
        if self.task == "embedding":
            return vector_text(self.vector)
        return _mode(self.distribution)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans that the most probable tags of the tokens make, in the order of the text.

        A span begins at ``B-X``, and at ``I-X`` or a plain ``X`` that no span of ``X`` reaches, as conlleval reads it
        (Tjong Kim Sang and Buchholz, 2000); a plain ``X`` goes on with the span of ``X`` before it.
        """
        return spans_of((token.start, token.end, token.tag) for token in self.tokens)

    @property
    def confidence(self) -> float:
        """The probability of :attr:`label`, in [0, 1]; ``1 / (1 + scale)`` where the answer is a number or a vector.

        Of a set of classes or a sequence of tags it is the product over them, as if they did not hang together.
        """
        if self.task == "multilabel":
            return math.prod(max(p, 1.0 - p) for p in self.distribution.values())
        if self.task == "tagging":
            return math.prod(max(token.distribution.values()) for token in self.tokens)
        if self.task == "classification":
            return max(self.distribution.values())
        return 1.0 / (1.0 + float(self.scale or 0.0))

    @property
    def entropy(self) -> float:
        """Shannon entropy in nats; where the answer is a number or a vector the one of a normal with this scale.

        Multilabel: the sum over the classes. Tagging: the mean over the tokens, zero without any (Settles and Craven,
        2008), so that a long text is no surprise.
        """
        if self.task == "multilabel":
            return math.fsum(_entropy((p, 1.0 - p)) for p in self.distribution.values())
        if self.task == "tagging":
            entropies = [_entropy(token.distribution.values()) for token in self.tokens]
            return math.fsum(entropies) / max(1, len(entropies))
        if self.task == "classification":
            return _entropy(self.distribution.values())
        return 0.5 * math.log(2 * math.pi * math.e) + math.log(float(self.scale or 1.0))


def set_text(names: Iterable[str]) -> str:
    """A set of class names as text: their JSON array, sorted, each once."""
    return _dumps(sorted(set(names)))


def set_of(text: str) -> frozenset[str]:
    """The class names that :func:`set_text` made a text of.

    Raises:
        ValueError: it is no JSON array of texts.

    """
    try:
        return frozenset(msgspec.json.decode(text, type=list[str]))
    except msgspec.MsgspecError as error:
        raise ValueError(f"a set of classes is a JSON array of their names, not {text!r:.80}: {error}") from error


def spans_text(spans: Iterable[Span]) -> str:
    """Spans as text: a JSON array of ``[start, end, label]``, sorted, each once."""
    return _dumps([[s.start, s.end, s.label] for s in sorted(set(spans))])


def vector_text(vector: Sequence[float]) -> str:
    """The direction of a vector as text: base64 of its unit vector's numbers, float16 of little endian."""
    norm = math.hypot(*vector)
    return base64.b64encode(struct.pack(f"<{len(vector)}e", *(v / norm for v in vector))).decode()


def vector_of(text: str) -> tuple[float, ...]:
    """The unit vector, to the precision of float16, that :func:`vector_text` made a text of.

    Raises:
        ValueError: it made no such text.

    """
    try:
        data = base64.b64decode(text, validate=True)
        return struct.unpack(f"<{len(data) // 2}e", data)
    except (ValueError, struct.error) as error:
        raise ValueError(f"a vector must be float16 in base64, of little endian, not {text!r:.80}: {error}") from error


def spans_of(tags: Iterable[tuple[int, int, str]]) -> tuple[Span, ...]:
    """The spans of tagged tokens ``(start, end, tag)``, in the order of the text; see :attr:`SoftLabel.spans`."""
    found: list[Span] = []
    going = False
    for start, end, tag in tags:
        if tag == OUTSIDE:
            going = False
            continue
        mark, kind = marked(tag)
        if going and mark != "B" and found[-1].label == kind:
            found[-1] = Span(start=found[-1].start, end=end, label=kind)
        else:
            found.append(Span(start=start, end=end, label=kind))
        going = True
    return tuple(found)


def marked(tag: str) -> tuple[str, str]:
    """The mark of a tag, ``B`` or ``I`` or none, and the kind of span behind it."""
    return (tag[0], tag[2:]) if tag[:2] in ("B-", "I-") and len(tag) > 2 else ("", tag)


def _mode(distribution: Mapping[str, float]) -> str:
    return min(distribution, key=lambda c: (-distribution[c], c))


def _entropy(probabilities: Iterable[float]) -> float:
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0) + 0.0


def _sums_to_one(distribution: Mapping[str, float], of: str) -> None:
    if any(not 0 <= p <= 1 + MASS_TOLERANCE for p in distribution.values()):
        raise ValueError(f"a {of}'s probabilities are in [0, 1] and sum to one")
    mass = math.fsum(distribution.values())
    if abs(mass - 1.0) > MASS_TOLERANCE:
        raise ValueError(f"a {of}'s probabilities sum to one, not {mass!r}")


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """One record of traffic. ``key`` is the entity (sender, user, tenant); ``time`` is event time, Unix seconds.

    ``consent`` names the terms under which the payload may be labelled and trained on; None: nothing was said.
    ``entity``: what the student was told of the entity when it answered, by the feature's name; None: nothing, or no
    student answered yet.
    ``synthetic``: how the payload was made up (``method;seed=0``), None of traffic. Such an input is of the major
    version :data:`SYNTHETIC_VERSION` (:func:`synthetic_input` makes one), has nobody's consent to ask for, and may be
    learnt from and nothing else.
    """

    schema: int = SCHEMA_VERSION
    workload: str
    id: str
    key: str
    time: float
    payload: bytes
    consent: str | None = None
    entity: dict[str, float | str] | None = None
    synthetic: str | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("an input needs an id")
        wanted = SCHEMA_VERSION if self.synthetic is None else SYNTHETIC_VERSION
        if self.schema != wanted:
            raise ValueError(f"an input of schema {self.schema}, not {wanted}, inside another record")
        if self.synthetic == "":
            raise ValueError("a synthetic input says how it was made up")
        if not math.isfinite(self.time):
            raise NotFiniteError(f"an input's time is Unix seconds, not {self.time!r}")
        if not 0 < self.time <= LATEST_TIME:
            raise ValueError(f"an input's time is Unix seconds > 0 and before 2262, not {self.time!r}")
        if self.entity and not all(isinstance(v, str) or math.isfinite(v) for v in self.entity.values()):
            raise NotFiniteError("what is known of an input's entity has a NaN or an infinity in it")


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """A soft label made by the teacher, with the input it was made for (so that a window needs one topic only).

    ``key`` identifies the labelling: see :func:`label_key`. ``teacher`` is ``name@digest``; ``annotator`` is the person
    where the teacher is a queue of people. ``policy`` chose the input with ``probability`` in (0, 1], so that estimates
    over labels can be reweighted; ``audit`` marks the uniformly drawn slice that is kept out of training.
    """

    schema: int = SCHEMA_VERSION
    key: str
    teacher: str
    soft: SoftLabel
    input: Input
    labelled_at: float
    policy: str = "all"
    probability: float = 1.0
    audit: bool = False
    annotator: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ValueError(f"a label's sampling probability is in (0, 1], not {self.probability!r}")
        if not 0 <= self.labelled_at <= LATEST_TIME:
            raise ValueError(f"a label's time is Unix seconds before 2262, not {self.labelled_at!r}")


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """A gold answer that arrived late or came from a person, in the field of its task.

    ``label`` for classification, ``value`` for regression, ``labels`` (a set, which may be empty) for multilabel,
    ``spans`` (which may be none) for tagging. Nothing is the truth of an embedding.
    ``time`` is the event time of the input; ``known_at`` is when the truth became known (both Unix seconds).
    """

    schema: int = SCHEMA_VERSION
    workload: str
    input_id: str
    time: float
    known_at: float
    source: str
    label: str | None = None
    value: float | None = None
    labels: tuple[str, ...] | None = None
    spans: tuple[Span, ...] | None = None

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.label, self.value, self.labels, self.spans)) != 1:
            raise ValueError("a truth has one of a label, a value, labels and spans")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a truth's value is finite, not {self.value!r}")
        if not 0 <= self.known_at <= LATEST_TIME:
            raise ValueError(f"a truth's known_at is Unix seconds before 2262, not {self.known_at!r}")

    @property
    def task(self) -> Task:
        """The task that this is a truth of."""
        if self.labels is not None:
            return "multilabel"
        if self.spans is not None:
            return "tagging"
        return "classification" if self.value is None else "regression"

    @property
    def said(self) -> str | float:
        """The truth as a number, or as text by the rules of :attr:`SoftLabel.label`."""
        if self.value is not None:
            return self.value
        if self.labels is not None:
            return set_text(self.labels)
        return spans_text(self.spans) if self.spans is not None else str(self.label)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One student's answer to one request, as telemetry: the soft label or the error, and what it took.

    ``novelty``: how like this student's own data the input is, as a conformal p-value in [0, 1]: over inputs like those
    data it is uniform, and small where the input is unlike them. None where it is not known: the student failed or
    gives none, or the record is of version 1.1 or older.
    """

    arm: Arm
    version: str
    ok: bool
    latency_ms: float
    label: str | None = None
    confidence: float | None = None
    entropy: float | None = None
    error: str | None = None
    novelty: float | None = None

    def __post_init__(self) -> None:
        if self.novelty is not None and not 0.0 <= self.novelty <= 1.0:
            raise ValueError(f"an answer's novelty is a p-value in [0, 1], not {self.novelty!r}")


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway did with one input: the served answer and, where both students were asked, the unserved one.

    ``turn``: the arm whose turn it was by the split. The champion's answer is also served where it was the candidate's
    turn and that failed. None in records of version 1.0, in which the other student was asked in shadow, or after such
    a failure, alone. ``defaulted``: the features of the entity that fell to their defaults, and why: ``timeout`` or
    ``unavailable`` (of an entity of which nothing is known yet, nothing fell).
    """

    schema: int = SCHEMA_VERSION
    workload: str
    request_id: str
    input_id: str
    key: str
    time: float
    content: str
    answer: Answer
    shadow: Answer | None = None
    audited: bool = False
    deferred: bool = False
    turn: Arm | None = None
    defaulted: dict[str, str] = {}


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that could not be used, with all that is needed to understand or replay it.

    ``reason`` is a stable code, ``detail`` its explanation, ``error`` the class of the exception behind it. ``topic``,
    ``partition`` and ``offset`` say where the record lies, ``at`` (Unix seconds) when it was refused, and ``attempts``
    how often it was delivered until then, replays included. ``value``, ``key`` and ``headers`` are the record's own;
    with ``cut`` some of their bytes were left out, and ``digest`` (SHA-256 of the whole value, hex; None in letters
    of version 1.0) tells whether what lies at the record's place is still the same. ``tombstone``: the record had no
    value at all, which ``value`` without bytes does not tell (letters before version 1.2 do not say).
    """

    schema: int = SCHEMA_VERSION
    workload: str
    reason: str
    detail: str
    error: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]
    at: float
    attempts: int = 1
    digest: str | None = None
    cut: bool = False
    tombstone: bool = False


R = TypeVar("R", Input, Label, Truth, Prediction, DeadLetter)


class _Versioned(msgspec.Struct):
    schema: int
    synthetic: Any = None


_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no record: bad structure, text that is not UTF-8, nesting without end."""

_encoder = msgspec.msgpack.Encoder()
_version = msgspec.msgpack.Decoder(_Versioned)
_kinds: tuple[type[msgspec.Struct], ...] = (Input, Label, Truth, Prediction, DeadLetter)
_decoders: dict[type[msgspec.Struct], msgspec.msgpack.Decoder[Any]] = {k: msgspec.msgpack.Decoder(k) for k in _kinds}


def encode(record: Input | Label | Truth | Prediction | DeadLetter) -> bytes:
    """Encode a record for the wire."""
    return _encoder.encode(record)


def decode(kind: type[R], data: bytes | None) -> R:
    """Decode and validate a record; ``data`` is the value of one on a topic (None: a tombstone).

    Raises:
        RecordError: ``empty``, ``undecodable``, ``unknown_schema``, ``not_finite`` or ``invalid`` as its reason.

    """
    if data is None:
        raise RecordError("empty", "the record is a tombstone")
    try:
        found = _version.decode(data)
    except _MALFORMED as error:
        raise RecordError("undecodable", f"not a {kind.__name__}: {error}") from error
    version = found.schema
    if version != (SYNTHETIC_VERSION if kind is Input and found.synthetic is not None else SCHEMA_VERSION):
        raise RecordError("unknown_schema", f"{kind.__name__} of schema {version}; this reader knows {SCHEMA_VERSION}")
    try:
        record: R = _decoders[kind].decode(data)
    except msgspec.ValidationError as error:
        reason = "not_finite" if isinstance(error.__cause__, NotFiniteError) else "invalid"
        raise RecordError(reason, f"{kind.__name__}: {error}") from error
    except _MALFORMED as error:
        raise RecordError("undecodable", f"not a {kind.__name__}: {error}") from error
    return record


def label_of(task: Task, data: bytes | None) -> Label:
    """The label in a record of a workload of this task.

    Raises:
        RecordError: as :func:`decode`, or ``other_task``.

    """
    label = decode(Label, data)
    if label.soft.task != task:
        raise RecordError("other_task", f"a label of {label.soft.task}, not of {task}")
    return label


_dumps = json.JSONEncoder(ensure_ascii=False).encode


def json_bytes(value: Any) -> bytes:
    """The payload of a JSON value: equal values that are written alike are equal content, wherever they come from.

    Raises:
        UnicodeEncodeError: half of a surrogate pair, which is no text.

    """
    return _dumps(value).encode()


def synthetic_input(workload: str, payload: bytes, synthetic: str, *, time: float) -> Input:
    """An input that was made up as ``synthetic`` says; its id and key are made of that and of its content."""
    name = f"synthetic-{hashlib.sha256(synthetic.encode() + bytes(1) + payload).hexdigest()[:24]}"
    return Input(
        schema=SYNTHETIC_VERSION, workload=workload, id=name, key=name, time=time, payload=payload, synthetic=synthetic
    )  # fmt: skip


def content_hash(payload: bytes) -> str:
    """SHA-256 of a payload in hex: two inputs with the same content share it."""
    return hashlib.sha256(payload).hexdigest()


def label_key(entry: Input, teacher: str, space: str) -> str:
    """The identity of a labelling: same input (id and content), teacher, label space and schema give the same key.

    Two inputs of the same content have keys of their own; join them by :func:`content_hash`.
    """
    parts = (entry.id, content_hash(entry.payload), teacher, space, str(SCHEMA_VERSION))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
