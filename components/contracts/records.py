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

import hashlib
import json
import math
from typing import Any, Literal, TypeVar

import msgspec

from components.contracts.errors import RecordError

SCHEMA_VERSION = 1
"""The major version that this code writes, and the only one that it reads so far."""

PROBABILITY_FLOOR = 1e-6
"""Classes below this probability are left out of a soft label: together they weigh less than its rounding."""

MASS_TOLERANCE = 1e-3
"""How far a soft label's mass may be from one: float32 softmaxes of a few hundred classes stay within 1e-5."""

LATEST_TIME = 9_214_646_400.0
"""The last time that a record may carry (Unix seconds, the start of 2262): nanosecond timestamps end there."""


class NotFiniteError(ValueError):
    """A number that must be finite is NaN or infinite; :func:`decode` turns it into the reason ``not_finite``."""


Task = Literal["classification", "regression"]
Arm = Literal["champion", "candidate"]


class SoftLabel(msgspec.Struct, frozen=True, kw_only=True):
    """The teacher's answer for one input, or a student's imitation of it.

    ``space`` names the label space with its version (``"magika-v3_3@1"``), or the unit for regression.
    Classification: ``distribution`` maps class names to probabilities; classes left out have probability zero.
    Regression: ``value`` with ``scale``, the predictive standard deviation (> 0), in the unit of the target.
    """

    task: Task
    space: str
    distribution: dict[str, float] = {}
    value: float | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.task == "regression":
            if self.value is None or not math.isfinite(self.value):
                raise ValueError(f"a regression soft label needs a finite value, not {self.value!r}")
            if self.scale is None or not (math.isfinite(self.scale) and self.scale > 0):
                raise ValueError(f"a regression soft label needs a finite scale > 0, not {self.scale!r}")
            return
        if any(not 0 <= p <= 1 + MASS_TOLERANCE for p in self.distribution.values()):
            raise ValueError("a soft label's probabilities are in [0, 1] and sum to one")
        mass = math.fsum(self.distribution.values())
        if abs(mass - 1.0) > MASS_TOLERANCE:
            raise ValueError(f"a soft label's probabilities sum to one, not {mass!r}")

    @classmethod
    def of(cls, space: str, classes: tuple[str, ...], probabilities: list[float]) -> SoftLabel:
        """Make a classification soft label from probabilities in the order of ``classes``, renormalised to one."""
        if len(classes) != len(probabilities):
            raise ValueError(f"{len(probabilities)} probabilities for {len(classes)} classes")
        kept = {c: float(p) for c, p in zip(classes, probabilities, strict=True) if not p < PROBABILITY_FLOOR}
        mass = math.fsum(kept.values())
        if not math.isfinite(mass) or abs(mass - 1.0) > MASS_TOLERANCE:
            raise ValueError(f"a soft label's probabilities sum to one, not {mass!r}")
        return cls(task="classification", space=space, distribution={c: p / mass for c, p in kept.items()})

    @property
    def label(self) -> str:
        """The most probable class (the first by name among equals); for regression the value as text."""
        if self.task == "regression":
            return repr(self.value)
        return min(self.distribution, key=lambda c: (-self.distribution[c], c))

    @property
    def confidence(self) -> float:
        """The probability of :attr:`label`, in [0, 1]; for regression ``1 / (1 + scale)``."""
        if self.task == "regression":
            return 1.0 / (1.0 + float(self.scale or 0.0))
        return max(self.distribution.values())

    @property
    def entropy(self) -> float:
        """Shannon entropy in nats; for regression the differential entropy of a normal with this scale."""
        if self.task == "regression":
            return 0.5 * math.log(2 * math.pi * math.e) + math.log(float(self.scale or 1.0))
        return -math.fsum(p * math.log(p) for p in self.distribution.values() if p > 0) + 0.0


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """One record of traffic. ``key`` is the entity (sender, user, tenant); ``time`` is event time, Unix seconds.

    ``consent`` names the terms under which the payload may be labelled and trained on; None: nothing was said.
    """

    schema: int = SCHEMA_VERSION
    workload: str
    id: str
    key: str
    time: float
    payload: bytes
    consent: str | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("an input needs an id")
        if self.schema != SCHEMA_VERSION:
            raise ValueError(f"an input of schema {self.schema}, not {SCHEMA_VERSION}, inside another record")
        if not math.isfinite(self.time):
            raise NotFiniteError(f"an input's time is Unix seconds, not {self.time!r}")
        if not 0 < self.time <= LATEST_TIME:
            raise ValueError(f"an input's time is Unix seconds > 0 and before 2262, not {self.time!r}")


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
    """A gold label that arrived late or came from a person; ``label`` for classification, ``value`` for regression.

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

    def __post_init__(self) -> None:
        if (self.label is None) == (self.value is None):
            raise ValueError("a truth has either a label or a value")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a truth's value is finite, not {self.value!r}")
        if not 0 <= self.known_at <= LATEST_TIME:
            raise ValueError(f"a truth's known_at is Unix seconds before 2262, not {self.known_at!r}")


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
    a failure, alone.
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
        version = _version.decode(data).schema
    except _MALFORMED as error:
        raise RecordError("undecodable", f"not a {kind.__name__}: {error}") from error
    if version != SCHEMA_VERSION:
        raise RecordError("unknown_schema", f"{kind.__name__} of schema {version}; this reader knows {SCHEMA_VERSION}")
    try:
        record: R = _decoders[kind].decode(data)
    except msgspec.ValidationError as error:
        reason = "not_finite" if isinstance(error.__cause__, NotFiniteError) else "invalid"
        raise RecordError(reason, f"{kind.__name__}: {error}") from error
    except _MALFORMED as error:
        raise RecordError("undecodable", f"not a {kind.__name__}: {error}") from error
    return record


_dumps = json.JSONEncoder(ensure_ascii=False).encode


def json_bytes(value: Any) -> bytes:
    """The payload of a JSON value: equal values that are written alike are equal content, wherever they come from.

    Raises:
        UnicodeEncodeError: half of a surrogate pair, which is no text.

    """
    return _dumps(value).encode()


def content_hash(payload: bytes) -> str:
    """SHA-256 of a payload in hex: two inputs with the same content share it."""
    return hashlib.sha256(payload).hexdigest()


def label_key(entry: Input, teacher: str, space: str) -> str:
    """The identity of a labelling: same input (id and content), teacher, label space and schema give the same key.

    Two inputs of the same content have keys of their own; join them by :func:`content_hash`.
    """
    parts = (entry.id, content_hash(entry.payload), teacher, space, str(SCHEMA_VERSION))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
