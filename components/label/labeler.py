"""The labeler: every input gets one soft label from the declared teacher, or a dead letter that says why not."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from components.contracts.errors import ConfigError, RecordError, TeacherError
from components.contracts.records import DeadLetter, Input, Label, decode, encode, label_key
from components.contracts.spec import Spec
from components.label.decode import decoder
from components.label.teacher import Teacher, reference
from components.stream.contract import Broker, Record, read_to_end

log = logging.getLogger(__name__)

FUTURE_SECONDS = 86_400.0
"""An input from further in the future than clocks and time zones explain is poison: it would corrupt time joins."""


class _Work(NamedTuple):
    input: Input
    key: str
    payload: Any


class Labeler:
    """Consumes a workload's inputs, asks the teacher in batches, and produces soft labels.

    One cycle (:meth:`step`) is, in this order:

    1. Read a batch of inputs.
    2. Set aside the poison and the content that is labelled already.
    3. Ask the teacher for the rest.
    4. Produce labels and dead letters, and wait until the broker has them all.
    5. Remember the labels' keys.
    6. Commit the inputs' positions.

    A crash before step 6 reads the batch again; the keys, which a new labeler reads back from the labels topic, keep
    what was produced in step 4 from being labelled twice. Only a dead letter can then stand twice in its topic.
    """

    def __init__(self, spec: Spec, teacher: Teacher, broker: Broker, clock: Callable[[], float] = time.time) -> None:
        self.spec, self.teacher, self._clock = spec, teacher, clock
        self.reference = reference(teacher)
        if spec.teacher_digest not in (None, self.reference):
            raise ConfigError("teacher_digest", spec.teacher_digest, f"the teacher that was loaded is {self.reference}")
        if teacher.task != spec.task:
            raise ConfigError("task", spec.task, f"the teacher's task is {teacher.task}")
        self.counts = {"labelled": 0, "duplicates": 0, "dead": 0}
        self._decode = decoder(spec.payload, spec.source)
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._recall(broker)
        self._inputs = broker.consumer([spec.topic("inputs")], group=f"{spec.name}.labeler")
        self._producer = broker.producer()

    def _recall(self, broker: Broker) -> None:
        consumer = broker.consumer([self.spec.topic("labels")])
        for record in read_to_end(consumer):
            self._remember([(record.key or b"").decode()])
        consumer.close()

    def _remember(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._keys[key] = None
        while len(self._keys) > self.spec.label.remember:
            self._keys.popitem(last=False)

    def step(self, timeout: float = 0.5) -> int:
        """One cycle; returns how many inputs it consumed, 0 when none came within ``timeout`` seconds.

        Raises:
            TeacherError: the teacher failed; nothing of the batch was committed.
            UnavailableError: the broker did not confirm; nothing of the batch was committed.
        """
        # Step 1
        records = self._read(timeout)
        if not records:
            return 0
        # Step 2
        work, letters, duplicates = self._sort(records)
        # Step 3
        labels = self._ask(work)
        # Step 4
        for label in labels:
            self._producer.send(self.spec.topic("labels"), label.key, encode(label))
        for letter in letters:
            self._producer.send(self.spec.topic("inputs.dlq"), letter.key, encode(letter))
        self._producer.flush()
        # Step 5
        self._remember(label.key for label in labels)
        # Step 6
        self._inputs.commit()
        self.counts["labelled"] += len(labels)
        self.counts["duplicates"] += duplicates
        self.counts["dead"] += len(letters)
        return len(records)

    def _read(self, timeout: float) -> list[Record]:
        records = self._inputs.poll(self.spec.label.batch, timeout)
        deadline = time.monotonic() + self.spec.label.linger_seconds
        while records and (room := self.spec.label.batch - len(records)) > 0:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            records += self._inputs.poll(room, remaining)
        return records

    def _sort(self, records: list[Record]) -> tuple[list[_Work], list[DeadLetter], int]:
        work: dict[str, _Work] = {}
        letters, duplicates = [], 0
        for record in records:
            try:
                found = self._open(record)
            except RecordError as error:
                letters.append(self._letter(record, error))
                continue
            if found.key in self._keys or found.key in work:
                duplicates += 1
            else:
                work[found.key] = found
        return list(work.values()), letters, duplicates

    def _open(self, record: Record) -> _Work:
        entry = decode(Input, record.value)
        if entry.workload != self.spec.name:
            raise RecordError("wrong_workload", f"input of {entry.workload!r} on the topic of {self.spec.name!r}")
        if entry.time > self._clock() + FUTURE_SECONDS:
            raise RecordError("future_time", f"event time {entry.time:.0f} is more than a day ahead")
        payload = self._decode(entry.payload)
        return _Work(entry, label_key(entry.payload, self.reference, self.teacher.space), payload)

    def _ask(self, work: list[_Work]) -> list[Label]:
        if not work:
            return []
        try:
            soft = self.teacher.label([w.payload for w in work])
        except ValueError as error:
            raise TeacherError(self.reference, f"answered something that is not a soft label: {error}") from error
        if len(soft) != len(work):
            raise TeacherError(self.reference, f"gave {len(soft)} labels for {len(work)} inputs")
        for label in soft:
            if label.space != self.teacher.space:
                raise TeacherError(self.reference, f"answered in space {label.space!r}, not {self.teacher.space!r}")
        now = self._clock()
        return [
            Label(key=w.key, teacher=self.reference, soft=s, input=w.input, labelled_at=now)
            for w, s in zip(work, soft, strict=True)
        ]

    def _letter(self, record: Record, error: RecordError) -> DeadLetter:
        log.warning("dead letter: %s-%d@%d: %s", record.topic, record.partition, record.offset, error)
        return DeadLetter(
            workload=self.spec.name,
            reason=error.reason,
            detail=error.detail,
            error=type(error.__cause__ or error).__name__,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            value=record.value,
            headers=record.headers,
            at=self._clock(),
        )

    def lag(self) -> int:
        """Inputs that wait."""
        return self._inputs.lag()

    def run(self, stop: threading.Event, on_batch: Callable[[], None] | None = None) -> None:
        """Cycle until ``stop`` is set; ``on_batch`` is called after every cycle, the idle ones included."""
        log.info("labelling %s with %s", self.spec.topic("inputs"), self.reference)
        while not stop.is_set():
            self.step()
            if on_batch is not None:
                on_batch()
        self.close()

    def close(self) -> None:
        """Release the connections."""
        self._producer.close()
        self._inputs.close()
