"""What there is of an entity on the stream and in the windows: the records themselves, and the names that others use.

An entity is an input's ``key``. Labels, letters and predictions carry it; a truth names the input's id alone, evidence
the id of the input or of the request, a probe of the teacher the hash of the content. So all records that carry the key
are read for these names first, and then what goes by the names is looked for.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field

import msgspec

from components.contracts.errors import RecordError
from components.contracts.records import DeadLetter, Input, Label, Prediction, Truth, content_hash, decode
from components.contracts.spec import Spec
from components.contracts.stream_record import Record, TopicPartition
from components.control.tables import WindowRow
from components.snapshot.erase import column_of, meant
from components.stream.contract import Broker, read_to_end

Places = dict[TopicPartition, list[int]]
"""Offsets of records, by partition."""

INPUTS = ("inputs", "inputs.urgent")

LETTERS = ("inputs.dlq", "labels.refused")


class Names(msgspec.Struct, kw_only=True):
    """By what an entity's inputs are named.

    ``ids`` of inputs; ``requests`` to the gateway; keys of ``labels``; hashes of ``contents`` that nobody else sent.
    """

    ids: set[str] = set()
    requests: set[str] = set()
    labels: set[str] = set()
    contents: set[str] = set()

    @property
    def told(self) -> set[str]:
        """What others than the entity know it by: ids and requests."""
        return self.ids | self.requests

    def add(self, more: Names) -> None:
        """Take in what was found elsewhere."""
        self.ids |= more.ids
        self.requests |= more.requests
        self.labels |= more.labels
        self.contents |= more.contents


@dataclass
class Traces:
    """What was found. ``places``: of the records on the stream; ``rows``: of each window, by its number."""

    names: Names = field(default_factory=Names)
    places: Places = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)
    ends: dict[TopicPartition, int] = field(default_factory=dict)

    def topics(self) -> dict[str, int]:
        """How many records each topic has."""
        found: dict[str, int] = defaultdict(int)
        for place, offsets in self.places.items():
            found[place.topic] += len(offsets)
        return dict(sorted(found.items()))


class _Subject(msgspec.Struct):
    """Of an encoded record of any kind what says whom it is of."""

    key: str | None = None
    id: str | None = None
    input_id: str | None = None
    input: Input | None = None


_subject = msgspec.msgpack.Decoder(_Subject)


class _Search:
    """Goes through topics and windows once each."""

    def __init__(self, spec: Spec, key: str, until: float, known: Names) -> None:
        self.spec, self.key, self._raw, self._until = spec, key, key.encode(), until
        self.traces = Traces(names=Names())
        self.traces.names.add(known)
        self._others: set[str] = set()
        self._waiting: list[tuple[TopicPartition, int, str]] = []

    def window(self, window: WindowRow) -> None:
        """Look for rows of a snapshot."""
        table = column_of(window, ("key", "time", "input_id", "label_key", "content"))
        mine = [i for i, gone in enumerate(meant(window, table, self.key, self._until)) if gone]
        contents = table["content"].to_pylist()
        own = {contents[i] for i in mine}
        self._others |= {c for i, c in enumerate(contents) if c in own and i not in set(mine)}
        if mine:
            self.traces.rows[window.number] = len(mine)
            names = self.traces.names
            names.contents |= own
            ids, keys = table["input_id"].to_pylist(), table["label_key"].to_pylist()
            names.ids |= {ids[i] for i in mine}
            names.labels |= {keys[i] for i in mine}

    def record(self, kind: str, record: Record) -> None:
        """Look at a record of a topic of this kind."""
        if record.value is None:
            if record.key == self._raw and record.timestamp <= self._until and kind in INPUTS:
                self._take(record)
            elif kind == "truth" and record.key is not None:
                self._later(record, record.key.decode(errors="replace"))
            return
        with contextlib.suppress(RecordError):
            self._decoded(kind, record)
            return
        if (
            record.key == self._raw and record.timestamp <= self._until
        ):  # it cannot be read, and is the entity's by what it was sent under
            self._take(record)

    def _decoded(self, kind: str, record: Record) -> None:
        names, value = self.traces.names, record.value
        if kind in INPUTS:
            self._input(decode(Input, value), record)
        elif kind in ("labels", "labels.quarantine"):
            label = decode(Label, value)
            if self._input(label.input, record):
                names.labels.add(label.key)
        elif kind == "predictions":
            said = decode(Prediction, value)
            if said.key == self.key and self._before(said.time, record):
                names.ids.add(said.input_id)
                names.requests.add(said.request_id)
                names.contents.add(said.content)
                self._take(record)
        elif kind == "truth":
            self._later(record, decode(Truth, value).input_id)
        elif kind in LETTERS:
            self._letter(decode(DeadLetter, value), record)

    def _input(self, found: Input, record: Record) -> bool:
        if found.key != self.key or not self._before(found.time, record):
            return False
        names = self.traces.names
        names.ids.add(found.id)
        names.contents.add(content_hash(found.payload))
        self._take(record)
        return True

    def _letter(self, letter: DeadLetter, record: Record) -> None:
        """A letter holds the refused record, which may be of any kind, and may be none that can be read."""
        try:
            held = _subject.decode(letter.value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            held = _Subject()
        found = held.input if held.input is not None else held
        if self.key in (found.key, held.key) or letter.key == self._raw:
            if not self._before(letter.at, record):
                return
            self._take(record)
            if found.id is not None:
                self.traces.names.ids.add(found.id)
        elif held.input_id is not None:
            self._later(record, held.input_id)

    def _before(self, time: float, record: Record) -> bool:
        """Whether what a record tells of had happened, or the record had come, by the time of the order."""
        return min(time, record.timestamp) <= self._until

    def _take(self, record: Record) -> None:
        self.traces.places.setdefault(record.place, []).append(record.offset)

    def _later(self, record: Record, input_id: str) -> None:
        self._waiting.append((record.place, record.offset, input_id))

    def done(self) -> Traces:
        """What goes by the names alone is known once everything was looked at."""
        for place, offset, input_id in self._waiting:
            if input_id in self.traces.names.ids:
                self.traces.places.setdefault(place, []).append(offset)
        self.traces.names.contents -= self._others
        return self.traces


def search(
    spec: Spec, broker: Broker, key: str, until: float, windows: Iterable[WindowRow], known: Names | None = None
) -> Traces:
    """Everything of an entity, up to a time, in the windows and on all topics of a workload.

    ``until``: Unix seconds; what happened later and came later stays. ``known``: names from an earlier search.

    Raises:
        ArtifactError: a snapshot does not exist or has another digest.
        UnavailableError: the broker does not answer.

    """
    found = _Search(spec, key, until, known or Names())
    for window in windows:
        found.window(window)
    kinds = spec.kinds
    broker.ensure_topics(spec.topics, spec.partitions)
    with closing(broker.consumer(spec.topics)) as consumer:
        ends = consumer.ends()
        for record in read_to_end(consumer):
            found.record(kinds[record.topic], record)
    traces = found.done()
    traces.ends = ends
    return traces
