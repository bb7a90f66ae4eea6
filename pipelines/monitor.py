"""The monitors: each window of labelled inputs against what the champion was trained on.

Two verdicts are taken of a window, each with half of the spec's alpha: ``drift`` over the payload's descriptors and
the mix of the champion's answers, and ``entropy`` over the entropy of the teacher's soft labels and of the
champion's. Windows follow each other by a half; after an alarm, or a new champion, the window starts anew, so that
inputs from before are not counted again.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from components.contracts.errors import RecordError
from components.contracts.records import Label, SoftLabel, decode
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.label.decode import decoder
from components.snapshot.table import soft_of
from components.snapshot.window import read
from components.stream.contract import Broker
from components.student.runtime import Student
from drift.monitor import DriftVerdict, Reference

log = logging.getLogger(__name__)

Row = dict[str, float | str]

KINDS = ("drift", "entropy")
ENTROPY_COLUMNS = ("teacher_entropy", "student_entropy")
REFERENCE_ROWS = 2_000
"""Most rows of a reference: more would only cost time."""


class Monitor:
    """Watches one workload's labels."""

    def __init__(self, spec: Spec, store: ControlStore, broker: Broker) -> None:
        self.spec, self.store = spec, store
        self._consumer = broker.consumer([spec.topic("labels")])
        self._decode = decoder(spec.payload, spec.source)
        self._champion: ModelRef | None = None
        self._student: Student | None = None
        self._references: dict[str, Reference] = {}
        self._window: list[Row] = []
        self._since_look = 0
        self._armed = dict.fromkeys(KINDS, True)
        self.index = 0

    def step(self, timeout: float = 0.5) -> int:
        """Take in the labels that wait, and look at every window that they complete; returns how many came."""
        self._follow_champion()
        records = self._consumer.poll(50, timeout)
        for record in records:
            self.index += 1
            if self._student is not None:
                self._add(self._student, decode(Label, record.value))
        if records:
            value = {"index": self.index, "lag": self._consumer.lag()}
            self.store.put_gauge(self.spec.name, "monitor", value)
        return len(records)

    def run(self, stop: threading.Event) -> None:
        """Step until ``stop`` is set."""
        while not stop.is_set():
            self.step()
        self._consumer.close()

    def _follow_champion(self) -> None:
        champion = self.store.intent(self.spec.name)[1].champion
        if champion is None or champion == self._champion:
            return
        self._champion = champion
        self._student = Student.load(get_bytes(champion.uri, champion.digest), source=self.spec.source)
        self._references = self._fit(self._student)
        self._window, self._since_look, self._armed = [], 0, dict.fromkeys(KINDS, True)
        log.info("%s: reference of champion v%s", self.spec.name, champion.version)

    def _fit(self, student: Student) -> dict[str, Reference]:
        """References from the snapshots that the champion was trained on.

        Holdout rows only: it is unsure of those as it will be of traffic, and has learnt the others by heart.
        """
        rows: list[Row] = []
        windows = {w.digest: w for w in self.store.windows(self.spec.name)}
        for digest in student.card.snapshots:
            if digest in windows and len(rows) < REFERENCE_ROWS:
                table = read(windows[digest].uri, digest).to_pylist()
                held = [r for r in table if r["split"] == "holdout"]
                rows += [self._row(student, r["payload"], soft_of(r["soft"])) for r in held]
        columns = _columns(rows[:REFERENCE_ROWS])
        watch = self.spec.monitor
        return {
            kind: Reference.fit(
                {n: c for n, c in columns.items() if (n in ENTROPY_COLUMNS) == (kind == "entropy")},
                window=watch.window,
                alpha=watch.alpha / len(KINDS),
                min_effect=watch.min_effect,
                resamples=watch.resamples,
                seed=self.spec.seed,
            )
            for kind in (KINDS if rows else ())
        }

    def _row(self, student: Student, payload: bytes, soft: SoftLabel) -> Row:
        decoded = self._decode(payload)
        (answer,) = student.predict_decoded([decoded])
        described: Row = dict(student.featuriser.describe(decoded))
        if soft.task == "classification":
            described["answer"] = answer.label
        return described | {"teacher_entropy": soft.entropy, "student_entropy": answer.entropy}

    def _add(self, student: Student, label: Label) -> None:
        try:
            self._window.append(self._row(student, label.input.payload, label.soft))
        except RecordError:
            return  # the labeler has sent such inputs to the dead letters; an old one may still be on the topic
        self._since_look += 1
        size = self.spec.monitor.window
        if len(self._window) >= size and self._since_look >= size // 2:
            self._since_look, self._window = 0, self._window[-size:]
            self._look(_columns(self._window))

    def _look(self, columns: dict[str, list[float | str | None]]) -> None:
        for kind, reference in self._references.items():
            verdict = reference.assess(columns)
            self.store.put_gauge(self.spec.name, kind, _gauge(verdict, self.index))
            if verdict.outcome == "drift" and self._armed[kind]:
                self._armed[kind] = False  # one alarm a champion: the next one is armed anew
                self.store.raise_alarm(self.spec.name, kind, self.index, verdict.as_dict())
                log.warning("%s: %s alarm at input %d: %s", self.spec.name, kind, self.index, verdict.drifted)


def _columns(rows: list[Row]) -> dict[str, list[float | str | None]]:
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}


def _gauge(verdict: DriftVerdict, index: int) -> dict[str, Any]:
    worst = max(verdict.findings, key=lambda f: f.statistic - f.threshold, default=None)
    found = {"column": worst.column, "statistic": worst.statistic, "threshold": worst.threshold} if worst else {}
    return {"outcome": verdict.outcome, "index": index, "drifted": ", ".join(verdict.drifted), **found}
