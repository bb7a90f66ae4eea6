"""A worker: one share of a workload's partitions on its way from inputs to labels, exactly once.

A share is a fixed set of partitions with a transactional id of its own. Whoever works on it is the only one who can:
opening the worker fences everybody who had it before, whatever became of them.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from opentelemetry.trace import INVALID_SPAN, Span

from components.contracts.errors import FinderError, NotFoundError, RecordError
from components.contracts.failpoint import failpoint
from components.contracts.records import DeadLetter, Label, encode
from components.contracts.signing import Signer
from components.contracts.spec import Kind, Spec
from components.label.asking import Asking
from components.label.intake import Intake, Keys, Place, Work, places_of
from components.label.isolate import isolate
from components.label.search import Search
from components.stream.contract import (
    MAX_RECORD_BYTES,
    Broker,
    Consumer,
    Positions,
    Record,
    TopicPartition,
    TransactionalProducer,
    read_to_end,
)
from components.telemetry import tracing

SHARES = 64
"""Partition ``p`` belongs to share ``p % SHARES``: each partition has one of its own up to this number, and a topic
that grows changes no partition's share. It is also the most labelers that work on one workload at a time."""

URGENT_SHARE = 0.75
"""How much of a batch urgent inputs may take while others wait: these are slowed down, never starved."""

LOOK_SECONDS = 0.05
"""How often the urgent inputs are looked at while a worker waits for others."""

LAG_SECONDS = 1.0
"""How old the number of waiting inputs may be."""

IDLE_AFTER_SECONDS = 2.0
"""After so long without an input, inputs are looked for less often: every look costs both sides a request."""

IDLE_LOOK_SECONDS = 0.5
"""How often, then: the most that the first input after a pause waits for more."""

IDLE_POLL_SECONDS = 0.02
"""How long such a look waits: a broker that has a record answers sooner."""

IDLE_LAG_SECONDS = 10.0
"""How old the number of waiting inputs may be while there are none."""

LETTER_BATCHES = 8
"""How many batches of dead letters are read back: one transaction at most was open when the worker changed hands."""

RECORD_OVERHEAD = 1_024
"""Bytes of a record beside its value, generously."""


class Batch(NamedTuple):
    """Inputs on their way through steps 5 to 10.

    ``positions``: behind them; ``behind``: what their commit moves, of the reading that they are from; ``urgent``: a
    caller waits for one; ``span``: the batch in its inputs' traces.
    """

    records: int
    work: list[Work]
    letters: list[tuple[Record, DeadLetter]]
    duplicates: int
    positions: dict[TopicPartition, int]
    behind: dict[TopicPartition, int]
    urgent: bool
    fetched_at: float
    span: Span = INVALID_SPAN


class Labelled(NamedTuple):
    """A batch as it will be written: labels with the records that they are for, and dead letters with theirs."""

    batch: Batch
    labels: list[tuple[Record, Label, bytes]]
    letters: list[tuple[Record, DeadLetter]]
    deferred: int = 0
    skipped: int = 0


def shares_of(broker: Broker, spec: Spec) -> dict[int, list[TopicPartition]]:
    """The shares of a workload and their input partitions, the urgent topic's first."""
    shares: dict[int, list[TopicPartition]] = {}
    for topic in (spec.topic("inputs.urgent"), spec.topic("inputs")):
        for place in broker.partitions(topic):
            shares.setdefault(place.partition % SHARES, []).append(place)
    return dict(sorted(shares.items()))


class PartitionWorker:
    """One share's inputs, labels and transactions.

    Opening it:

    1. Take the share's transactional id: whoever had it is fenced, and what that left open is aborted.
    2. Read the keys of the share's last labels back.
    3. Stand where the share's last transaction left the inputs.

    For each batch:

    4. Fetch inputs, the urgent ones first.
    5. Sort out poison, and what was delivered again and has its label.
    6. Ask the teacher for the rest (:class:`components.label.asking.Asking`).
    7. Begin a transaction.
    8. Produce labels and dead letters.
    9. Add the positions behind the batch.
    10. Commit: labels, letters and positions become visible together.

    A crash anywhere before step 10 is done leaves nothing visible, and the batch is fetched again; a crash after it
    leaves all of it. The keys of step 2 are for inputs that their *producer* delivers twice, and for the embedded
    broker, which drops the positions of an aborted transaction but shows its records: what is visible counts, and is
    not produced again. After an error in steps
    7 to 10 nobody here knows whether the transaction counts: :meth:`close` the worker and open it anew, which finds
    out. After an error of the teacher the same batch may be asked for again.

    Threads: :meth:`fetch` and what it uses belong to one thread, :meth:`commit` may be called by another.
    """

    def __init__(
        self,
        share: int,
        places: Sequence[TopicPartition],
        spec: Spec,
        broker: Broker,
        intake: Intake,
        asking: Asking,
        signer: Signer | None = None,
    ) -> None:
        self.share, self.places, self.spec, self.intake, self.asking = share, list(places), spec, intake, asking
        self.group = f"{spec.name}.labeler"
        self.lag, self.resets = 0, 0
        self.ends: Positions = {}
        self.positions: Positions = {}
        self._behind: dict[TopicPartition, int] = {}
        self._fetched: dict[TopicPartition, int] = {}
        self._signer = signer
        self.opened = False
        self._broker = broker
        self._keys = Keys(spec.label.remember)
        self._lettered: frozenset[Place] = frozenset()
        self._urgent: Consumer | None = None
        self._bulk: Consumer | None = None
        self._producer: TransactionalProducer | None = None
        self._rest: deque[Record] = deque()
        self._search = Search(spec)
        self._counted = -math.inf
        self._came = self._looked = -math.inf
        self._partitions: dict[str, int] = {}

    def open(self) -> None:
        """Steps 1 to 3.

        Raises:
            NotFoundError: a topic does not exist.
            LostPositionsError: the broker lost the inputs' positions, and the spec says to stop then.
            UnavailableError: the broker does not answer.

        """
        # Step 1
        self._producer = self._broker.transactional_producer(f"{self.group}.{self.share}")
        failpoint("labeler.1")
        # Step 2
        self._recall()
        failpoint("labeler.2")
        # Step 3
        self._urgent = self._reader("inputs.urgent")
        self._bulk = self._reader("inputs")
        self._behind = self._at()
        self.opened = True
        failpoint("labeler.3")

    def _reader(self, kind: Kind) -> Consumer | None:
        topic = self.spec.topic(kind)
        mine = [p for p in self.places if p.topic == topic]
        if not mine:
            return None
        lost = self.spec.label.on_lost_positions
        return self._broker.consumer([topic], group=self.group, partitions=mine, on_lost=lost)

    def _recall(self) -> None:
        """Read the keys of the share's last labels back, and the places that its last dead letters are about."""
        by = self.intake.teacher()
        for kind in ("labels", "labels.quarantine"):
            self._keys.recall(self._last(kind, self.spec.label.remember), by)
        letters = self._last("inputs.dlq", self.spec.label.batch * LETTER_BATCHES)
        self._lettered = frozenset(places_of(letters))

    def _last(self, kind: Kind, most: int) -> Iterator[bytes]:
        """About the last ``most`` records of a kind: those for an input lie in the partition that has its number."""
        topic = self.spec.topic(kind)
        self._partitions[topic] = len(self._broker.partitions(topic))
        if not self._partitions[topic]:
            raise NotFoundError("topic", topic, "create it with 'cohobate up' or Kafka's tools")
        numbers = {p.partition % self._partitions[topic] for p in self.places}
        mine = [TopicPartition(topic, n) for n in sorted(numbers)]
        consumer = self._broker.consumer([topic], partitions=mine)
        try:
            firsts, ends = consumer.positions(), consumer.ends()
            each = math.ceil(most / len(mine))
            recent = {p: max(firsts[p], ends[p] - each) for p in firsts}
            if recent != firsts:
                consumer.close()
                consumer = self._broker.consumer([topic], start=recent, partitions=mine)
            yield from (r.value for r in read_to_end(consumer) if r.value is not None)
        finally:
            consumer.close()

    def fetch(self, timeout: float) -> Batch | None:
        """Steps 4 and 5; None when nothing came within ``timeout`` seconds.

        Raises:
            FinderError: personal data cannot be looked for; what came is held, and given to the next call.
            LostPositionsError: the broker lost the inputs' positions, and the spec says to stop then.
            UnavailableError: the broker does not answer.

        """
        # Step 4
        records = self._take(timeout)
        self._look(records)
        if not records:
            return None
        self._came = time.monotonic()
        failpoint("labeler.4")
        # Step 5
        try:
            searched = self._search.of(records)
        except FinderError:
            self._rest.extendleft(reversed(records))
            raise
        found = self.intake.sort(searched, self._keys, self._lettered)
        batch = Batch(
            len(records), *found,
            positions=_behind(records),
            behind=self._behind,
            urgent=any(r.topic == self.spec.topic("inputs.urgent") for r in records),
            fetched_at=time.monotonic(),
            span=tracing.start_batch(records, self.spec.name),
        )  # fmt: skip
        failpoint("labeler.5")
        return batch

    def _take(self, timeout: float) -> list[Record]:
        """A batch by count, bytes and age."""
        most, room = self.spec.label.batch, self.spec.label.batch_bytes
        taken: list[Record] = []
        deadline, size = time.monotonic() + timeout, 0
        while len(taken) < most:
            left = deadline - time.monotonic()
            if not self._rest:
                self._rest.extend(self._look_for(most - len(taken), max(0.0, left)))
            while self._rest and len(taken) < most:
                weight = len(self._rest[0].value or b"") + RECORD_OVERHEAD
                if taken and size + weight > room:
                    return taken
                if not taken:
                    deadline = time.monotonic() + self.spec.label.linger_seconds
                size += weight
                taken.append(self._rest.popleft())
            if time.monotonic() >= deadline:
                break
        return taken

    def _look_for(self, room: int, left: float) -> list[Record]:
        """What there is, waiting a little; after a pause seldom, since then nothing is likely to be there."""
        now = time.monotonic()
        if now - self._came < IDLE_AFTER_SECONDS:
            return self._poll(room, min(left, LOOK_SECONDS))
        if (early := self._looked + IDLE_LOOK_SECONDS - now) > 0.0:
            time.sleep(min(left, early))
            return []
        self._looked = now
        return self._poll(room, min(left, IDLE_POLL_SECONDS))

    def _poll(self, room: int, wait: float) -> list[Record]:
        """Urgent records first, but not the whole room while others wait; ``wait`` is for those others."""
        if self._urgent is None or self._bulk is None:
            only = self._urgent or self._bulk
            return only.poll(room, wait) if only else []
        records = self._urgent.poll(max(1, int(room * URGENT_SHARE)), 0.0)
        if len(records) < room:
            records += self._bulk.poll(room - len(records), 0.0 if records else wait)
        if 0 < len(records) < room:
            records += self._urgent.poll(room - len(records), 0.0)
        return records

    def _look(self, records: Sequence[Record]) -> None:
        """Count what waits, now and then, and notice positions that were lost: then the labels may be gone too.

        ``records`` were fetched just now.
        """
        resets = sum(c.resets for c in self._readers)
        if resets > self.resets:
            self.resets = resets
            self._behind, self._fetched = self._at(), {}
            for record in (*records, *self._rest):
                self._behind[record.place] = min(self._behind[record.place], record.offset)
            self._keys = Keys(self.spec.label.remember)
            self._recall()
        self._fetched |= _behind(records)
        idle = not self.lag and self._came < self._counted
        if time.monotonic() - self._counted > (IDLE_LAG_SECONDS if idle else LAG_SECONDS):
            self.count()

    def count(self) -> int:
        """Inputs that nobody has committed yet: those that were fetched and wait for the teacher among them.

        Offsets without a record (a transaction's mark, those that a killed broker leaves out) are passed by once
        everything fetched before them is committed.
        """
        self._counted = time.monotonic()
        if not self._rest and all(self._behind[p] >= at for p, at in self._fetched.items()):
            self._behind.update(self._at())
        self.ends = {p: end for c in self._readers for p, end in c.ends().items()}
        self.positions = dict(self._behind)
        self.lag = sum(max(0, end - self.positions.get(p, end)) for p, end in self.ends.items())
        return self.lag

    def _at(self) -> dict[TopicPartition, int]:
        return {p: at for c in self._readers for p, at in c.positions().items()}

    @property
    def _readers(self) -> list[Consumer]:
        return [c for c in (self._urgent, self._bulk) if c is not None]

    def answer(self, batch: Batch, *, apart: bool = False, witnesses: Callable[[], Sequence[Work]] = tuple) -> Labelled:
        """Step 6. A label that is too large for a record makes its input a dead letter, and so does a refusal.

        ``apart``: find the inputs that the teacher fails on, refuse them and label the others. ``witnesses``: inputs
        that wait (:func:`components.label.isolate.isolate`).

        Raises:
            TeacherError: the teacher failed; the same batch may be asked for again.

        """
        # Step 6
        answered = isolate(self.asking, batch.work, witnesses) if apart else self.asking.label(batch.work)
        letters = [*batch.letters, *((w.record, self.intake.letter(w.record, e)) for w, e in answered.refused)]
        labelled = Labelled(batch, [], letters, answered.deferred, answered.skipped)
        for work, label in answered.labels:
            value = encode(label)
            if len(value) > MAX_RECORD_BYTES - RECORD_OVERHEAD:
                error = RecordError("label_oversize", f"its label has {len(value)} bytes")
                labelled.letters.append((work.record, self.intake.letter(work.record, error)))
            else:
                labelled.labels.append((work.record, label, value))
        failpoint("labeler.6")
        return labelled

    def commit(self, labelled: Labelled) -> str:
        """Steps 7 to 10; returns the topic that the labels went to.

        Raises:
            FencedError: somebody else has this share now.
            EpochChangedError: a person decided about the teacher since it answered: the inputs are to be asked again.
            UnavailableError: the broker did not confirm.

        """
        producer = self._producer
        if producer is None:
            raise ValueError("the worker is not open")
        labels = self.asking.topic([label for _, label, _ in labelled.labels])
        # Step 7
        producer.begin()
        failpoint("labeler.7")
        # Step 8
        letters, span = self.spec.topic("inputs.dlq"), labelled.batch.span
        for record, label, value in labelled.labels:
            headers = tracing.follow(record, span) | (self._signer.headers(value) if self._signer else {})
            to = record.partition % self._partitions[labels]
            producer.send(labels, label.key, value, headers, partition=to)
        for record, letter in labelled.letters:
            to = record.partition % self._partitions[letters]
            producer.send(letters, letter.key, encode(letter), partition=to)
        failpoint("labeler.8")
        # Step 9
        producer.send_offsets(self.group, labelled.batch.positions)
        failpoint("labeler.9")
        # Step 10
        producer.commit()
        labelled.batch.behind.update(labelled.batch.positions)
        span.end()
        failpoint("labeler.10")
        return labels

    def close_readers(self) -> None:
        """Release the inputs, on the thread that fetches."""
        for consumer in self._readers:
            consumer.close()
        self._urgent = self._bulk = None

    def close(self) -> None:
        """Release everything; a transaction that is open is dropped."""
        self.opened = False
        self.close_readers()
        if self._producer is not None:
            self._producer.close()
            self._producer = None


def _behind(records: Sequence[Record]) -> dict[TopicPartition, int]:
    """The positions behind records."""
    return {r.place: r.offset + 1 for r in records}
