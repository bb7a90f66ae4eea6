"""A record of a topic as it was read, and where it lies."""

from __future__ import annotations

from typing import NamedTuple


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int

    @property
    def name(self) -> str:
        """``topic:partition``, as manifests, gauges and the ledger spell it."""
        return f"{self.topic}:{self.partition}"


class Record(NamedTuple):
    """One record as read. ``timestamp`` is Unix seconds."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]
    timestamp: float

    @property
    def place(self) -> TopicPartition:
        """The partition that it lies in."""
        return TopicPartition(self.topic, self.partition)
