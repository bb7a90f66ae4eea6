"""The monitors: each window of labelled inputs against what the champion was trained on.

Two verdicts are taken of a window, each with half of the spec's alpha: ``drift`` over the payload's descriptors and
the mix of the champion's answers, and ``entropy`` over the entropy of the teacher's soft labels and of the champion's.
Of labels that a policy chose a representative part is looked at. Windows follow each other by a half. A kind alarms
once for each champion: the trigger holds the alarm until another champion serves, and the new reference arms it again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

from components.contracts.errors import RecordError
from components.contracts.records import Label, SoftLabel, decode
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.evaluate.check import fitted
from components.label.decode import decoder
from components.label.policies import least_chance, representative
from components.snapshot.table import representatives, soft_of
from components.snapshot.window import read
from components.stream.contract import Broker, Consumer, named
from components.student.runtime import Student
from drift.monitor import DriftVerdict, Reference

log = logging.getLogger(__name__)

Row = dict[str, float | str]

KINDS = ("drift", "entropy")
ENTROPY_COLUMNS = ("teacher_entropy", "student_entropy")
PLACE = "monitor"
"""The gauge that keeps the place in the stream, from which a restarted monitor goes on."""


class Monitor:
    """Watches one workload's labels."""

    def __init__(self, spec: Spec, store: ControlStore, broker: Broker) -> None:
        self.spec, self.store = spec, store
        self._decode = decoder(spec.payload, spec.source)
        self._champion: ModelRef | None = None
        self._student: Student | None = None
        self._references: dict[str, Reference] = {}
        self._window: list[Row] = []
        self._since_look = 0
        self._trained_until = 0.0
        self._armed = dict.fromkeys(KINDS, True)
        self.index, self._consumer = self._resume(broker)
        self._behind = False

    def _resume(self, broker: Broker) -> tuple[int, Consumer]:
        """How many labels were seen, and a consumer that stands behind them; from the earliest on a new broker."""
        topics = [self.spec.topic("labels")]
        consumer = broker.consumer(topics)
        gauge = self.store.gauges(self.spec.name).get(PLACE)
        seen: dict[str, int] = gauge.value.get("positions", {}) if gauge else {}
        ends = named(consumer.ends())
        if not seen or any(seen.get(name, 0) > end for name, end in ends.items()):
            return int(gauge.value["index"]) if gauge else 0, consumer
        places = {p: seen.get(p.name, 0) for p in consumer.positions()}
        consumer.close()
        return int(gauge.value["index"]) if gauge else 0, broker.consumer(topics, start=places)

    def step(self, timeout: float = 0.5) -> int:
        """Take in the labels that wait, and look at every window that they complete; returns how many came."""
        self._follow_champion()
        records = self._consumer.poll(50, timeout)
        for record in records:
            self.index += 1
            try:
                label = decode(Label, record.value)
            except RecordError as error:
                log.warning("%s: label %d is unusable: %s", self.spec.name, self.index, error)
                continue
            if self._student is not None and label.labelled_at > self._trained_until and self._counts(label):
                self._add(self._student, label)
        if records or self._behind:
            positions, lag = named(self._consumer.positions()), self._consumer.lag()
            value = {"index": self.index, "lag": lag, "positions": positions}
            self.store.put_gauge(self.spec.name, PLACE, value)
            self._behind = lag > 0  # the mark of a transaction counts until a poll that finds no record
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
        student = Student.load(get_bytes(champion.uri, champion.digest), source=self.spec.source)
        trained = [w.created_at for w in self.store.windows(self.spec.name) if w.digest in student.card.snapshots]
        self._champion, self._student, self._references = champion, student, self._fit(student)
        self._trained_until = max(trained, default=0.0)
        self._window, self._since_look = [], 0
        raised = {a.kind for a in self.store.alarms(self.spec.name) if a.detail.get("champion") == champion.version}
        self._armed = {kind: kind not in raised for kind in KINDS}
        log.info("%s: reference of champion v%s", self.spec.name, champion.version)

    def _fit(self, student: Student) -> dict[str, Reference]:
        """References from the snapshots that the champion was trained on."""
        rows = list(self._reference_rows(student))
        if not rows:
            return {}
        columns, watch = _columns(rows), self.spec.monitor
        return {
            kind: fitted(
                {n: c for n, c in columns.items() if (n in ENTROPY_COLUMNS) == (kind == "entropy")},
                watch,
                window=watch.window,
                alpha=watch.alpha / len(KINDS),
                seed=self.spec.seed,
            )
            for kind in KINDS
        }

    def _reference_rows(self, student: Student) -> Iterator[Row]:
        """The newest rows of the champion's snapshots: what the traffic was when it was trained.

        Holdout rows: the champion is unsure of those as it will be of traffic, and has learnt the others by heart.
        Training rows come in only where the spec asks for a larger reference than the holdouts give.
        """
        windows = {w.digest: w for w in self.store.windows(self.spec.name)}
        tables = [read(windows[d].uri, d).to_pylist() for d in student.card.snapshots if d in windows]
        chosen = [r for t in tables for r in representatives(self.spec, t)]
        rows = sorted(chosen, key=lambda r: float(r["time"]), reverse=True)
        held = [r for r in rows if r["split"] == "holdout"][: self.spec.monitor.reference]
        short = self.spec.monitor.reference - len(held)
        learnt = [r for r in rows if r["split"] != "holdout"][:short]
        for row in (*held, *learnt):
            yield self._row(student, row["payload"], soft_of(row["soft"]))

    def _row(self, student: Student, payload: bytes, soft: SoftLabel) -> Row:
        decoded = self._decode(payload)
        (answer,) = student.predict_decoded([decoded])
        described: Row = dict(student.featuriser.describe(decoded))
        if soft.task == "classification":
            described["answer"] = answer.label
        return described | {"teacher_entropy": soft.entropy, "student_entropy": answer.entropy}

    def _counts(self, label: Label) -> bool:
        """Whether the label is of a representative part: what a policy prefers would look like drift."""
        least = least_chance(self.spec.label.policy)
        return representative(least, self.spec.name, label.input.id, label.probability, label.audit)

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
            if verdict.outcome == "drift" and self._armed[kind] and self._champion is not None:
                self._armed[kind] = False
                detail = {**verdict.as_dict(), "champion": self._champion.version}
                self.store.raise_alarm(self.spec.name, kind, self.index, detail)
                log.warning("%s: %s alarm at input %d: %s", self.spec.name, kind, self.index, verdict.drifted)


def _columns(rows: list[Row]) -> dict[str, list[float | str | None]]:
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}


def _gauge(verdict: DriftVerdict, index: int) -> dict[str, Any]:
    worst = max(verdict.findings, key=lambda f: f.statistic - f.threshold, default=None)
    found = {"column": worst.column, "statistic": worst.statistic, "threshold": worst.threshold} if worst else {}
    return {"outcome": verdict.outcome, "index": index, "drifted": ", ".join(verdict.drifted), **found}
