"""What labelling would make of a history, before a teacher is asked: its rows, its classes, and what is wrong."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from components.contracts.admission import admit
from components.contracts.errors import ConfigError, RecordError
from components.contracts.records import Truth, content_hash, encode
from components.contracts.spec import Spec
from components.contracts.stream_record import Record
from components.label.history_file import Historic, history
from components.snapshot.provenance import usable_truth

FIRST = 10
"""Faults that are told with their places; the others are counted."""


@dataclass
class HistoryReport:
    """What is in a history.

    ``rows`` are inputs; ``contents`` different payloads; ``with_truth`` those whose truth is known; ``classes`` rows by
    true class (of multilabel each that a row has), or true spans by kind (empty for a regression, whose ``values`` are
    the least and the greatest); ``seconds`` the first and the last event time; ``faults`` the first places with what is
    wrong there, of ``wrong`` in all, by ``reasons``.
    """

    rows: int = 0
    contents: int = 0
    with_truth: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    bytes: int = 0
    wrong: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


def check_history(uri: str, spec: Spec, now: float | None = None) -> HistoryReport:
    """Read a history as labelling would at ``now`` (Unix seconds, None: at present).

    Raises:
        ConfigError: a file cannot be read at all.
        ArtifactError: it does not exist.

    """
    look = _Look(spec, time.time() if now is None else now)
    for place, entry in history(uri, spec):
        look.at(place, entry)
    if not look.report.rows and not look.report.wrong:
        look.fault(uri, "empty", "there is not one entry")
    look.report.contents = len(look.contents)
    look.report.classes = dict(look.classes.most_common())
    return look.report


class _Look:
    def __init__(self, spec: Spec, now: float) -> None:
        self.spec, self.now, self.report = spec, now, HistoryReport()
        self.contents: set[str] = set()
        self.classes: Counter[str] = Counter()
        self._places: dict[str, tuple[str, str]] = {}
        self._truths: dict[str, tuple[str, str | float | None]] = {}

    def at(self, place: str, entry: Historic | ConfigError) -> None:
        if isinstance(entry, ConfigError):
            self.fault(place, "unreadable", entry.allowed.removeprefix("must be a historic input: "))
            return
        report, given = self.report, entry.input
        content = content_hash(given.payload)
        report.rows += 1
        report.bytes = max(report.bytes, len(given.payload))
        report.seconds = [min([given.time, *report.seconds[:1]]), max([given.time, *report.seconds[1:]])]
        self.contents.add(content)
        try:
            admit(_record(self.spec, encode(given)), self.spec, self.now)
        except RecordError as error:
            self.fault(place, error.reason, error.detail)
        former, there = self._places.setdefault(given.id, (content, place))
        if former != content:
            self.fault(place, "same_id", f"id {given.id!r} has another payload at {there}: give each input its own")
        if entry.truth is not None:
            self._truth(place, entry.truth)

    def _truth(self, place: str, truth: Truth) -> None:
        try:
            usable_truth(self.spec, _record(self.spec, encode(truth)))
        except RecordError as error:
            self.fault(place, error.reason, error.detail)
            return
        self.report.with_truth += 1
        said = truth.said
        former, there = self._truths.setdefault(truth.input_id, (place, said))[::-1]
        if former != said:
            self.fault(place, "other_truth", f"{said!r} for input {truth.input_id!r}, and {former!r} at {there}")
        if truth.spans is not None:
            self.classes.update(span.label for span in truth.spans)
        elif isinstance(said, str):
            self.classes.update((said,) if truth.labels is None else set(truth.labels))
        else:
            values = self.report.values
            self.report.values = [min([said, *values[:1]]), max([said, *values[1:]])]

    def fault(self, place: str, reason: str, detail: str) -> None:
        report = self.report
        report.wrong += 1
        report.reasons[reason] = report.reasons.get(reason, 0) + 1
        if len(report.faults) < FIRST:
            report.faults.append((place, f"{reason}: {detail}"))


def _record(spec: Spec, value: bytes) -> Record:
    return Record(spec.name, 0, 0, None, value, {}, 0.0)
