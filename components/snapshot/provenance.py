"""Who made a label, and whether a window may take it: checked on every record, whatever topic it is on.

What the checks prove: that a record says it was made by the declared teacher, in an epoch in force and before any
suspicion; that its key fits its content, teacher and label space, so that none of them was changed alone; that its
classes are the teacher's and its input's consent is an allowed one. They do not prove who wrote it: the digest is
public, so whoever may write to the labels topic can write all of that. ``label.signed_by`` closes this: then only the
holder of the labeler's private key can. A signed label that is sent again is dropped as a duplicate, and one copied
out of quarantine names an epoch that ended. Without signatures the topic's access rules (Kafka ACLs: only the
labeler's principal may write) are what remains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from components.contracts.admission import check_consent, dead_letter
from components.contracts.errors import ProvenanceError, RecordError
from components.contracts.records import Label, Truth, decode, encode, label_of
from components.contracts.signing import Verifier
from components.contracts.spec import Spec
from components.contracts.tagging import names_of
from components.control.store import ControlStore
from components.control.teachers import TeacherState, teacher_state
from components.stream.contract import Broker, Record
from components.teacher_watch.settle import key_of
from components.teachers.contract import declared_of, in_epoch

REFUSED = "refused"
"""The gauge that counts what was refused and keeps the places up to which refusals are in their topic."""


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What labels of a workload must say.

    ``space``, and ``dimension``, of the vectors of an embedding: None: the first label decides.
    """

    spec: Spec
    teacher: str
    state: TeacherState | None
    space: str | None
    verifier: Verifier | None
    dimension: int | None = None

    @classmethod
    def of(
        cls, spec: Spec, store: ControlStore, teacher: str, space: str | None, dimension: int | None = None
    ) -> Declared:
        """What a workload declares now; ``teacher`` in any epoch, ``space`` where the spec and teacher name none."""
        base = declared_of(teacher)
        _, state = teacher_state(store, spec.name, base)
        known = spec.teacher_space or (state.space if state else None) or space
        verifier = Verifier(spec.label.signed_by) if spec.label.signed_by else None
        return cls(spec=spec, teacher=base, state=state, space=known, verifier=verifier, dimension=dimension)

    @property
    def reference(self) -> str:
        """The teacher whose behaviour is in force, as windows name it: ``name@digest``, or with its first epoch."""
        return in_epoch(self.teacher, self.state.behaviour if self.state else 0)

    def check(self, record: Record) -> Label:
        """The label in a record.

        Raises:
            RecordError: it must not be learnt from. Reasons, besides those of
                :func:`~components.contracts.records.decode`: ``unsigned``, ``other_workload``, ``other_task``,
                ``undeclared_teacher``, ``unknown_epoch``, ``other_behaviour`` (of before an accepted change),
                ``suspect_teacher``, ``undeclared_space``, ``undeclared_class``, ``wrong_key``,
                ``consent_missing``, ``consent_refused``.

        """
        value = record.value
        if value is not None and self.verifier is not None and not self.verifier.accepts(value, record.headers):
            raise RecordError("unsigned", "no signature of the labeler's key fits the record")
        label = label_of(self.spec.task, value)
        if label.input.workload != self.spec.name:
            raise RecordError("other_workload", label.input.workload)
        self._teacher(label)
        if self.space is not None and label.soft.space != self.space:
            raise RecordError("undeclared_space", f"{label.soft.space}, not {self.space}")
        if self.dimension is not None and len(label.soft.vector) != self.dimension:
            told = f"a vector of {len(label.soft.vector)} numbers, while those of {label.soft.space} have"
            raise RecordError("undeclared_space", f"{told} {self.dimension}: give another space another name")
        classes = self.state.classes if self.state else ()
        if classes and (strange := names_of(label.soft) - set(classes)):
            raise RecordError("undeclared_class", ", ".join(sorted(strange)))
        if label.key != key_of(label):
            raise RecordError("wrong_key", f"{label.key:.64} is not the key of this content, teacher and space")
        if label.input.synthetic is None:
            check_consent(label.input.consent, self.spec.consent)
        return label

    def _teacher(self, label: Label) -> None:
        if declared_of(label.teacher) != self.teacher:
            raise RecordError("undeclared_teacher", label.teacher)
        epoch = _epoch(label.teacher)
        if epoch is None or epoch > (self.state.epoch if self.state else 0):
            raise RecordError("unknown_epoch", label.teacher)
        if self.state is None:
            return
        until = self.state.until(epoch)
        if until is None:
            raise RecordError("other_behaviour", f"{label.teacher} was before {self.reference} was accepted")
        if label.labelled_at >= until:
            raise RecordError("suspect_teacher", f"made at {label.labelled_at}, suspect from {until}")

    def truth(self, record: Record) -> Truth:
        """The truth in a record: :func:`usable_truth`."""
        return usable_truth(self.spec, record)


def usable_truth(spec: Spec, record: Record) -> Truth:
    """The truth in a record.

    Raises:
        RecordError: it must not count: ``other_workload``, ``other_task``, ``unknown_source``, or a reason of
            :func:`~components.contracts.records.decode`.

    """
    truth = decode(Truth, record.value)
    if truth.workload != spec.name:
        raise RecordError("other_workload", truth.workload)
    if truth.task != spec.task:
        raise RecordError("other_task", f"a truth of {truth.task}, not of {spec.task}")
    if spec.truth_sources is not None and truth.source not in spec.truth_sources:
        raise RecordError("unknown_source", f"{truth.source!r} is none of {', '.join(spec.truth_sources)}")
    return truth


def _epoch(reference: str) -> int | None:
    """The epoch of a reference in its only spelling; None for another."""
    _, sign, number = reference.partition("#")
    if not sign:
        return 0
    return int(number) if number.isdecimal() and number.isascii() and number[0] != "0" else None


Refusal = tuple[Record, RecordError]


def quarantine(spec: Spec, broker: Broker, store: ControlStore, refusals: Sequence[Refusal], now: float) -> int:
    """Put refused records on ``labels.refused`` with their reasons; returns how many were not there yet.

    1. Leave out what an earlier call has put there, by the places in the gauge.
    2. Produce a dead letter for each, and wait until the broker has them.
    3. Count them, and keep the new places, in the gauge. A crash before this sends the same letters once more.
    """
    # Step 1
    gauge = store.gauges(spec.name).get(REFUSED)
    known: dict[str, Any] = gauge.value if gauge else {}
    places: dict[str, list[Any]] = dict(known.get("places", {}))
    new = [(r, e) for r, e in refusals if not _there(r, places)]
    if not new:
        return 0
    # Step 2
    topic = spec.topic("labels.refused")
    broker.ensure_topics([topic], spec.partitions)
    with closing(broker.producer()) as producer:
        for record, error in new:
            key = f"{record.place.name}:{record.offset}"
            producer.send(topic, key, encode(dead_letter(record, error, spec.name, now, ProvenanceError.__name__)))
        producer.flush()
    # Step 3
    reasons = Counter(known.get("reasons", {})) + Counter(error.reason for _, error in new)
    for record, _ in new:
        places[record.place.name] = [record.offset, record.timestamp]
    store.put_gauge(
        spec.name, REFUSED, {"total": reasons.total(), "reasons": dict(reasons), "places": places}
    )  # fmt: skip
    return len(new)


def _there(record: Record, places: dict[str, list[Any]]) -> bool:
    """Whether this very record is in its topic; another at an earlier offset but later is of a broker started anew."""
    offset, timestamp = places.get(record.place.name, (-1, 0.0))
    return record.offset <= int(offset) and record.timestamp <= float(timestamp)


def reasons_of(refusals: Iterable[Refusal]) -> dict[str, int]:
    """How many refusals there are of each reason."""
    return dict(Counter(error.reason for _, error in refusals))
