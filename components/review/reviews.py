"""The queue of questions to people.

A question is kept before its input is committed, so it is not lost; the labeler goes on with other inputs. Its label is
published when the answer is given, by who gives it, never by the labeler: content that waits or was answered is
deferred again, and being asked again changes nothing.

Publishing an answer (:func:`publish`):

1. Claim the answered questions that are not published. One publisher holds a question at a time.
2. Note the ends of the labels topic, durably, before anything is sent: once only for each question.
3. Look for the labels between those ends and now: a publisher that died after step 4 may have sent them.
4. Send those that are not there, and wait until the broker has them all.
5. Mark the questions as published.

A crash at any place is repaired by the next :func:`publish`, and sends no label twice. A publisher that is stopped for
longer than :data:`CLAIM_SECONDS` within steps 3 and 4 and then goes on can; readers drop the second by its key.

A question may have been asked before the workload's inputs were masked. Its input is masked when a labeler starts
(:func:`masked`), and at the latest before its label is sent. What cannot be searched is kept nowhere: its question is
deleted, with its answer.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Sequence
from functools import partial

import msgspec
from sqlalchemy import delete, or_, select, update

from components.contracts.errors import ConfigError, NotFoundError, RecordError, TransitionError
from components.contracts.masking import known_search, masked_input, searched
from components.contracts.records import Input, Label, SoftLabel, decode, encode
from components.contracts.spec import Spec
from components.control.looks import KEPT
from components.control.store import ControlStore
from components.control.tables import ReviewRow
from components.control.workloads import spec_in_force
from components.stream.contract import Broker, TopicPartition, read_to_end
from components.teachers.contract import Question

log = logging.getLogger(__name__)

CLAIM_SECONDS = 120.0
"""How long a publisher may take: four times what a producer waits for its broker."""

ASKING_SECONDS = 600.0
"""How long, at most, a question that is being asked is not there yet for others."""

SEARCHED = "masked_questions"
"""The gauge of how many questions a start searched last; it keeps by what, and until when asked none need it again."""


def ask(
    store: ControlStore, workload: str, teacher: str, space: str, classes: Sequence[str], questions: Sequence[Question]
) -> int:
    """Keep questions; those that are kept already stay as they are. Returns how many are new."""
    with store.transaction() as s:
        new = [q for q in {q.key: q for q in questions}.values() if s.get(ReviewRow, (workload, q.key)) is None]
        for question in new:
            draft = question.deferred.draft
            s.add(
                ReviewRow(
                    workload=workload, key=question.key, teacher=teacher, space=space, classes=list(classes),
                    input=encode(question.input), draft=None if draft is None else msgspec.to_builtins(draft),
                    why=question.deferred.why, policy=question.policy, probability=question.probability,
                    audit=question.audit, asked_at=store.clock(),
                )
            )  # fmt: skip
    return len(new)


def waiting(store: ControlStore, workload: str, limit: int = 100) -> list[ReviewRow]:
    """Questions without an answer, oldest first."""
    with store.session() as s:
        query = select(ReviewRow).where(ReviewRow.workload == workload, ReviewRow.answered_at.is_(None))
        return list(s.scalars(query.order_by(ReviewRow.asked_at, ReviewRow.key).limit(limit)))


def unpublished(store: ControlStore, workload: str) -> list[ReviewRow]:
    """Questions whose label is not on the topic yet, answered or not."""
    with store.session() as s:
        query = select(ReviewRow).where(ReviewRow.workload == workload, ReviewRow.published_at.is_(None))
        return list(s.scalars(query))


def get(store: ControlStore, workload: str, key: str) -> ReviewRow:
    """The question whose key begins with ``key``.

    Raises:
        NotFoundError: there is none, or more than one.

    """
    with store.session() as s:
        query = select(ReviewRow).where(ReviewRow.workload == workload, ReviewRow.key.startswith(key, autoescape=True))
        found = list(s.scalars(query.limit(2)))
    if len(found) != 1 or not key:
        raise NotFoundError("question", key, "give the first characters of one: 'cohobate review list' shows them")
    return found[0]


def soft_label(row: ReviewRow, label: str, confidence: float) -> SoftLabel:
    """A person's answer as a soft label: ``confidence`` for ``label``, the rest spread evenly over the others.

    Raises:
        ConfigError: the label is no class, or the confidence is below even or above 1.

    """
    classes = [str(c) for c in row.classes]
    if label not in classes:
        raise ConfigError("label", label, f"must be one of {', '.join(classes)}")
    if not 1 / len(classes) <= confidence <= 1:
        raise ConfigError("confidence", confidence, f"must be between {1 / len(classes):.3g} and 1")
    rest = (1 - confidence) / max(1, len(classes) - 1)
    return SoftLabel.of(row.space, tuple(classes), [confidence if c == label else rest for c in classes])


def answer(
    store: ControlStore, broker: Broker, workload: str, key: str, label: str, annotator: str, confidence: float = 1.0
) -> ReviewRow:
    """Answer the question whose key begins with ``key``, and publish its label.

    Raises:
        NotFoundError: there is no such question.
        TransitionError: it has another answer already.
        ConfigError: the answer is not allowed.
        UnavailableError: the broker does not answer; the answer is kept, and the next :func:`publish` sends it.

    """
    if not annotator:
        raise ConfigError("annotator", annotator, "must name the person: the label carries it")
    found = get(store, workload, key)
    soft = soft_label(found, label, confidence)
    with store.transaction() as s:
        row = s.get_one(ReviewRow, (workload, found.key), with_for_update=True)
        if row.answered_at is not None and (_answer(row), row.annotator) != (soft, annotator):
            raise TransitionError(f"answer question {found.key[:12]}", f"answered by {row.annotator}", ())
        if row.answered_at is None:
            row.answer, row.annotator, row.answered_at = msgspec.to_builtins(soft), annotator, store.clock()
    publish(store, broker, workload)
    return get(store, workload, found.key)


def publish(store: ControlStore, broker: Broker, workload: str) -> int:
    """Publish what is answered and not published; returns how many labels were sent.

    Raises:
        UnavailableError: the broker does not answer, or the search for personal data failed: nothing is lost.

    """
    me = uuid.uuid4().hex
    # Step 1
    rows = _claim(store, workload, me)
    if not rows:
        return 0
    try:
        if (spec := spec_in_force(store, workload)) is not None:
            rows = [row for row in rows if _mask(store, spec, row)]
        return _send(store, broker, workload, rows)
    finally:
        _release(store, workload, me)


def _send(store: ControlStore, broker: Broker, workload: str, rows: list[ReviewRow]) -> int:
    topic = f"{workload}.labels"
    with contextlib.closing(broker.consumer([topic])) as consumer:
        # Step 2
        ends = {str(p.partition): offset for p, offset in consumer.ends().items()}
        rows = _note_ends(store, rows, ends)
    # Step 3
    there = _keys_since(broker, topic, rows)
    # Step 4
    missing = [row for row in rows if row.key not in there]
    with contextlib.closing(broker.producer()) as producer:
        for row in missing:
            producer.send(topic, row.key, encode(_label(row)))
        producer.flush()
    # Step 5
    with store.transaction() as s:
        for row in rows:
            s.get_one(ReviewRow, (workload, row.key)).published_at = store.clock()
    return len(missing)


def masked(store: ControlStore, spec: Spec) -> int:
    """Mask the inputs of all questions of a workload whose spec asks for it; returns how many were changed or deleted.

    Those that were searched before in the same way (:func:`~components.contracts.masking.known_search`) are left out.

    Raises:
        FinderError: the search failed.

    """
    if spec.masking is None:
        return 0
    now, search, query = store.clock(), known_search(spec), select(ReviewRow).where(ReviewRow.workload == spec.name)
    noted = store.gauges(spec.name).get(SEARCHED)
    if noted is not None and search == noted.value[KEPT]["search"]:
        query = query.where(ReviewRow.asked_at >= noted.value[KEPT]["until"])
    with store.session() as s:
        rows = list(s.scalars(query))
    count = 0
    for row in rows:
        before = row.input
        count += not _mask(store, spec, row) or row.input != before
    if search is not None:
        done = {"search": search, "until": now - ASKING_SECONDS}
        store.put_gauge(spec.name, SEARCHED, {"questions": len(rows), KEPT: done})
    return count


def _mask(store: ControlStore, spec: Spec, row: ReviewRow) -> bool:
    """Mask a question's input, in the row as it was read too; False where it cannot be, and is deleted."""
    entry = decode(Input, row.input)
    try:
        found = searched(spec, partial(masked_input, spec, entry))
    except RecordError as error:
        log.warning("%s: question %s is deleted: its input cannot be masked: %s", spec.name, row.key[:12], error.reason)
        with store.transaction() as s:
            s.execute(delete(ReviewRow).where(ReviewRow.workload == spec.name, ReviewRow.key == row.key))
        return False
    if found is not entry:
        row.input = encode(found)
        with store.transaction() as s:
            kept = update(ReviewRow).where(ReviewRow.workload == spec.name, ReviewRow.key == row.key)
            s.execute(kept.values(input=row.input))
    return True


def _claim(store: ControlStore, workload: str, me: str) -> list[ReviewRow]:
    with store.transaction() as s:
        now = store.clock()
        query = select(ReviewRow).where(
            ReviewRow.workload == workload,
            ReviewRow.published_at.is_(None),
            ReviewRow.answered_at.is_not(None),
            or_(ReviewRow.publisher.is_(None), ReviewRow.publisher_until < now),
        )
        rows = list(s.scalars(query.order_by(ReviewRow.answered_at, ReviewRow.key).with_for_update()))
        for row in rows:
            row.publisher, row.publisher_until = me, now + CLAIM_SECONDS
    return rows


def _release(store: ControlStore, workload: str, me: str) -> None:
    """What was sent is published by now; the rest is free for the next publisher, after the producer was closed."""
    with store.transaction() as s:
        for row in s.scalars(select(ReviewRow).where(ReviewRow.workload == workload, ReviewRow.publisher == me)):
            row.publisher = row.publisher_until = None


def _note_ends(store: ControlStore, rows: list[ReviewRow], ends: dict[str, int]) -> list[ReviewRow]:
    with store.transaction() as s:
        noted = [s.get_one(ReviewRow, (row.workload, row.key)) for row in rows]
        for row in noted:
            row.ends = row.ends or ends
    return noted


def _keys_since(broker: Broker, topic: str, rows: list[ReviewRow]) -> set[str]:
    start: dict[TopicPartition, int] = {}
    for row in rows:
        for partition, offset in (row.ends or {}).items():
            place = TopicPartition(topic, int(partition))
            start[place] = min(int(offset), start.get(place, int(offset)))
    with contextlib.closing(broker.consumer([topic], start=start)) as consumer:
        made = (record for record in read_to_end(consumer) if record.value is not None)
        return {(record.key or b"").decode(errors="replace") for record in made}


def _answer(row: ReviewRow) -> SoftLabel:
    return msgspec.convert(row.answer, SoftLabel)


def _label(row: ReviewRow) -> Label:
    return Label(
        key=row.key, teacher=row.teacher, soft=_answer(row), input=decode(Input, row.input),
        labelled_at=row.answered_at or time.time(), policy=row.policy, probability=row.probability, audit=row.audit,
        annotator=row.annotator,
    )  # fmt: skip
