"""Labelling a history: inputs from before the platform, for the first student."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from components.contracts.errors import ConfigError, FencedError, RecordError, UnavailableError
from components.contracts.records import DeadLetter, Input, content_hash, decode, encode, label_of
from components.contracts.spec import Spec, build
from components.control.store import ControlStore
from components.control.teachers import incidents
from components.label.history_file import Historic
from components.label.labeler import Labeler
from components.review import reviews
from components.stream.contract import Broker, Consumer, Positions, read_to_end
from components.teachers.contract import declared_of, in_epoch

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 15.0
"""How long nothing may be labelled before this step labels by itself: a labeler that is up answers in one or two."""

POLL_SECONDS = 0.2

LOOK_SECONDS = 2.0
"""How often it is looked whether the labeler has read the whole history, where it may skip some of it."""


def label_history(
    spec: Spec,
    broker: Broker,
    store: ControlStore,
    entries: list[Historic],
    *,
    patience: float = PATIENCE_SECONDS,
    make: Callable[[], Labeler] | None = None,
) -> dict[str, int]:
    """Put a history on the workload's topics and return when the teacher has dealt with all of it.

    1. Produce inputs and truths.
    2. Wait until every input has a label or a dead letter. One that was labelled before counts at once: the labeler
       does not label it again. Where ``label.policy`` or ``label.budget`` may skip some, those are skipped that have
       neither once a labeler has read all of the history, and wait for no decision: a person's answer to a question,
       or one about a teacher that is suspect.
    3. Where nothing is labelled for ``patience`` seconds, no labeler is at work (a fresh platform): label here, until
       a labeler comes up, takes over (which fences this one) and goes on behind it. ``make`` gives the one to use.

    Returns the number of ``inputs``, of different ``contents``, of inputs that came as ``dead`` letters, and of those
    that were ``skipped``.

    Raises:
        ConfigError: the policy or the budget skipped every one.
        TeacherError: the teacher failed.
        UnavailableError: everything that waited was consumed, and some of the history still has no label.

    """
    # Step 1
    _publish(spec, broker, entries)
    waiting = {_identity(entry.input) for entry in entries}
    counts = {"inputs": len(entries), "contents": len({content for _, content in waiting}), "dead": 0, "skipped": 0}
    choosing, all_of_them = _chosen(spec), len(waiting)
    with contextlib.ExitStack() as opened:
        consumer = opened.enter_context(contextlib.closing(broker.consumer(_answer_topics(spec))))
        labeler: Labeler | None = None
        heard = looked = time.monotonic()
        settled, ends = _settled(spec, store), _ends(spec, broker)
        while True:
            # Step 2
            undecided: set[Identity] | None = None
            if choosing and time.monotonic() - max(heard, looked) > LOOK_SECONDS:
                looked = time.monotonic()
                if _read(spec, broker, ends):  # questions, labels and letters are there: now they may be looked for
                    undecided = _undecided(spec, broker, store, settled)
            for identity, dead in _answers(consumer, spec):
                if identity is not None and identity in waiting:
                    waiting.remove(identity)
                    counts["dead"] += dead
                    heard = time.monotonic()
            if undecided is not None:
                counts["skipped"] = _skipped(spec, len(waiting - undecided), all_of_them)
                waiting, choosing = waiting & undecided, False
            if not waiting:
                return counts
            # Step 3
            quiet = time.monotonic() - heard > patience
            if labeler is None and quiet:
                log.warning("%s: no labeler is at work; labelling the history here", spec.name)
                made = make() if make else Labeler(spec, build(spec.teacher, spec.source), broker)
                labeler, heard = opened.enter_context(contextlib.closing(made)), time.monotonic()
            elif labeler is None:
                time.sleep(POLL_SECONDS)
            elif (consumed := _step(labeler)) is None:
                log.info("%s: a labeler came up and goes on with the history", spec.name)
                labeler, heard = None, time.monotonic()
            elif consumed == 0 and quiet:
                raise UnavailableError(
                    "labeler",
                    spec.name,
                    f"{len(waiting)} inputs of the history got no label: 'cohobate review list' shows those that wait "
                    "for people, 'cohobate teacher status' whether the teacher is suspect",
                )


def _chosen(spec: Spec) -> bool:
    """Whether the labeler chooses among inputs, and may skip some."""
    return spec.label.policy.kind != "all" or spec.label.budget.limited


def _ends(spec: Spec, broker: Broker) -> Positions:
    with contextlib.closing(broker.consumer([spec.topic("inputs")])) as consumer:
        return consumer.ends()


def _read(spec: Spec, broker: Broker, ends: Positions) -> bool:
    """Whether labelers have read the inputs up to ``ends``."""
    with contextlib.closing(broker.consumer([spec.topic("inputs")], group=f"{spec.name}.labeler")) as consumer:
        return all(at >= ends.get(place, 0) for place, at in consumer.positions().items())


def _settled(spec: Spec, store: ControlStore) -> set[str]:
    """Who made the labels in quarantine that wait for nothing any more: they were released, or are asked for again."""
    return {in_epoch(i.teacher, i.epoch) for i in incidents(store, spec.name) if i.settled_at is not None}


def _undecided(spec: Spec, broker: Broker, store: ControlStore, settled: set[str]) -> set[Identity]:
    """What people have yet to decide about: inputs with a question, or with a label in quarantine."""
    found = {
        _identity(decode(Input, row.input))
        for row in reviews.unpublished(store, spec.name)
        if _declared(spec, row.teacher)
    }
    with contextlib.closing(broker.consumer([spec.topic("labels.quarantine")])) as consumer:
        for record in read_to_end(consumer):
            with contextlib.suppress(RecordError):
                label = label_of(spec.task, record.value)
                if _declared(spec, label.teacher) and label.teacher not in settled:
                    found.add(_identity(label.input))
    return found


def _skipped(spec: Spec, skipped: int, inputs: int) -> int:
    """How many were skipped, which is told.

    Raises:
        ConfigError: it is all of them.

    """
    said = f"{skipped} of {inputs} inputs of the history were skipped by label.policy or label.budget"
    if skipped == inputs:
        raise ConfigError("label", said, "must leave some to learn from: 'cohobate budget status' shows what is left")
    if skipped:
        log.warning("%s: %s", spec.name, said)
    return skipped


def _step(labeler: Labeler) -> int | None:
    """Label a batch; returns how many inputs it had, None where another labeler has taken over."""
    try:
        return labeler.step(POLL_SECONDS)
    except FencedError:
        return None


def _publish(spec: Spec, broker: Broker, entries: list[Historic]) -> None:
    broker.ensure_topics(spec.topics, partitions=spec.partitions)
    with contextlib.closing(broker.producer()) as producer:
        for entry in entries:
            producer.send(spec.topic("inputs"), entry.input.key, encode(entry.input))
            if entry.truth is not None:
                producer.send(spec.topic("truth"), entry.truth.input_id, encode(entry.truth))
        producer.flush()


def _answer_topics(spec: Spec) -> list[str]:
    return [spec.topic("labels"), spec.topic("inputs.dlq")]


Identity = tuple[str, str]
"""Id and content hash of an input."""


def _identity(entry: Input) -> Identity:
    return entry.id, content_hash(entry.payload)


def _answers(consumer: Consumer, spec: Spec) -> Iterator[tuple[Identity | None, bool]]:
    for record in read_to_end(consumer):
        yield _answered(record.topic, record.value, spec)


def _answered(topic: str, value: bytes | None, spec: Spec) -> tuple[Identity | None, bool]:
    """The input that a label or dead letter is about (None: none that is known), and whether it is dead."""
    try:
        if topic != spec.topic("labels"):
            return _identity(decode(Input, decode(DeadLetter, value).value)), True
        label = label_of(spec.task, value)
    except RecordError:
        return None, False
    return (_identity(label.input) if _declared(spec, label.teacher) else None), False


def _declared(spec: Spec, teacher: str) -> bool:
    return spec.teacher_digest in (None, declared_of(teacher))
