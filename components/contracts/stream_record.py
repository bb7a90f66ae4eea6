"""A record of a topic as it was read, and where it lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

Headers = Mapping[str, bytes | None]
"""A record's headers; of one name's several the last."""


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int

    @property
    def name(self) -> str:
        """``topic:partition``, as manifests, gauges and the ledger spell it."""
        return f"{self.topic}:{self.partition}"


class Record(NamedTuple):
    """One record as read. ``timestamp`` is Unix seconds.

    ``value`` is None for a *tombstone*: a record by which a producer takes its key back, and by which Kafka's
    compaction drops what the key had before. That is another fact than a value without bytes. A header may have no
    value, too. (Kafka's protocol, "Record": the value's and a header value's length may be -1.)
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: float

    @property
    def place(self) -> TopicPartition:
        """The partition that it lies in."""
        return TopicPartition(self.topic, self.partition)
