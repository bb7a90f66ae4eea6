"""Carrying out a decision about a teacher that changed: what becomes of the labels that were set apart.

Labels are never changed in place. Two sorts are suspect: those in ``labels.quarantine``, and those that were on
``labels`` already, made between the last clean probes and the alarm, which may be of either behaviour.

========== =============================================== ==============================================
decision   in quarantine                                   on ``labels`` since the suspicion began
========== =============================================== ==============================================
``accept`` go to ``labels`` in the new epoch; where the    no window takes them; their inputs are labelled
           teacher moved more than once, their inputs are  again
           labelled again instead
``reject`` become dead letters (``teacher_rejected``), and  the same
           their inputs are labelled again
========== =============================================== ==============================================

Where the spec asks for masking, what is written of a label from before is masked first, and its key is that of the
masked input. One that cannot be searched is a dead letter without its bytes (``dropped``), whatever the decision.

An input is labelled again by going to ``inputs`` once more; the new epoch gives its label another key, so that no
labeler takes it for a duplicate. After a rejection it waits there until the right teacher is back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from typing import Any

import msgspec

from components.contracts.admission import dead_letter
from components.contracts.errors import NotFoundError, ProvenanceError, RecordError
from components.contracts.failpoint import failpoint
from components.contracts.masking import masked_input, searched
from components.contracts.records import Label, encode, label_key, label_of
from components.contracts.signing import Signer
from components.contracts.spec import Spec
from components.control.store import ControlStore
from components.control.tables import IncidentRow
from components.control.teachers import incidents, teacher_state, update_incident
from components.stream.contract import Broker, Producer, Record, named, read_to_end
from components.teachers.contract import in_epoch

log = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""How long after a decision labelers may still send labels of the epoch that ended: they hear of it within one."""

CHUNK = 200
"""Labels that are moved between two commits."""

REASON = "teacher_rejected"


def keyed(label: Label) -> Label:
    """The label with the key that its content, teacher and space give it."""
    return msgspec.structs.replace(label, key=key_of(label))


def key_of(label: Label) -> str:
    """The key that a label must have."""
    return label_key(label.input, label.teacher, label.soft.space)


def settle(
    spec: Spec,
    broker: Broker,
    store: ControlStore,
    incident: int,
    *,
    signer: Signer | None = None,
    grace: float = GRACE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, int]:
    """Carry out the decision about an incident; again, it goes on where it was stopped.

    1. Wait until no labeler sends labels of the epoch that ended.
    2. Write down where the topics that are written to end now.
    3. Read back what was written after that by an earlier attempt, which may have died between steps 5 and 6.
    4. Take a chunk of suspect labels.
    5. Produce what the decision makes of them, but for what is there already, and wait until the broker has it.
    6. Commit the chunk's place.
    7. At the end, write down that it is settled.

    An attempt that dies after step 5 may send inputs once more, which the labeler takes for duplicates.

    Returns how many labels were ``released``, ``dropped`` to the dead letters, and how many inputs are ``relabelled``.

    Raises:
        NotFoundError: there is no such incident, or nobody decided about it.
        FinderError: personal data cannot be looked for; again, it goes on where it was stopped.

    """
    row = next((i for i in incidents(store, spec.name) if i.id == incident), None)
    if row is None or row.verdict is None or row.decided_at is None:
        raise NotFoundError("decided incident", str(incident), "see 'cohobate teacher status', then accept or reject")
    counts = {"released": 0, "dropped": 0, "relabelled": 0}
    if row.settled_at is not None:
        return {**counts, **row.detail.get("settled", {})}
    # Step 1
    sleep(max(0.0, row.decided_at + grace - store.clock()))
    broker.ensure_topics(spec.topics, spec.partitions)
    # Step 2
    written = (spec.topic("labels"), spec.topic("inputs.dlq"))
    ends = row.detail.get("settle_ends") or _ends(broker, written)
    update_incident(store, row.id, detail={"settle_ends": ends})
    failpoint("settle.2")
    # Step 3
    there = {(r.topic, r.key) for r in _since(broker, written, ends) if r.value is not None}
    sources = (spec.topic("labels.quarantine"), spec.topic("labels"))
    positions = row.detail.get("positions", {})
    with closing(broker.producer()) as producer, closing(_suspects(broker, spec, row, sources, positions)) as consumer:
        target = consumer.ends()
        while any(at < target[p] for p, at in consumer.positions().items()):
            # Step 4
            records = [r for r in consumer.poll(CHUNK, 0.2) if r.offset < target[r.place]]
            # Step 5
            for record in records:
                _carry_out(spec, row, record, producer, there, signer, counts, store.clock())
            producer.flush()
            failpoint("settle.5")
            # Step 6
            consumer.commit()
            failpoint("settle.6")
    # Step 7
    update_incident(store, row.id, settled_at=store.clock(), detail={"settled": counts})
    return counts


def _suspects(broker: Broker, spec: Spec, row: IncidentRow, topics: tuple[str, ...], positions: dict[str, int]) -> Any:
    with closing(broker.consumer(topics)) as whole:
        starts = {p: max(at, positions.get(p.name, 0)) for p, at in whole.positions().items()}
    return broker.consumer(topics, group=f"{spec.name}.settle.{row.id}", start=starts)


def _carry_out(
    spec: Spec,
    row: IncidentRow,
    record: Record,
    producer: Producer,
    there: set[tuple[str, bytes | None]],
    signer: Signer | None,
    counts: dict[str, int],
    now: float,
) -> None:
    try:
        label = label_of(spec.task, record.value)
    except RecordError:
        return  # a window counts it, and refuses it
    quarantined = record.topic == spec.topic("labels.quarantine")
    if label.teacher != in_epoch(row.teacher, row.epoch) or (not quarantined and label.labelled_at < row.suspect_from):
        return
    suspect = label.key
    try:
        masked = searched(spec, partial(masked_input, spec, label.input))
    except RecordError as error:
        counts["dropped"] += 1
        letter = dead_letter(record._replace(value=b""), error, spec.name, now)
        _send(producer, there, spec.topic("inputs.dlq"), f"{error.reason}:{row.id}:{suspect}", encode(letter), None)
        return
    if masked is not label.input:
        label = msgspec.structs.replace(label, input=masked)
        record = record._replace(value=encode(label))
    if row.verdict == "accept" and quarantined and not row.mixed:
        released = keyed(msgspec.structs.replace(label, teacher=in_epoch(row.teacher, row.epoch + 1)))
        value = encode(released)
        counts["released"] += 1
        _send(producer, there, spec.topic("labels"), released.key, value, signer.headers(value) if signer else None)
        return
    if row.verdict == "reject":
        counts["dropped"] += 1
        why = RecordError(REASON, f"incident {row.id}: the teacher's behaviour was rejected")
        letter = dead_letter(record, why, spec.name, now, ProvenanceError.__name__)
        _send(producer, there, spec.topic("inputs.dlq"), f"{REASON}:{row.id}:{suspect}", encode(letter), None)
    counts["relabelled"] += 1
    producer.send(spec.topic("inputs"), label.input.key, encode(label.input))


def _send(
    producer: Producer,
    there: set[tuple[str, bytes | None]],
    topic: str,
    key: str,
    value: bytes,
    headers: dict[str, bytes] | None,
) -> None:
    if (topic, key.encode()) not in there:
        there.add((topic, key.encode()))
        producer.send(topic, key, value, headers)


def _ends(broker: Broker, topics: Iterable[str]) -> dict[str, int]:
    with closing(broker.consumer(topics)) as consumer:
        return named(consumer.ends())


def _since(broker: Broker, topics: Iterable[str], ends: dict[str, int]) -> list[Record]:
    with closing(broker.consumer(topics)) as whole:
        starts = {p: ends.get(p.name, at) for p, at in whole.positions().items()}
    with closing(broker.consumer(topics, start=starts)) as consumer:
        return list(read_to_end(consumer))


def unsettled(store: ControlStore, workload: str) -> list[IncidentRow]:
    """Incidents that were decided and not carried out yet, oldest first."""
    return [i for i in incidents(store, workload) if i.verdict is not None and i.settled_at is None]


def status(store: ControlStore, workload: str) -> list[dict[str, Any]]:
    """One row for each incident, for people: what moved, since when, and what was decided."""
    shown = []
    for row in incidents(store, workload):
        _, state = teacher_state(store, workload, row.teacher)
        first = row.detail.get("first") or {}
        shown.append({
            "incident": row.id, "teacher": row.teacher, "epoch": row.epoch,
            "now": state.status if state else "unknown", "opened_at": row.opened_at,
            "suspect_from": row.suspect_from, "first_label": first.get("key"), "first_at": first.get("at"),
            "suspects": row.detail.get("suspects"), "windows": row.detail.get("windows", []),
            "probes": row.detail.get("probes"), "moved": row.detail.get("moved", row.detail.get("strange")),
            "mixed": row.mixed, "verdict": row.verdict, "settled": row.settled_at is not None,
        })  # fmt: skip
    return shown
