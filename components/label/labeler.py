"""The labeler: every input gets one soft label from the declared teacher, or a dead letter that says why not."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from components.contracts.errors import ConfigError, RecordError, TeacherError
from components.contracts.records import DeadLetter, Input, Label, SoftLabel, decode, encode, label_key
from components.contracts.spec import Spec
from components.label.decode import decoder
from components.label.teacher import Teacher, reference
from components.stream.contract import Broker, Record, read_to_end

log = logging.getLogger(__name__)

LETTER_BYTES = 768 * 1024
"""How much of a poisonous record goes into its dead letter: with it a letter is below every broker's usual limit of
one megabyte. The letter names the place of the whole record."""

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
    what was produced in step 4 from being labelled twice. Only a dead letter can then stand twice in its topic. After
    an error the same labeler may go on: the next cycle takes the same batch again instead of step 1.

    Content that was labelled before, under whatever input id, is counted as a duplicate and gets no second label:
    whoever needs a label for each input joins by :func:`~components.contracts.records.content_hash`.
    ``spec.label.remember`` bounds how far back that reaches.

    Raises:
        ConfigError: the teacher is not the one that the spec declares, or its task is another.

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
        self._batch: list[Record] = []
        self._recall(broker)
        self._inputs = broker.consumer([spec.topic("inputs")], group=f"{spec.name}.labeler")
        self._producer = broker.producer()

    def _recall(self, broker: Broker) -> None:
        """Read the keys of the last ``remember`` labels back."""
        topic = self.spec.topic("labels")
        consumer = broker.consumer([topic])
        firsts, ends = consumer.positions(), consumer.ends()
        recent = {p: max(firsts[p], ends[p] - self.spec.label.remember) for p in firsts}
        if recent != firsts:
            consumer.close()
            consumer = broker.consumer([topic], start=recent)
        self._remember((record.key or b"").decode(errors="replace") for record in read_to_end(consumer))
        consumer.close()

    def _remember(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._keys[key] = None
            if len(self._keys) > self.spec.label.remember:
                self._keys.popitem(last=False)

    def step(self, timeout: float = 0.5) -> int:
        """One cycle; returns how many inputs it consumed, 0 when none came within ``timeout`` seconds.

        Raises:
            TeacherError: the teacher failed; nothing of the batch was committed.
            UnavailableError: the broker did not confirm; nothing of the batch was committed.
        """
        # Step 1
        self._batch = self._batch or self._read(timeout)
        if not self._batch:
            return 0
        # Step 2
        work, letters, duplicates = self._sort(self._batch)
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
        consumed, self._batch = len(self._batch), []
        self.counts["labelled"] += len(labels)
        self.counts["duplicates"] += duplicates
        self.counts["dead"] += len(letters)
        return consumed

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
        self._check(soft, len(work))
        now = self._clock()
        return [
            Label(key=w.key, teacher=self.reference, soft=s, input=w.input, labelled_at=now)
            for w, s in zip(work, soft, strict=True)
        ]

    def _check(self, soft: Sequence[SoftLabel], asked: int) -> None:
        """Stop at an answer that no student may learn from: it would be the teacher's fault, not the input's."""
        if len(soft) != asked:
            raise TeacherError(self.reference, f"gave {len(soft)} labels for {asked} inputs")
        known = set(self.teacher.classes)
        for label in soft:
            if not isinstance(label, SoftLabel) or label.task != self.spec.task:
                raise TeacherError(self.reference, f"answered {label!r:.200}: not a soft label for {self.spec.task}")
            if label.space != self.teacher.space:
                raise TeacherError(self.reference, f"answered in space {label.space!r}, not {self.teacher.space!r}")
            if unknown := label.distribution.keys() - known:
                raise TeacherError(self.reference, f"answered classes that it did not declare: {sorted(unknown)}")

    def _letter(self, record: Record, error: RecordError) -> DeadLetter:
        log.warning("dead letter: %s-%d@%d: %s", record.topic, record.partition, record.offset, error)
        size = len(record.value)
        cut = f" (the first {LETTER_BYTES} of {size} bytes are here)" if size > LETTER_BYTES else ""
        return DeadLetter(
            workload=self.spec.name,
            reason=error.reason,
            detail=error.detail + cut,
            error=type(error.__cause__ or error).__name__,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            value=record.value[:LETTER_BYTES],
            headers=record.headers,
            at=self._clock(),
        )

    def lag(self) -> int:
        """Inputs that wait."""
        return self._inputs.lag()

    def run(self, stop: threading.Event, on_batch: Callable[[], None] | None = None) -> None:
        """Cycle until ``stop`` is set; ``on_batch`` is called after every cycle, the idle ones included."""
        log.info("labelling %s with %s", self.spec.topic("inputs"), self.reference)
        try:
            while not stop.is_set():
                self.step()
                if on_batch is not None:
                    on_batch()
        finally:
            self.close()

    def close(self) -> None:
        """Release the connections."""
        self._producer.close()
        self._inputs.close()
