"""Reading what is new on the stream, from the last record that was read to the present ends.

A place in the stream is kept as an *anchor*: the offset of the last record read and the SHA-256 of its value. An
offset alone would skip records in silence when the broker lost its memory and counts from zero again (the embedded
broker does at each start); where the anchored record is another one, the partition was replaced and is read anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from components.contracts.errors import UnavailableError
from components.contracts.storage import digest_of
from components.stream.contract import Broker, Consumer, Positions, Record, TopicPartition, named

IDLE_SECONDS = 10.0
"""How long a stream may give nothing while it is known to hold more: ten times a slow broker's fetch."""

Anchors = Mapping[str, tuple[int, str]]
"""Offset and digest of the last record read, by ``topic:partition``."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read: records in the order of (topic, partition, offset), the places after them, and what was lost.

    ``replaced``: partitions whose earlier content is gone from the broker.
    """

    records: tuple[Record, ...]
    positions: dict[str, int]
    anchors: dict[str, tuple[int, str]]
    replaced: tuple[str, ...]

    def of(self, topic: str) -> list[Record]:
        """The records of one topic."""
        return [r for r in self.records if r.topic == topic]


def read_new(broker: Broker, topics: Iterable[str], anchors: Anchors) -> Reading:
    """Read everything after ``anchors`` that is on the stream now.

    Raises:
        UnavailableError: the stream stopped giving records that it holds.

    """
    topics = tuple(topics)
    ends = _ends(broker, topics)
    known = {p: anchors[p.name] for p in ends if p.name in anchors}
    reachable = {p: offset for p, (offset, _) in known.items() if offset < ends[p]}
    records = _drain(broker, topics, reachable, {p: ends[p] for p in reachable})
    replaced = {p for p in known if p not in reachable} | {
        r.place for r in records if _at_anchor(r, known) and digest_of(r.value or b"") != known[r.place][1]
    }
    records = [r for r in records if r.place not in replaced and r.offset > known[r.place][0]]
    fresh = [p for p in ends if p not in known or p in replaced]
    records += _drain(broker, topics, "earliest", {p: ends[p] for p in fresh if ends[p] > 0})
    after = {p.name: anchor for p, anchor in known.items() if p not in replaced}
    after |= {r.place.name: (r.offset, digest_of(r.value or b"")) for r in sorted(records)}
    return Reading(
        records=tuple(sorted(records, key=lambda r: (r.topic, r.partition, r.offset))),
        positions=named(ends),
        anchors=after,
        replaced=tuple(sorted(p.name for p in replaced)),
    )


def places_after(broker: Broker, topic: str, anchors: Anchors) -> tuple[dict[TopicPartition, int], bool]:
    """Where to read on after ``anchors`` in each partition, and whether any is read from the beginning.

    That is one which was replaced, or of which the anchored record is gone or was never kept.

    Raises:
        UnavailableError: the stream stopped giving records that it holds.

    """
    ends = _ends(broker, (topic,))
    known = {p: anchors[p.name] for p in ends if p.name in anchors}
    reachable = {p: offset for p, (offset, _) in known.items() if offset < ends[p]}
    anchored = _drain(broker, (topic,), reachable, {p: offset + 1 for p, offset in reachable.items()})
    same = {r.place for r in anchored if _at_anchor(r, known) and digest_of(r.value or b"") == known[r.place][1]}
    return {p: known[p][0] + 1 if p in same else 0 for p in ends}, any(ends[p] for p in ends if p not in same)


def _at_anchor(record: Record, known: Mapping[TopicPartition, tuple[int, str]]) -> bool:
    return record.offset == known[record.place][0]


def _ends(broker: Broker, topics: tuple[str, ...]) -> dict[TopicPartition, int]:
    consumer = broker.consumer(topics)
    try:
        return consumer.ends()
    finally:
        consumer.close()


def _drain(
    broker: Broker, topics: tuple[str, ...], start: Positions | str, ends: Mapping[TopicPartition, int]
) -> list[Record]:
    """All records of the partitions in ``ends`` from ``start`` up to there."""
    if not ends:
        return []
    place = "earliest" if isinstance(start, str) else start
    consumer = broker.consumer(topics, start=place, partitions=list(ends))  # type: ignore[arg-type]
    try:
        return [r for r in _until(consumer, ends) if r.offset < ends[r.place]]
    finally:
        consumer.close()


def _until(consumer: Consumer, ends: Mapping[TopicPartition, int]) -> list[Record]:
    records: list[Record] = []
    heard = time.monotonic()
    while behind := [p for p, at in consumer.positions().items() if at < ends.get(p, 0)]:
        batch = consumer.poll(timeout=0.2)
        if batch:
            records.extend(batch)
            heard = time.monotonic()
        elif time.monotonic() - heard > IDLE_SECONDS:
            raise UnavailableError(
                "stream", behind[0].name, f"nothing came for {IDLE_SECONDS:.0f} s before its end; is it up?"
            )
    return records
