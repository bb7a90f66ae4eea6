"""Dead letters as a person finds them: read, named, filtered, and made whole again.

A letter is named after the record that it is about, ``topic-partition@offset``. A record that a labeler refused twice
(it was killed between two steps) has two letters and one name; it is listed once.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from components.contracts.admission import LETTER_BYTES
from components.contracts.errors import NotFoundError, RecordError
from components.contracts.records import DeadLetter, decode
from components.contracts.storage import digest_of
from components.stream.contract import Broker, Record, TopicPartition, read_to_end

log = logging.getLogger(__name__)

Status = Literal["open", "replaying", "replayed", "dropped"]

KEY_DIGITS = 16
"""Hex digits of the value's digest in a letter's key: 64 bits tell the records apart that ever lie at one place."""


class _Named(msgspec.Struct):
    id: str | None = None


_named = msgspec.msgpack.Decoder(_Named)


@dataclass(frozen=True)
class Letter:
    """A dead letter with its place (partition and offset) among the letters."""

    dead: DeadLetter
    partition: int
    offset: int

    @property
    def name(self) -> str:
        """Where the refused record lies: ``topic-partition@offset``."""
        return f"{self.dead.topic}-{self.dead.partition}@{self.dead.offset}"

    @property
    def key(self) -> str:
        """The name and the content: a broker that lost its memory puts other records at the same places."""
        return f"{self.name}#{(self.dead.digest or digest_of(self.dead.value))[:KEY_DIGITS]}"

    @property
    def cut(self) -> bool:
        """Whether the letter lacks some of the record's bytes; letters of version 1.0 do not say, but show it."""
        return self.dead.cut or (self.dead.digest is None and len(self.dead.value) >= LETTER_BYTES)

    @property
    def input_id(self) -> str | None:
        """The id of the input, where that much can be decoded."""
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _named.decode(self.dead.value).id
        return None


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which letters are meant; what is empty or None excludes nothing. Bounds are inclusive, times Unix seconds."""

    names: frozenset[str] = field(default_factory=frozenset)
    reasons: frozenset[str] = field(default_factory=frozenset)
    errors: frozenset[str] = field(default_factory=frozenset)
    topic: str | None = None
    partition: int | None = None
    first_offset: int | None = None
    last_offset: int | None = None
    since: float | None = None
    until: float | None = None
    input_id: str | None = None

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is meant."""
        dead = letter.dead
        return (
            (not self.names or letter.name in self.names)
            and (not self.reasons or dead.reason in self.reasons)
            and (not self.errors or dead.error in self.errors)
            and self.topic in (None, dead.topic)
            and self.partition in (None, dead.partition)
            and _between(dead.offset, self.first_offset, self.last_offset)
            and _between(dead.at, self.since, self.until)
            and self.input_id in (None, letter.input_id)
        )


def _between(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def letters_topic(workload: str) -> str:
    """The topic of a workload's dead letters."""
    return f"{workload}.inputs.dlq"


def read_letters(broker: Broker, workload: str, wanted: Filter | None = None) -> Iterator[Letter]:
    """A workload's letters from the oldest that the topic still has to the newest, each record's first one only.

    What is on the topic and is no letter is logged and left out.

    Raises:
        NotFoundError: the workload has no topic of dead letters.
        UnavailableError: the broker does not answer.

    """
    wanted = wanted or Filter()
    seen: set[str] = set()
    with contextlib.closing(broker.consumer([letters_topic(workload)])) as consumer:
        for record in read_to_end(consumer):
            try:
                letter = Letter(decode(DeadLetter, record.value), record.partition, record.offset)
            except RecordError as error:
                log.warning("%s-%d@%d is no dead letter: %s", record.topic, record.partition, record.offset, error)
                continue
            if letter.key not in seen:
                seen.add(letter.key)
                if wanted.takes(letter):
                    yield letter


def original(letter: Letter, broker: Broker) -> Record:
    """The refused record with all of its bytes; a letter that was cut is read again from the record's own place.

    Raises:
        NotFoundError: the letter is cut, and its place holds the record no more.
        UnavailableError: the broker does not answer.

    """
    dead = letter.dead
    if not letter.cut:
        value = None if dead.tombstone else dead.value
        return Record(dead.topic, dead.partition, dead.offset, dead.key, value, dead.headers, dead.at)
    found = record_at(broker, TopicPartition(dead.topic, dead.partition), dead.offset)
    if found is None or not _is(found, dead):
        raise NotFoundError(
            "record",
            letter.name,
            f"its letter holds only the first {len(dead.value)} bytes, and the topic holds it no more (retention, or a "
            "broker that lost its records): have the producer send it again, then drop the letter",
        )
    return found


def _is(found: Record, dead: DeadLetter) -> bool:
    value = found.value or b""
    if dead.digest is not None:
        return digest_of(value) == dead.digest
    return value.startswith(dead.value) and found.key == dead.key


def record_at(broker: Broker, place: TopicPartition, offset: int) -> Record | None:
    """The record at an offset; None where the partition does not have it."""
    with contextlib.closing(broker.consumer([place.topic], start={place: offset}, partitions=[place])) as consumer:
        end = consumer.ends()[place]
        while consumer.positions()[place] < end:
            for record in consumer.poll(max_records=1, timeout=0.2):
                return record if record.offset == offset else None
    return None
