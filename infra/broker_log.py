"""A copy on disk of what the embedded broker holds, in Kafka's own format: a file of record batches for each partition.

The file is what the broker hands out, unread and with the batches of open and aborted transactions, so that copying
costs next to nothing. :meth:`BrokerLog.compact` makes of it what a new broker is given: the committed records alone,
at the offsets that they had, in large batches without a producer. See
https://kafka.apache.org/documentation/#recordbatch for the format.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import struct
from collections.abc import Collection, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from components.contracts.errors import ConfigError
from components.stream.contract import TopicPartition

log = logging.getLogger("cohobate")

BATCH_BYTES = 512 * 1024
"""Size of the batches that a new broker is given: few, since it walks over all of them at each fetch."""

LOST_ROOM = 10_000
"""Offsets left out behind the last record after a stop that was not clean. What came after the last copy had offsets
that others may have written down; no later record may get one of those, or it would be taken for read. The copy is a
fraction of a second behind, and the broker hands out fewer in that time."""

HEADER = struct.Struct(">qiibIhiqqqhii")
"""Head of a batch: base offset, length from here on, leader epoch, magic, CRC, attributes, last offset delta, first and
last time, producer's id, epoch and sequence, number of records."""

CRC_AT, CHECKED_AT = 17, 21
"""Where a batch's CRC is, and where what it covers begins, with the attributes."""

TRANSACTIONAL, CONTROL = 0x10, 0x20

COMMITTED = b"\x00\x00\x00\x01"
"""Key of the control record that ends a committed transaction: version 0, type 1."""

Groups = dict[str, dict[TopicPartition, int]]
"""The committed positions of each group."""


class Batch(NamedTuple):
    """One batch as it stands in a file: its raw bytes and what its head says."""

    raw: bytes
    base: int
    end: int
    """The offset after its last."""
    producer: int
    transactional: bool
    control: bool


class BrokerLog:
    """The copy under a folder; one process writes it at a time.

    Raises:
        ConfigError: the folder holds something that is no such copy.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[TopicPartition, FileIO] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._dirty: set[TopicPartition] = set()
        self.producer = 0
        """Highest id of a producer whose batches :meth:`compact` met."""
        folder.mkdir(parents=True, exist_ok=True)
        self.topics: dict[str, int] = self._read("topics.json")
        """Number of partitions by topic."""
        self.groups: Groups = {
            group: {TopicPartition(*_split(name)): offset for name, offset in places.items()}
            for group, places in self._read("groups.json").items()
        }

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            allowed = f"must be JSON ({error}): move the folder away to begin without records, or bring back a copy"
            raise ConfigError("embedded broker's records", str(path), allowed) from error
        return found

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        path = self.folder / name
        with path.with_suffix(".tmp").open("wb") as out:
            out.write(json.dumps(value, indent=1).encode())
            out.flush()
            os.fsync(out.fileno())
        path.with_suffix(".tmp").replace(path)

    def partitions(self) -> Iterator[TopicPartition]:
        """Every partition of every topic."""
        for topic, count in self.topics.items():
            yield from (TopicPartition(topic, number) for number in range(count))

    def path(self, place: TopicPartition) -> Path:
        """The file of a partition."""
        return self.folder / place.topic / f"{place.partition}.log"

    def know(self, topics: Mapping[str, int]) -> None:
        """Note the broker's topics. One that the broker lost is kept: a broker may come back without any."""
        if new := {name: count for name, count in topics.items() if self.topics.get(name, 0) < count}:
            self.topics |= new
            self._write("topics.json", self.topics)

    @property
    def clean(self) -> bool:
        """Whether the copy was complete when it was last closed."""
        return (self.folder / "clean").exists()

    def compact(self, erased: Mapping[TopicPartition, Collection[int]] | None = None) -> None:
        """Make every file what a new broker is given, and begin to write behind it.

        1. Cut off what was torn: a last batch that is not whole.
        2. Leave out the records of transactions that were aborted or have no end, and those that are ``erased``.
        3. Rebuild the rest into large batches without a producer, every record at the offset that it had.
        4. After a stop that was not clean, leave :data:`LOST_ROOM` offsets out behind the last record.
        """
        clean = self.clean
        (self.folder / "clean").unlink(missing_ok=True)
        self.close()
        for place in self.partitions():
            path = self.path(place)
            if not path.exists():
                continue
            before = path.read_bytes()
            # Step 1
            found = list(batches(before))
            self.producer = max([self.producer, *(batch.producer for batch in found)])
            # Steps 2 and 3
            made = list(rebuilt(found, frozenset((erased or {}).get(place, ()))))
            # Step 4
            if not clean and found:
                made.append(_left_out(found[-1].end, found[-1].end + LOST_ROOM))
            after = b"".join(made)
            if after != before:
                with path.with_suffix(".tmp").open("wb") as out:
                    out.write(after)
                    out.flush()
                    os.fsync(out.fileno())
                path.with_suffix(".tmp").replace(path)

    def batches(self, place: TopicPartition) -> Iterator[Batch]:
        """What the file of a partition holds."""
        path = self.path(place)
        return batches(path.read_bytes()) if path.exists() else iter(())

    def end(self, place: TopicPartition) -> int:
        """The offset after the last one that is here."""
        if place not in self._ends:
            last = 0
            for batch in self.batches(place):
                last = batch.end
            self._ends[place] = last
        return self._ends[place]

    def append(self, place: TopicPartition, raw: bytes) -> int:
        """Add what a fetch from :meth:`end` gave, and give how many batches were new."""
        at, count = self.end(place), 0
        for batch in batches(raw):
            if batch.base < at:
                continue
            file = self._files.get(place)
            if file is None:
                self.path(place).parent.mkdir(parents=True, exist_ok=True)
                file = self._files[place] = self.path(place).open("ab", buffering=0)
            file.write(batch.raw)
            at, count = batch.end, count + 1
            self._dirty.add(place)
        self._ends[place] = at
        return count

    def sync(self, groups: Groups | None = None) -> None:
        """Make what was added outlast a power cut, and then note positions: they are never ahead of the records."""
        for place in self._dirty:
            os.fsync(self._files[place].fileno())
        self._dirty.clear()
        if groups is not None and groups != self.groups:
            self.groups = groups
            named = {g: {f"{p.topic}-{p.partition}": o for p, o in places.items()} for g, places in groups.items()}
            self._write("groups.json", named)

    def close(self, *, complete: bool = False) -> None:
        """Close the files; ``complete`` says that nothing in the broker is missing here."""
        self.sync()
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._ends.clear()
        if complete:
            self._write("clean", {})

    def remove(self) -> None:
        """Delete the copy."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _split(name: str) -> tuple[str, int]:
    topic, _, number = name.rpartition("-")
    return topic, int(number)


def batches(data: bytes) -> Iterator[Batch]:
    """The batches in ``data`` in order, up to the first that is not whole."""
    from kafka.record.default_records import DefaultRecordBatch

    at = 0
    while len(data) - at >= HEADER.size:
        base, length, _, magic, _, attributes, delta, _, _, producer, _, _, _ = HEADER.unpack_from(data, at)
        raw = data[at : at + 12 + length]
        if magic != 2 or length < HEADER.size - 12 or len(raw) < 12 + length:
            return
        if not DefaultRecordBatch(raw).validate_crc():
            return
        yield Batch(raw, base, base + delta + 1, producer, bool(attributes & TRANSACTIONAL), bool(attributes & CONTROL))
        at += len(raw)


def rebuilt(found: list[Batch], erased: Collection[int] = ()) -> Iterator[bytes]:
    """The committed records of ``found`` but those at ``erased`` offsets in large batches without a producer.

    They are at their offsets. One without a record (a transaction's mark, a record of one that was aborted) gets a
    control record, which no reader is given: the broker counts records, not offsets, and hands out a batch with holes
    again and again.
    What stands at the head without a producer was rebuilt before, and goes through as it is, as far as nothing in it is
    erased.
    """
    from kafka.record.default_records import DefaultRecordBatch

    committed = _committed(found)
    plain = 0
    first = min(erased, default=None)
    while plain < len(found) and found[plain].producer < 0 and (first is None or found[plain].end <= first):
        plain += 1
    yield from (batch.raw for batch in found[:plain])
    at = found[plain - 1].end if plain else 0
    records: list[Any] = []
    size = 0
    for batch, kept in zip(found[plain:], committed[plain:], strict=True):
        if not kept:
            continue
        for record in DefaultRecordBatch(batch.raw):
            if record.offset in erased:
                continue
            if records and (record.offset != at or size > BATCH_BYTES):
                yield _built(records)
                records, size = [], 0
            if record.offset != at:
                yield _left_out(at, record.offset)
            records.append(record)
            at, size = record.offset + 1, size + record.size_in_bytes
    if records:
        yield _built(records)
    if found and at < found[-1].end:
        yield _left_out(at, found[-1].end)


def _committed(found: list[Batch]) -> list[bool]:
    """Which batches hold records that readers of committed ones see: a transaction's end decides over its batches."""
    from kafka.record.default_records import DefaultRecordBatch

    outcome: dict[int, bool] = {}
    kept = [False] * len(found)
    for index in range(len(found) - 1, -1, -1):
        batch = found[index]
        if batch.control and batch.producer >= 0:
            (mark,) = DefaultRecordBatch(batch.raw)
            outcome[batch.producer] = mark.key[2:4] == COMMITTED[2:4]
        elif not batch.control:
            kept[index] = not batch.transactional or outcome.get(batch.producer, False)
    return kept


def _built(records: list[Any]) -> bytes:
    """One batch of records whose offsets follow each other."""
    from kafka.record.memory_records import MemoryRecordsBuilder

    builder = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=2**31 - 1)
    for record in records:
        builder.append(record.timestamp, record.key, record.value, record.headers)
    builder.close()
    raw = bytearray(builder.buffer())
    struct.pack_into(">q", raw, 0, records[0].offset)
    return bytes(raw)


def _left_out(base: int, end: int) -> bytes:
    """A control batch for the offsets from ``base`` up to ``end``."""
    from kafka.record.memory_records import MemoryRecordsBuilder
    from kafka.record.util import calc_crc32c

    builder = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=2**31 - 1)
    for _ in range(base, end):
        builder.append(0, COMMITTED, bytes(6), [])
    builder.close()
    raw = bytearray(builder.buffer())
    struct.pack_into(">q", raw, 0, base)
    struct.pack_into(">h", raw, CHECKED_AT, CONTROL)
    struct.pack_into(">I", raw, CRC_AT, calc_crc32c(memoryview(raw)[CHECKED_AT:]))
    return bytes(raw)
