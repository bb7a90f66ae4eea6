"""Until when a labeler's teacher was last seen to be what it was, and which labels were made after that.

A clean round of probes is written down with the time at which it began and where the labels topic ended then: labels
that are made later stand behind that place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from typing import Any

from components.contracts.errors import RecordError
from components.contracts.records import label_of
from components.contracts.spec import Spec
from components.control.store import ControlStore
from components.control.teachers import TeacherState, clean_rounds, put_clean
from components.stream.contract import Broker, Consumer, named, read_to_end


class LabelTrace:
    """What one labeler knows of it; ``began`` is when the present round began (Unix seconds)."""

    def __init__(
        self, spec: Spec, store: ControlStore, broker: Broker, teacher: str, member: str, clock: Callable[[], float]
    ) -> None:
        self.spec, self.began = spec, 0.0
        self._store, self._broker, self._teacher, self._member, self._clock = store, broker, teacher, member, clock
        self._ends: dict[str, int] = {}
        self._asked: dict[str, float] = {}
        self._labels: Consumer | None = None

    def begin_round(self) -> None:
        """Note the time, and where the labels topic ends."""
        if self._labels is None:
            self._labels = self._broker.consumer([self.spec.topic("labels")])
        self.began, self._ends = self._clock(), named(self._labels.ends())

    def answered(self, contents: Iterable[str], at: float) -> None:
        """These probes were asked ``at`` and answered as ever."""
        self._asked.update(dict.fromkeys(contents, at))

    def keep(self, known: Collection[str]) -> None:
        """Forget other probes than these."""
        self._asked = {c: at for c, at in self._asked.items() if c in known}

    def clean(self, contents: Iterable[str], epoch: int) -> None:
        """The round of these probes was clean: write it down."""
        self._asked.update({c: self._asked.get(c, self.began) for c in contents})
        put_clean(self._store, self.spec.name, self._teacher, self._member, epoch, self.began, self._ends)

    def last_clean(self, moved: Mapping[str, float], state: TeacherState) -> tuple[float, dict[str, int]]:
        """Since when labels are suspect, and the labels topic's ends at or before that time.

        The earliest of the last clean answers of the probes that ``moved``; where this process has none (a start, a
        noisy teacher), this labeler's last clean round, else the earliest of any labeler's, else the epoch's start.
        """
        rounds = clean_rounds(self._store, self.spec.name, self._teacher, state.epoch)
        earliest = min(rounds.values(), key=lambda r: r.at, default=None)
        own = rounds.get(self._member, earliest)
        at, positions = (own.at, dict(own.positions)) if own is not None else (state.since, {})
        if moved and all(c in self._asked for c in moved):
            at = max(at, min(self._asked[c] for c in moved))
        return at, {str(k): int(v) for k, v in positions.items()}

    def first_since(
        self, since: float, positions: Mapping[str, int], reference: str
    ) -> tuple[dict[str, Any] | None, int]:
        """The first label on the topic that ``reference`` made since then, and how many there are."""
        first: dict[str, Any] | None = None
        count, topic = 0, self.spec.topic("labels")
        with closing(self._broker.consumer([topic])) as all_of_it:
            starts = {p: max(at, positions.get(p.name, 0)) for p, at in all_of_it.positions().items()}
        with closing(self._broker.consumer([topic], start=starts)) as consumer:
            for record in read_to_end(consumer):
                try:
                    label = label_of(self.spec.task, record.value)
                except RecordError:
                    continue
                if label.teacher != reference or label.labelled_at < since:
                    continue
                count += 1
                if first is None or label.labelled_at < first["labelled_at"]:
                    place = f"{record.topic}-{record.partition}@{record.offset}"
                    first = {"key": label.key, "input": label.input.id, "labelled_at": label.labelled_at, "at": place}
        return first, count

    def close(self) -> None:
        """Release the connection."""
        if self._labels is not None:
            self._labels.close()
            self._labels = None
