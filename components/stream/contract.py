"""What the platform asks of a stream. Implementations: :mod:`components.stream.kafka`, :mod:`components.stream.memory`.

Consumers are assigned partitions by hand and keep their position under a group name; ``commit`` makes it durable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, Protocol

from components.contracts.stream_record import Headers as Headers
from components.contracts.stream_record import Record as Record
from components.contracts.stream_record import TopicPartition as TopicPartition

MAX_RECORD_BYTES = 4 * 1024 * 1024
"""Largest record that is sent or read: payload limits of a spec lie below it."""


Positions = Mapping[TopicPartition, int]
"""The next offset to read, by partition."""


def named(positions: Positions) -> dict[str, int]:
    """Positions as they are kept: by :attr:`TopicPartition.name`, in order."""
    return {place.name: offset for place, offset in sorted(positions.items())}


def unnamed(kept: Mapping[str, int]) -> dict[TopicPartition, int]:
    """The positions that :func:`named` was given."""
    split = {name.rpartition(":"): offset for name, offset in kept.items()}
    return {TopicPartition(topic, int(number)): offset for (topic, _, number), offset in split.items()}


OnLost = Literal["earliest", "stop"]
"""What a consumer does where the broker no longer has its position."""


class Producer(Protocol):
    """Writes records. ``send`` does not wait; ``flush`` waits until all that was sent is durable.

    Raises:
        UnavailableError: from ``flush``, when the broker did not confirm everything in time.

    """

    def send(self, topic: str, key: str | bytes | None, value: bytes | None, headers: Headers | None = None) -> None:
        """Queue a record; None for its value makes it a tombstone. Records with the same key keep their order."""

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until everything sent is acknowledged by all in-sync replicas."""

    def close(self) -> None:
        """Flush and release the connection."""


class TransactionalProducer(Protocol):
    """Writes records and a group's positions that become visible together or not at all (Kafka's KIP-98).

    A new one fences every earlier one of the same transactional id, and what that left open is aborted. After a
    FencedError or UnavailableError from any verb a producer is of no further use: close it, and find out from the
    committed positions of a new one whether the transaction counted. One transaction is open at a time; one thread
    uses a producer at a time.

    Raises:
        FencedError: from every verb but ``close``, when a newer producer has this transactional id.
        UnavailableError: the broker did not take, confirm or end something in time.

    """

    def begin(self) -> None:
        """Begin a transaction."""

    def send(
        self,
        topic: str,
        key: str | bytes | None,
        value: bytes,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
    ) -> None:
        """Queue a record for ``partition``, or where its key belongs."""

    def send_offsets(self, group: str, positions: Positions) -> None:
        """Add a group's positions to the transaction; they are the group's when it is committed."""

    def commit(self, timeout: float = 30.0) -> None:
        """Make all of it visible; returns when it is durable."""

    def abort(self, timeout: float = 30.0) -> None:
        """Drop all of it."""

    def close(self) -> None:
        """Release the connection; an open transaction is dropped."""


class Consumer(Protocol):
    """Reads records of its assigned partitions, each in order. ``resets`` counts positions that were lost."""

    resets: int

    def poll(self, max_records: int = 500, timeout: float = 0.5) -> list[Record]:
        """Up to ``max_records`` records, waiting up to ``timeout`` seconds for the first."""

    def positions(self) -> dict[TopicPartition, int]:
        """The next offset that ``poll`` would return, by partition."""

    def ends(self) -> dict[TopicPartition, int]:
        """The offset after the last record, by partition."""

    def commit(self, positions: Positions | None = None) -> None:
        """Make ``positions`` (default: the present ones) durable under the group.

        Raises:
            ValueError: the consumer was opened without a group.

        """

    def lag(self) -> int:
        """Records between the present positions and the ends."""

    def close(self) -> None:
        """Release the connection; does not commit."""


class Broker(Protocol):
    """A connection factory."""

    def ensure_topics(self, topics: Iterable[str], partitions: int = 1) -> None:
        """Create the topics that do not exist yet."""

    def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic in order; none where it does not exist."""

    def producer(self) -> Producer:
        """A new producer."""

    def transactional_producer(self, transactional_id: str) -> TransactionalProducer:
        """A new transactional producer, which fences every earlier one of this id."""

    def consumer(
        self,
        topics: Iterable[str],
        group: str | None = None,
        start: Literal["earliest", "latest"] | Positions = "earliest",
        partitions: Iterable[TopicPartition] | None = None,
        on_lost: OnLost = "earliest",
    ) -> Consumer:
        """A new consumer of all partitions of ``topics`` (or of ``partitions`` only).

        It starts at the group's committed positions where there are some, else at ``start``. Positions that the
        broker does not have, at the start or later, are read again from the ``earliest`` (logged, and counted in
        ``resets``), or ``stop`` the consumer with a LostPositionsError.
        """


def read_to_end(consumer: Consumer) -> Iterator[Record]:
    """The records from the consumer's positions to the ends as they are now; the consumer stands there afterwards."""
    ends = consumer.ends()
    while any(at < ends[p] for p, at in consumer.positions().items()):
        yield from consumer.poll(timeout=0.2)
