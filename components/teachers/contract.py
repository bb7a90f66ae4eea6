"""The contract of teachers.

Every teacher answers ``label``. Eleven abilities are optional and have a function here that a caller uses for every
teacher alike: to show what it knows inside (:func:`states`), to be differentiated by its inputs
(:func:`differentiable`), to name the words that it knows (:func:`vocabulary`), to write examples of a class
(:func:`examples`), to leave some inputs of a batch without a soft label
(:func:`outcomes`), to keep the questions of those that wait for a person (:func:`defer`), to say what a batch may cost
(:func:`cost`), to ask before it sends inputs once more (:func:`metered`), to keep limits and outages with others who
ask it (:func:`shared`), to be asked in spite of an open circuit breaker (:func:`past_breaker`), and to report its state
for metrics (:func:`state`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol, cast

import msgspec
import numpy as np
import numpy.typing as npt

from components.contracts.errors import CohobateError, ConfigError, RecordError, TeacherError
from components.contracts.records import Input, SoftLabel, Task
from components.contracts.spec.objective import FIELD
from components.contracts.storage import digest_of
from components.contracts.tagging import names_of
from components.teachers.common import Common


class Teacher(Protocol):
    """The expensive model whose behaviour is kept.

    ``name`` and ``digest`` (64 hex digits over weights and everything else that decides its answers) identify it;
    ``space`` names its label space with the version; ``classes`` are the names in that space (for tagging its tags;
    empty for regression and embedding, whose space is one of vectors of one length); ``size_bytes`` is the size of its
    weights, for the comparison of costs (0: a remote teacher that nobody declared).
    """

    name: str
    digest: str
    task: Task
    space: str
    classes: tuple[str, ...]
    size_bytes: int

    def label(self, payloads: Sequence[Any]) -> list[SoftLabel]:
        """Soft labels of decoded payloads, one for each, in order.

        Raises:
            TeacherError: the model failed.
            UnavailableError: a remote teacher does not answer; nothing is wrong with the payloads, try again later.

        """


Permit = Callable[[int], bool]
"""Whether so many inputs may be sent to a server once more; if so, that is paid for. Called from any thread."""


class TeacherChangedError(TeacherError):
    """A remote teacher reports another identity than the one that its digest was made from."""

    def __init__(self, teacher: str, declared: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        names = [n for n in sorted(declared.keys() | found.keys()) if declared.get(n) != found.get(n)]
        moved = "; ".join(f"{n} was {declared.get(n)!r} and is {found.get(n)!r}" for n in names)
        super().__init__(
            teacher,
            f"reports another identity than when it was started: {moved}. Nothing is labelled by it: restore the old "
            "model; or, if it was replaced on purpose, start the labeler anew and declare the new digest, which its "
            "log then names (teacher_digest)",
        )
        self.declared, self.found = dict(declared), dict(found)


class Deferred(NamedTuple):
    """No soft label yet: the input waits for a person. ``draft`` is what a model thinks of it, as a help."""

    why: str
    draft: SoftLabel | None = None


class Question(NamedTuple):
    """An input that waits: all that its label needs except the soft label. ``key`` is the label's key.

    ``policy``, ``probability`` and ``audit`` are the label's fields of these names.
    """

    key: str
    input: Input
    deferred: Deferred
    policy: str = "all"
    probability: float = 1.0
    audit: bool = False


class States(NamedTuple):
    """What a teacher knows inside of N inputs.

    ``arrays`` by name: (N, width), or (N, L, ...) of L positions; ``mask``: (N, L), True at real positions; None where
    no array is of positions.
    """

    arrays: dict[str, npt.NDArray[np.float32]]
    mask: npt.NDArray[np.bool_] | None = None


class Differentiable(NamedTuple):
    """A teacher as a function of arrays with a gradient.

    ``module``: a ``torch.nn.Module`` that gives logits (B, classes), in the order of the teacher's classes, of float32
    arrays (B, *shape) with values in [``low``, ``high``]. ``payloads`` writes such arrays as the payloads that would
    bring them about, in bytes as they come with an input.
    """

    module: Any
    shape: tuple[int, ...]
    low: float
    high: float
    payloads: Callable[[npt.NDArray[np.float32]], list[bytes]]


Outcome = SoftLabel | Deferred | RecordError
"""What became of one input: a soft label, a wait, or a dead letter (the teacher refuses this very input)."""


def reference(teacher: Teacher) -> str:
    """``name@digest``, as it stands in every label."""
    return f"{teacher.name}@{teacher.digest}"


def identity_digest(identity: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what identifies a teacher, whatever the order of its fields."""
    return digest_of(json.dumps(identity, sort_keys=True, ensure_ascii=False, allow_nan=False).encode())


def outcomes(teacher: Teacher, payloads: Sequence[Any]) -> list[Outcome]:
    """What became of each payload, in order; teachers without ``outcomes`` answer all of them at once.

    Raises:
        TeacherError: the teacher failed, raised something that is none of this project's errors, gave more or fewer
            outcomes than there are payloads, or one that no student may learn from (another task, label space or class
            than it declared, or something that cannot be read back): the teacher's fault, and not the input's.
        UnavailableError: a remote teacher does not answer; UnansweredError where it does not answer these payloads.

    """
    own = getattr(teacher, "outcomes", None)
    try:
        found = list(own(payloads) if own is not None else teacher.label(payloads))
    except CohobateError:
        raise
    except Exception as error:  # foreign code, and one input may be all that it fails on
        raise TeacherError(reference(teacher), f"raised {type(error).__name__}: {error}") from error
    if len(found) != len(payloads):
        raise TeacherError(reference(teacher), f"gave {len(found)} labels for {len(payloads)} inputs")
    check(teacher, found)
    return found


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(SoftLabel)


def check(teacher: Teacher, found: Sequence[Outcome]) -> None:
    """Refuse what no student may learn from this teacher.

    Raises:
        TeacherError: an outcome has another task or label space, a class that was not declared, no valid numbers, or a
            vector of another length than those beside it.

    """
    known = set(teacher.classes)
    for outcome in found:
        _check(teacher, known, outcome)
    if len(lengths := {len(o.vector) for o in found if isinstance(o, SoftLabel) and o.vector}) > 1:
        raise TeacherError(reference(teacher), f"answered vectors of {sorted(lengths)} numbers: a space has one length")


def _check(teacher: Teacher, known: set[str], outcome: Outcome) -> None:
    if isinstance(outcome, Deferred | RecordError):
        return
    if not isinstance(outcome, SoftLabel) or outcome.task != teacher.task:
        raise TeacherError(reference(teacher), f"answered {outcome!r:.200}: not a soft label for {teacher.task}")
    if outcome.space != teacher.space:
        raise TeacherError(reference(teacher), f"answered in space {outcome.space!r}, not {teacher.space!r}")
    if unknown := names_of(outcome) - known:
        raise TeacherError(reference(teacher), f"answered classes that it did not declare: {sorted(unknown, key=repr)}")
    try:
        _decoder.decode(_encoder.encode(outcome))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        detail = f"answered {outcome!r:.200}, which no reader of labels could read: {error}"
        raise TeacherError(reference(teacher), detail) from error


class Knowing(Protocol):
    """Any model that shows what it knows inside, a teacher or an encoder."""

    def states(self, payloads: Sequence[Any], names: Sequence[str]) -> States:
        """The states of decoded payloads by name."""


def called(model: object) -> str:
    """The name of a model: a teacher has one, an encoder may be known by its class."""
    return str(getattr(model, "name", type(model).__name__))


def states(model: Knowing | Teacher, payloads: Sequence[Any], names: Sequence[str], field: str = FIELD) -> States:
    """Inner states of decoded payloads by name, as a student learns them; asked while it is trained, and not before.

    ``field``: where the spec has the terms that read them.

    Raises:
        ConfigError: this model shows none, or none of such a name.
        TeacherError: the model failed, or what it gave are no states of these payloads.

    """
    own = getattr(model, "states", None)
    if own is None:
        raise ConfigError(
            field,
            list(names),
            f"{called(model)} shows no inner states: take terms against its answers alone, or a local "
            "model that has states(payloads, names)",
        )
    found: Any = own(payloads, names)
    if not isinstance(found, States):
        kind = type(found).__name__
        raise TeacherError(called(model), f"gave a {kind} as states: components.teachers.contract.States holds them")
    for name in names:
        if name not in found.arrays or len(found.arrays[name]) != len(payloads):
            raise TeacherError(called(model), f"gave no state {name!r} for each of {len(payloads)} payloads")
    return found


def differentiable(teacher: Teacher) -> Differentiable | None:
    """The teacher as a function that can be differentiated; None where it is none.

    Raises:
        TeacherError: what it gives is no such function.

    """
    own = getattr(teacher, "differentiable", None)
    if own is None:
        return None
    found: Any = own()
    good = isinstance(found, Differentiable) and found.low < found.high and all(n >= 1 for n in found.shape)
    if not good or not hasattr(found.module, "named_modules"):
        raise TeacherError(reference(teacher), "differentiable() must give a Differentiable of a torch.nn.Module")
    return cast(Differentiable, found)


def vocabulary(teacher: Teacher) -> tuple[str, ...]:
    """The words that a teacher of texts knows, such as its tokenizer's; empty where it names none."""
    own = getattr(teacher, "vocabulary", None)
    return tuple(own()) if own is not None else ()


def writes(teacher: Teacher) -> bool:
    """Whether a teacher can write examples of a class."""
    return hasattr(teacher, "examples")


def examples(teacher: Teacher, kind: str, count: int, seed: int) -> list[str]:
    """About ``count`` texts that a teacher writes as examples of the class ``kind``, by one request.

    Raises:
        ConfigError: the teacher writes none.
        TeacherError: what it wrote are no examples.
        UnavailableError: a remote teacher does not answer.

    """
    own = getattr(teacher, "examples", None)
    if own is None:
        raise ConfigError(
            "student.data_free.method", "chat", f"needs a chat teacher, and {teacher.name} writes no texts: take search"
        )
    found: list[str] = own(kind, count, seed)
    return found


def defer(teacher: Teacher, workload: str, questions: Sequence[Question]) -> None:
    """Keep questions durably: when this returns, their inputs may be committed. Asking again changes nothing.

    Raises:
        TeacherError: the teacher has no queue to keep them in.

    """
    own = getattr(teacher, "defer", None)
    if own is None:
        raise TeacherError(reference(teacher), "put an answer off, but has no queue to keep the question in")
    own(workload, questions)


def check_texts(name: str, payloads: Sequence[Any]) -> None:
    """Refuse payloads of which one is no text, on behalf of the teacher ``name``.

    Raises:
        TeacherError: one is none.

    """
    for payload in payloads:
        if not isinstance(payload, str):
            raise TeacherError(name, f"reads texts, not {type(payload).__name__}: set payload.decoder to text")


def soft_labels(name: str, found: Sequence[Outcome]) -> list[SoftLabel]:
    """Outcomes that must all be soft labels.

    Raises:
        TeacherError: one is none; the message says what it is.

    """
    for outcome in found:
        if isinstance(outcome, Deferred):
            raise TeacherError(name, f"has no answer yet ({outcome.why}): the input waits for a person")
        if isinstance(outcome, RecordError):
            raise TeacherError(name, f"refuses an input: {outcome}")
    return cast(list[SoftLabel], list(found))


def cost(teacher: Teacher, payloads: Sequence[Any]) -> float:
    """The most that labelling these payloads once can cost, in the currency of the declared prices; 0.0: no price."""
    own = getattr(teacher, "cost", None)
    return float(own(payloads)) if own is not None else 0.0


def metered(teacher: Teacher, permit: Permit) -> None:
    """Have a teacher that sends inputs again after an outage ask ``permit`` each time before.

    It raises UnavailableError without one; what was reserved for the inputs stays good for their first time.
    """
    own = getattr(teacher, "metered", None)
    if own is not None:
        own(permit)


def shared(teacher: Teacher, common: Common) -> None:
    """Have a remote teacher keep its rate limits and its circuit breaker with all who ask it."""
    own = getattr(teacher, "shared", None)
    if own is not None:
        own(common)


def pays(teacher: Teacher) -> bool:
    """Whether what a teacher sends after an outage is paid for by itself: see :func:`metered`."""
    return hasattr(teacher, "metered")


def past_breaker(teacher: Teacher, *, once: bool = False) -> AbstractContextManager[None]:
    """Within it requests are sent whatever a circuit breaker says, and their failures do not count for it.

    For one who seeks the input that a server gives no answer to, and proves between any two failures that it answers
    others: an answer closes the breaker. ``once``: each request is sent once, and not again after a failure.
    """
    own = getattr(teacher, "past_breaker", None)
    return own(once) if own is not None else nullcontext()


def state(teacher: Teacher) -> dict[str, Any]:
    """The teacher's own counters and states (breaker, retries, tokens), for metrics; empty where it has none."""
    own = getattr(teacher, "state", None)
    return dict(own()) if own is not None else {}


def in_epoch(declared: str, epoch: int) -> str:
    """The reference of a declared teacher in an epoch: ``name@digest`` in the first, then ``name@digest#1`` and on.

    An epoch ends when a person decides about a change of the teacher's behaviour
    (:mod:`components.teacher_watch.guard`).
    """
    return f"{declared}#{epoch}" if epoch else declared


def declared_of(reference: str) -> str:
    """``name@digest`` of a reference in any epoch."""
    return reference.partition("#")[0]
