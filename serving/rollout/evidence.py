"""What a rollout sees: answers, audits against the teacher, and replicas that cannot load the candidate. Pure.

A prediction counts when it is read. Its audit counts when the teacher's label of the same content is known, before or
after it; until then it is pending. Both are kept in the rollout's state, so that a restart loses and repeats nothing.
How the truth comes to an answer is in :mod:`serving.rollout.truths`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from components.contracts.records import Answer, Arm, Label, Prediction, content_hash
from components.contracts.vectors import near
from components.teachers.contract import declared_of

PENDING = 2_000
"""Audits that may wait for a label; the oldest beyond it are given up (they are not evidence either way)."""

SCALES = 2.0
"""A regression answer disagrees when it is further than this many of the teacher's standard deviations away."""


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one student made of one request. ``entropy`` in nats."""

    ok: bool
    latency_ms: float = 0.0
    label: str | None = None
    confidence: float | None = None
    entropy: float | None = None


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag="answered", omit_defaults=True):
    """One request answered by ``arm``, and what each student that was asked made of it.

    ``weight``: the candidate's share of requests when it was answered, 0 in shadow; None where a change of it was on
    its way, or where it is not known: the arms are then compared by pairs alone. ``repeat``: its key had a request
    before in this rollout, so that its arm was settled. ``turn``: the arm that the split gave it to; None in journals
    of before pairs in the canary, where both students are there only in shadow or where the candidate failed.
    """

    id: str
    arm: Arm
    weight: float | None = None
    champion: Reply | None = None
    candidate: Reply | None = None
    repeat: bool = False
    turn: Arm | None = None

    @property
    def paired(self) -> bool:
        """Whether both students were asked, whatever came of it."""
        asked = self.champion is not None and self.candidate is not None
        return asked and (self.weight == 0.0 or self.turn is not None)

    @property
    def given_to(self) -> Arm:
        """The arm that the request was given to: the candidate also where the champion answered in its place."""
        if self.turn is not None:
            return self.turn
        return "candidate" if self.candidate is not None and self.weight != 0.0 else self.arm

    @property
    def own(self) -> tuple[Reply | None, Reply | None]:
        """What champion and candidate made of it, without the one that it was not given to (in shadow both)."""
        if self.weight == 0.0:
            return self.champion, self.candidate
        return (self.champion, None) if self.given_to == "champion" else (None, self.candidate)

    @property
    def judged(self) -> tuple[Reply | None, Reply | None]:
        """What champion and candidate made of it that a teacher or the truth may judge.

        Of a canary's request that one of two failed on, nothing: the other's answer is to an input that was chosen by
        that, and not by the split.
        """
        both = (self.champion, self.candidate)
        if self.weight != 0.0 and None not in both and not all(r.ok for r in both if r is not None):
            return None, None
        return both


class Audited(msgspec.Struct, frozen=True, kw_only=True, tag="audited", omit_defaults=True):
    """An audited answer: whether each student that answered disagrees with the teacher, or ``by`` the truth is wrong.

    ``weight`` as for the answer; ``slice``: the part of the inputs that it belongs to.
    """

    id: str
    champion: bool | None = None
    candidate: bool | None = None
    weight: float | None = None
    slice: str | None = None
    by: Literal["teacher", "truth"] = "teacher"


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """A replica that cannot load the candidate."""

    replica: str
    error: str


Observation = Answered | Audited | Failed


class Pending(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An audited answer that waits for the teacher's label of its ``content``; labels as the students gave them."""

    id: str
    content: str
    champion: str | None = None
    candidate: str | None = None
    weight: float | None = None


class Told(msgspec.Struct, frozen=True):
    """What a teacher said of a content: its reference, its label, and its scale for a number or a vector."""

    teacher: str
    label: str
    scale: float | None = None
    vector: bool = False


class Teachings:
    """The teacher's labels by content hash, the newest ``limit`` of them.

    ``complete``: whether those are among them that were there before it was begun to read them.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.complete = False
        self._told: OrderedDict[str, Told] = OrderedDict()

    def __len__(self) -> int:
        return len(self._told)

    def learn(self, label: Label) -> None:
        """Remember a label."""
        content = content_hash(label.input.payload)
        self._told[content] = Told(label.teacher, label.soft.label, label.soft.scale, bool(label.soft.vector))
        self._told.move_to_end(content)
        if len(self._told) > self.limit:
            self._told.popitem(last=False)

    def of(self, content: str, teacher: str) -> Told | None:
        """What ``teacher`` said of a content, in whatever epoch; a label by another teacher is none."""
        told = self._told.get(content)
        return told if told is not None and declared_of(told.teacher) == declared_of(teacher) else None


def observe(
    prediction: Prediction, champion: str, candidate: str, weight: float | None, repeat: bool = False
) -> tuple[Answered | None, Pending | None]:
    """The evidence in one prediction, for a rollout of version ``candidate`` against ``champion``; what to judge of it.

    ``weight`` and ``repeat`` as in :class:`Answered`. None where other versions answered: a prediction from before the
    rollout says nothing about it; nor is there anything to judge where nobody that counts gave a label.
    """
    served, other = prediction.answer, prediction.shadow
    versions: dict[Arm, str] = {"champion": champion, "candidate": candidate}
    if served.version != versions[served.arm]:
        return None, None
    asked = {served.arm: served}
    if other is not None and other.version == versions[other.arm]:
        asked[other.arm] = other
    answered = Answered(
        id=prediction.request_id,
        arm=served.arm,
        weight=weight,
        champion=_reply(asked.get("champion")),
        candidate=_reply(asked.get("candidate")),
        repeat=repeat,
        turn=prediction.turn,
    )
    ours, theirs = (_label(reply) for reply in answered.judged)
    given = Pending(
        id=prediction.request_id, content=prediction.content, champion=ours, candidate=theirs, weight=weight
    )
    return answered, given if (ours, theirs) != (None, None) else None


def _reply(answer: Answer | None) -> Reply | None:
    if answer is None:
        return None
    return Reply(
        ok=answer.ok,
        latency_ms=answer.latency_ms,
        label=answer.label,
        confidence=answer.confidence,
        entropy=answer.entropy,
    )


def _label(reply: Reply | None) -> str | None:
    return reply.label if reply is not None and reply.ok else None


def join(pending: Iterable[Pending], teachings: Teachings, teacher: str) -> tuple[list[Audited], tuple[Pending, ...]]:
    """The audits whose label is known, and what still waits."""
    audits: list[Audited] = []
    waiting: list[Pending] = []
    for one in pending:
        told = teachings.of(one.content, teacher)
        if told is None:
            waiting.append(one)
        else:
            audits.append(
                Audited(
                    id=one.id,
                    champion=disagrees(one.champion, told),
                    candidate=disagrees(one.candidate, told),
                    weight=one.weight,
                    slice=told.label if told.scale is None else None,
                )
            )
    return audits, tuple(waiting[-PENDING:])


def disagrees(label: str | None, told: Told) -> bool | None:
    """Whether an answer is another than the teacher's, of a number or a vector beyond its scale.

    None of no answer, and of one that cannot be read as what it should be: neither is evidence.
    """
    if label is None:
        return None
    if told.scale is None:
        return label != told.label
    try:
        if told.vector:
            return not near(label, told.label, told.scale)
        return abs(float(label) - float(told.label)) > SCALES * told.scale
    except ValueError:
        return None


def failures(details: Sequence[tuple[str, dict[str, str]]], digest: str) -> list[Failed]:
    """The replicas whose acknowledgement says that the artifact ``digest`` could not be loaded."""
    return [Failed(replica=name, error=failed[digest]) for name, failed in details if digest in failed]
