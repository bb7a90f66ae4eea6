"""From records to work: what the teacher is asked, what is poison, and what was labelled already."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from components.contracts.admission import LETTER_BYTES, admit, dead_letter
from components.contracts.errors import RecordError
from components.contracts.masking import masker
from components.contracts.payload import decoder
from components.contracts.records import DeadLetter, Input, content_hash, decode, label_key
from components.contracts.spec import Spec
from components.label.search import Searched
from components.stream.contract import Record

log = logging.getLogger(__name__)


class Work(NamedTuple):
    """One input that needs a label: its record, its label's key, its content's hash, and what the teacher takes."""

    record: Record
    input: Input
    key: str
    content: str
    payload: Any

    @property
    def urgent(self) -> bool:
        """Whether a caller waits for the label."""
        return self.record.topic.endswith(".urgent")


class Sorted(NamedTuple):
    """What a batch of records turned out to be."""

    work: list[Work]
    letters: list[tuple[Record, DeadLetter]]
    duplicates: int


class Keys:
    """The last ``limit`` keys of labels."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._keys: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str) -> None:
        """Remember a key; the oldest beyond the limit is forgotten."""
        self._keys[key] = None
        if len(self._keys) > self.limit:
            self._keys.popitem(last=False)

    def recall(self, values: Iterable[bytes], teacher: str) -> None:
        """Remember the keys of label records by ``teacher``; what is none says nothing about any input."""
        for value in values:
            try:
                made = _made.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if made.teacher == teacher:
                self.add(made.key)


class _Made(msgspec.Struct):
    key: str
    teacher: str


_made = msgspec.msgpack.Decoder(_Made)

Place = tuple[str, int, int, str]
"""Topic, partition and offset of a record, and the hash of what a dead letter holds of it: offsets alone would take a
new record for an old one where a topic was made anew."""


def _place(topic: str, partition: int, offset: int, value: bytes | None) -> Place:
    return topic, partition, offset, content_hash((value or b"")[:LETTER_BYTES])


def places_of(letters: Iterable[bytes]) -> Iterator[Place]:
    """The places of the records that dead letters are about."""
    for value in letters:
        try:
            letter = decode(DeadLetter, value)
        except RecordError:
            continue
        yield _place(letter.topic, letter.partition, letter.offset, letter.value)


class Intake:
    """Sorts a workload's records. ``teacher`` says whose labels are made now, ``space`` is their label space.

    Raises:
        ConfigError: the spec's decoder does not exist, or what it asks to mask cannot be looked for.

    """

    def __init__(
        self, spec: Spec, teacher: Callable[[], str], space: str, clock: Callable[[], float] = time.time
    ) -> None:
        self.spec, self.teacher, self.space, self._clock = spec, teacher, space, clock
        decoder(spec.payload, spec.source)
        masker(spec)

    def sort(self, records: Iterable[Searched], keys: Keys, lettered: Collection[Place] = ()) -> Sorted:
        """Tell work from poison and from what has its label, and remember the keys of the work.

        An input that was delivered again (same id, same content) is a duplicate; other inputs of the same content
        are not. A record whose dead letter is visible already (``lettered``) gets no second one.
        """
        sorted_ = Sorted([], [], 0)
        duplicates = 0
        for record, unmasked in records:
            try:
                if unmasked is not None:
                    raise unmasked
                found = self._open(record)
            except RecordError as error:
                if _place(record.topic, record.partition, record.offset, record.value) in lettered:
                    duplicates += 1
                else:
                    letter = self.letter(record, error)
                    if unmasked is not None:  # its bytes are at its own place alone: replayed, it is read from there
                        letter = msgspec.structs.replace(letter, cut=True, digest=None)
                    sorted_.letters.append((record, letter))
                continue
            if found.key in keys:
                duplicates += 1
            else:
                keys.add(found.key)
                sorted_.work.append(found)
        return sorted_._replace(duplicates=duplicates)

    def _open(self, record: Record) -> Work:
        entry, payload = admit(record, self.spec, self._clock())
        key = label_key(entry, self.teacher(), self.space)
        return Work(record, entry, key, content_hash(entry.payload), payload)

    def letter(self, record: Record, error: RecordError) -> DeadLetter:
        """The dead letter of a record that cannot be used."""
        log.warning("dead letter: %s-%d@%d: %s", record.topic, record.partition, record.offset, error)
        return dead_letter(record, error, self.spec.name, self._clock())
