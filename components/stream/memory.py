"""A stream in memory, for in-process loops: the same order, offsets, groups and ends as a broker's, nothing durable.

Positions that do not exist are treated as by :mod:`components.stream.kafka_consumer`: from the earliest, counted.
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from components.contracts.errors import FencedError, LostPositionsError, NotFoundError, RecordError
from components.stream.contract import MAX_RECORD_BYTES, Headers, OnLost, Positions, Record, TopicPartition

log = logging.getLogger(__name__)


class MemoryBroker:
    """Topics as lists in this process; safe to share between threads. ``clock`` dates the records."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.logs: dict[TopicPartition, list[Record]] = {}
        self.groups: dict[str, dict[TopicPartition, int]] = {}
        self.epochs: dict[str, int] = {}
        self.grown = threading.Condition()
        self.erased: dict[TopicPartition, set[int]] = {}

    def ensure_topics(self, topics: Iterable[str], partitions: int = 1) -> None:
        """Create the topics that do not exist yet."""
        with self.grown:
            for topic in topics:
                if not self.partitions(topic):
                    for number in range(partitions):
                        self.logs[TopicPartition(topic, number)] = []

    def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic, none where it does not exist."""
        with self.grown:
            return sorted(p for p in self.logs if p.topic == topic)

    def producer(self) -> MemoryProducer:
        """A new producer."""
        return MemoryProducer(self)

    def transactional_producer(self, transactional_id: str) -> MemoryTransactions:
        """A new transactional producer, which fences every earlier one of this id."""
        return MemoryTransactions(self, transactional_id)

    def append(self, to: TopicPartition, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Append a record to a partition; the caller holds :attr:`grown`."""
        entries = self.logs[to]
        entries.append(Record(to.topic, to.partition, len(entries), key, value, dict(headers), self.clock()))
        self.grown.notify_all()

    def erase(self, places: Mapping[TopicPartition, Iterable[int]]) -> None:
        """Delete records by their offsets; all others keep theirs."""
        with self.grown:
            for to, offsets in places.items():
                for offset in offsets:
                    self.logs[to][offset] = Record(to.topic, to.partition, offset, None, None, {}, 0.0)
                    self.erased.setdefault(to, set()).add(offset)

    def place(self, topic: str, key: bytes | None, partition: int | None = None) -> TopicPartition:
        """The partition that a record goes to.

        Raises:
            NotFoundError: there is no such topic or partition.
        """
        partitions = self._existing(topic)
        if partition is None:
            return partitions[zlib.crc32(key or b"") % len(partitions)]
        if partition >= len(partitions):
            raise NotFoundError("partition", f"{topic}-{partition}", f"the topic has {len(partitions)}")
        return partitions[partition]

    def consumer(
        self,
        topics: Iterable[str],
        group: str | None = None,
        start: Literal["earliest", "latest"] | Positions = "earliest",
        partitions: Iterable[TopicPartition] | None = None,
        on_lost: OnLost = "earliest",
    ) -> MemoryConsumer:
        """A new consumer; see :class:`components.stream.contract.Broker`.

        Raises:
            NotFoundError: a topic does not exist.
        """
        with self.grown:
            chosen = list(partitions) if partitions is not None else [p for t in topics for p in self._existing(t)]
            return MemoryConsumer(self, chosen, group, start, on_lost)

    def _existing(self, topic: str) -> list[TopicPartition]:
        found = self.partitions(topic)
        if not found:
            raise NotFoundError("topic", topic, "create it with ensure_topics")
        return found


class MemoryProducer:
    """Appends at once; there is nothing to wait for."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker

    def send(self, topic: str, key: str | bytes | None, value: bytes | None, headers: Headers | None = None) -> None:
        """Append a record to the partition that its key hashes to.

        Raises:
            NotFoundError: the topic does not exist.
            RecordError: ``oversize``, the record is larger than Kafka would take.
        """
        name = _checked(topic, key, value)
        with self.broker.grown:
            self.broker.append(self.broker.place(topic, name), name, value, headers or {})

    def flush(self, timeout: float = 30.0) -> None:
        """Return at once: what was sent is there."""

    def close(self) -> None:
        """Release nothing."""


def _checked(topic: str, key: str | bytes | None, value: bytes | None) -> bytes | None:
    if value is not None and len(value) > MAX_RECORD_BYTES:
        raise RecordError("oversize", f"{len(value)} bytes for {topic}; a record may have {MAX_RECORD_BYTES}")
    return key.encode() if isinstance(key, str) else key


class MemoryTransactions:
    """Keeps what was sent until the commit, then appends all of it at once."""

    def __init__(self, broker: MemoryBroker, transactional_id: str) -> None:
        self.broker, self.transactional_id = broker, transactional_id
        self._open: list[tuple[TopicPartition, bytes | None, bytes, Mapping[str, bytes]]] | None = None
        self._positions: dict[str, dict[TopicPartition, int]] = {}
        with broker.grown:
            self._epoch = broker.epochs[transactional_id] = broker.epochs.get(transactional_id, 0) + 1

    def begin(self) -> None:
        """Begin a transaction.

        Raises:
            ValueError: one is open.
            FencedError: a newer producer has this transactional id.
        """
        with self.broker.grown:
            self._require_newest()
            if self._open is not None:
                raise ValueError("a transaction is open: commit or abort it first")
            self._open, self._positions = [], {}

    def _require_newest(self) -> None:
        if self.broker.epochs[self.transactional_id] != self._epoch:
            self._open = None
            raise FencedError(f"transactional id {self.transactional_id}", "a newer producer has it")

    def _require_open(self) -> list[tuple[TopicPartition, bytes | None, bytes, Mapping[str, bytes]]]:
        self._require_newest()
        if self._open is None:
            raise ValueError("no transaction is open: begin one first")
        return self._open

    def send(
        self,
        topic: str,
        key: str | bytes | None,
        value: bytes,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
    ) -> None:
        """Keep a record until the commit; raises as :meth:`MemoryProducer.send` does."""
        name = _checked(topic, key, value)
        with self.broker.grown:
            self._require_open().append((self.broker.place(topic, name, partition), name, value, headers or {}))

    def send_offsets(self, group: str, positions: Positions) -> None:
        """Keep a group's positions until the commit."""
        with self.broker.grown:
            self._require_open()
            self._positions.setdefault(group, {}).update(positions)

    def commit(self, timeout: float = 30.0) -> None:
        """Append what was sent and keep the positions, all at once."""
        with self.broker.grown:
            for record in self._require_open():
                self.broker.append(*record)
            for group, positions in self._positions.items():
                self.broker.groups.setdefault(group, {}).update(positions)
            self._open = None

    def abort(self, timeout: float = 30.0) -> None:
        """Drop what was sent."""
        with self.broker.grown:
            self._require_open()
            self._open = None

    def close(self) -> None:
        """Drop what was not committed."""
        self._open = None


class MemoryConsumer:
    """Reads the logs of its assigned partitions."""

    def __init__(
        self,
        broker: MemoryBroker,
        assigned: list[TopicPartition],
        group: str | None,
        start: Literal["earliest", "latest"] | Positions,
        on_lost: OnLost,
    ) -> None:
        self.broker, self.group, self._on_lost = broker, group, on_lost
        self.resets = 0
        committed = broker.groups.get(group, {}) if group else {}
        self._next = {p: self._first(p, committed.get(p), start) for p in assigned}

    def _first(
        self, partition: TopicPartition, committed: int | None, start: Literal["earliest", "latest"] | Positions
    ) -> int:
        end = len(self.broker.logs[partition])
        wanted = start.get(partition) if committed is None and isinstance(start, Mapping) else committed
        if wanted is None:
            return end if start == "latest" else 0
        if wanted <= end:
            return wanted
        if self._on_lost == "stop":
            raise LostPositionsError(partition.topic, partition.partition, wanted, 0)
        self.resets += 1
        log.warning(
            "%s-%d has no offset %d: reading again from the earliest", partition.topic, partition.partition, wanted
        )
        return 0

    def poll(self, max_records: int = 500, timeout: float = 0.5) -> list[Record]:
        """Up to ``max_records`` records, waiting up to ``timeout`` seconds for the first."""
        with self.broker.grown:
            self.broker.grown.wait_for(lambda: self._lag() > 0, timeout)
            records: list[Record] = []
            for partition, offset in self._next.items():
                taken = self.broker.logs[partition][offset : offset + max_records - len(records)]
                gone = self.broker.erased.get(partition, ())
                records += [r for r in taken if r.offset not in gone] if gone else taken
                self._next[partition] = offset + len(taken)
            return records

    def positions(self) -> dict[TopicPartition, int]:
        """The next offset that ``poll`` would return, by partition."""
        return dict(self._next)

    def ends(self) -> dict[TopicPartition, int]:
        """The offset after the last record, by partition."""
        with self.broker.grown:
            return {p: len(self.broker.logs[p]) for p in self._next}

    def commit(self, positions: Positions | None = None) -> None:
        """Keep positions under the group.

        Raises:
            ValueError: the consumer was opened without a group.
        """
        if self.group is None:
            raise ValueError("this consumer has no group to commit under")
        with self.broker.grown:
            self.broker.groups.setdefault(self.group, {}).update(self._next if positions is None else positions)

    def lag(self) -> int:
        """Records between the present positions and the ends."""
        with self.broker.grown:
            return self._lag()

    def _lag(self) -> int:
        return sum(len(self.broker.logs[p]) - offset for p, offset in self._next.items())

    def close(self) -> None:
        """Release nothing; does not commit."""
