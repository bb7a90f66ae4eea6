"""The monitors: each window of labelled inputs against what the champion was trained on.

Two verdicts are taken of a window, each with half of the spec's alpha: ``drift`` over the payload's descriptors and
the mix of the champion's answers, and ``entropy`` over the entropies of the teacher's soft labels and of the
champion's, their gap, and its disagreement with the one that it replaced. Where the spec gives a run length, ``change``
looks at all of these columns after every input. Of labels that a policy chose a representative part is looked at.
Windows follow each other by a half. A kind alarms once for each champion: the trigger holds the alarm until another
champion serves, and the new reference arms it again.

The champion's accuracy on every window is estimated without labels, and the estimates are held against the truth as it
comes (gauge :data:`ACCURACY`); windows whose truth comes after a restart of the monitor are not.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from components.contracts.errors import RecordError
from components.contracts.records import Label, decode
from components.contracts.spec import Spec
from components.control import looks
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.query.policies import least_chance, representative
from components.snapshot.holdout import kept_shares, standing
from components.snapshot.provenance import usable_truth
from components.snapshot.table import representatives, soft_of
from components.snapshot.window import read
from components.stream.contract import Broker, Consumer, Record, named
from drift.monitor import DriftVerdict
from drift.quality import proportion
from pipelines.foretelling import MOST_KNOWN, Foretelling
from pipelines.watch import CHANGE, ENTROPY_COLUMNS, KINDS, Seen, View, Watch, columns_of, observed, said

log = logging.getLogger(__name__)

PLACE = "monitor"
"""The gauge that keeps the place in the stream, from which a restarted monitor goes on, and the detector's evidence."""

POLL_SECONDS = 0.02
"""How long a look waits for records: a broker that has some answers sooner."""

IDLE_SECONDS = 1.0
"""Wait between two looks while no records come."""

AGREEMENT = "agreement"
"""The gauge of how often the champion says what the teacher says, on the newest window, with its 95 % interval."""

REPORT_SECONDS = 10.0
"""How old the place may be where no records come: whoever looks sees by its age that the monitor lives."""

ACCURACY = "foretold_accuracy"
"""The gauge of the champion's accuracy as foretold without labels (:meth:`.Foretelling.gauge`)."""


class Monitor:
    """Watches one workload's labels."""

    def __init__(self, spec: Spec, store: ControlStore, broker: Broker) -> None:
        self.spec, self.store = spec, store
        self._champion: ModelRef | None = None
        self._view: View | None = None
        self._watch = Watch(references={}, change=None)
        self._window: list[Seen] = []
        self._since_look = 0
        self._trained_until = 0.0
        self._armed = dict.fromkeys((*KINDS, CHANGE), True)
        self._foretelling: Foretelling | None = None
        self.index, self._consumer = self._resume(broker)
        self._behind, self._placed = False, store.clock()

    def _resume(self, broker: Broker) -> tuple[int, Consumer]:
        """How many labels were seen, and a consumer that stands behind them; from the earliest on a new broker."""
        topics = [self.spec.topic("labels"), self.spec.topic("truth")]
        broker.ensure_topics(topics, self.spec.partitions)
        consumer, kept = broker.consumer(topics), self._place()
        seen: dict[str, int] = kept.get("positions", {})
        ends = named(consumer.ends())
        if not seen or any(seen.get(name, 0) > end for name, end in ends.items()):
            return int(kept.get("index", 0)), consumer
        places = {p: seen.get(p.name, 0) for p in consumer.positions()}
        consumer.close()
        return int(kept["index"]), broker.consumer(topics, start=places)

    def _place(self) -> dict[str, Any]:
        gauge = self.store.gauges(self.spec.name).get(PLACE)
        return gauge.value if gauge else {}

    def step(self, timeout: float = 0.5) -> int:
        """Take in what waits, and look at every window that it completes; returns how many records came."""
        self._follow_champion()
        records = self._consumer.poll(50, timeout)
        for record in records:
            if record.topic == self.spec.topic("truth"):
                self._learn(record)
            else:
                self._take(record)
        if records or self._behind or self.store.clock() - self._placed >= REPORT_SECONDS:
            lag = self._consumer.lag()
            value = {"index": self.index, "lag": lag, "positions": named(self._consumer.positions())}
            self.store.put_gauge(self.spec.name, PLACE, value | self._evidence())
            self._placed = self.store.clock()
            self._behind = lag > 0  # the mark of a transaction counts until a poll that finds no record
        if records:
            self._report()
        return len(records)

    def run(self, stop: threading.Event) -> None:
        """Step until ``stop`` is set: at once while records come, else every :data:`IDLE_SECONDS`."""
        while not stop.is_set():
            if not self.step(POLL_SECONDS):
                stop.wait(IDLE_SECONDS)
        self._consumer.close()

    def _follow_champion(self) -> None:
        intent = self.store.intent(self.spec.name)[1]
        champion = intent.champion
        if champion is None or champion == self._champion:
            return
        view = View(self.spec, champion, intent.previous)
        snapshots = view.champion.card.snapshots
        trained = [w.created_at for w in self.store.windows(self.spec.name) if w.digest in snapshots]
        self._champion, self._view = champion, view
        rows, held = self._reference(view)
        self._watch = Watch.fit(self.spec, rows)
        self._foretelling = Foretelling(held, self.spec.seed) if self.spec.task == "classification" else None
        self._trained_until = max(trained, default=0.0)
        self._window, self._since_look = [], 0
        self._go_on(champion)
        raised = {a.kind for a in self.store.alarms(self.spec.name) if a.detail.get("champion") == champion.version}
        self._armed = {kind: kind not in raised for kind in self._armed}
        log.info("%s: reference of champion v%s", self.spec.name, champion.version)

    def _go_on(self, champion: ModelRef) -> None:
        """Give the detector of change points the evidence that it had before a restart, if this was its champion."""
        kept = self._place().get(CHANGE)
        if self._watch.change is None or kept is None or kept["champion"] != champion.version:
            return
        try:
            self._watch.change.resume(kept)
        except ValueError as error:
            log.warning("%s: the detector of change points starts anew: %s", self.spec.name, error)

    def _report(self) -> None:
        if self._foretelling is not None and (value := self._foretelling.gauge()):
            self.store.put_gauge(self.spec.name, ACCURACY, value)
        if (detector := self._watch.change) is not None:
            limit = math.log(detector.run_length)
            value = {"index": self.index, "log_evidence": max(detector.evidence, 0.0), "log_evidence_limit": limit}
            self.store.put_gauge(self.spec.name, CHANGE, value)

    def _evidence(self) -> dict[str, Any]:
        detector, champion = self._watch.change, self._champion
        if detector is None or champion is None:
            return {}
        return {CHANGE: {"champion": champion.version, **detector.as_dict()}}

    def _reference(self, view: View) -> tuple[list[Seen], list[Seen]]:
        """The newest rows of the champion's snapshots (what the traffic was when it was trained), and held-out ones.

        Of the reference as many as the spec says, and holdout rows: the champion is unsure of those as it will be of
        traffic, and has learnt the others by heart. Training rows come in only where the spec asks for a larger
        reference than the holdouts give.
        """
        known = {w.digest: w for w in self.store.windows(self.spec.name)}
        trained = [known[d] for d in view.champion.card.snapshots if d in known]
        kept = kept_shares(trained)
        tables = [standing(read(w.uri, w.digest), kept[w.number]).to_pylist() for w in trained]
        chosen = [r for t in tables for r in representatives(self.spec, t)]
        rows = sorted(chosen, key=lambda r: float(r["time"]), reverse=True)
        wanted = self.spec.monitor.reference
        held = list(_seen(view, [r for r in rows if r["split"] == "holdout"][: max(wanted, MOST_KNOWN)]))
        short = max(0, wanted - len(held))
        learnt = list(_seen(view, [r for r in rows if r["split"] != "holdout"][:short]))
        return [*held[:wanted], *learnt], held

    def _learn(self, record: Record) -> None:
        try:
            truth = usable_truth(self.spec, record)
        except RecordError as error:
            log.debug("%s: a truth is unusable: %s", self.spec.name, error)  # the next snapshot counts and keeps it
            return
        if self._foretelling is not None and truth.label is not None:
            self._foretelling.learn(truth.input_id, truth.label)

    def _take(self, record: Record) -> None:
        self.index += 1
        try:
            label = decode(Label, record.value)
        except RecordError as error:
            log.warning("%s: label %d is unusable: %s", self.spec.name, self.index, error)
            return
        if self._view is None or label.labelled_at <= self._trained_until or not self._counts(label):
            return
        try:
            seen = self._view.see(label.input.id, label.input.payload, label.soft)
        except RecordError:
            return  # the labeler has sent such inputs to the dead letters; an old one may still be on the topic
        self._look_at_row(seen)
        self._add(seen)

    def _counts(self, label: Label) -> bool:
        """Whether the label is of a representative part: what a policy prefers would look like drift."""
        least = least_chance(self.spec.label.policy)
        return representative(least, self.spec.name, label.input.id, label.probability, label.audit)

    def _look_at_row(self, seen: Seen) -> None:
        if (detector := self._watch.change) is None:
            return
        found = detector.observe(observed(detector, seen.columns))
        if found is not None:
            self._alarm(CHANGE, said(found, detector.run_length), [found.column])

    def _add(self, seen: Seen) -> None:
        self._window.append(seen)
        self._since_look += 1
        size = self.spec.monitor.window
        if len(self._window) >= size and self._since_look >= size // 2:
            self._since_look, self._window = 0, self._window[-size:]
            self._look(self._window)

    def _look(self, window: Sequence[Seen]) -> None:
        columns = columns_of(window)
        found: dict[str, list[looks.Distance]] = {}
        for kind, reference in self._watch.references.items():
            verdict = reference.assess(columns)
            found[kind] = _distances(verdict)
            means = _means(columns, reference.columns) if kind == "entropy" else {}
            self.store.put_gauge(self.spec.name, kind, _gauge(verdict, self.index) | means)
            if verdict.outcome == "drift":
                self._alarm(kind, verdict.as_dict(), verdict.drifted)
        looks.add(self.store, self.spec.name, self.index, found)
        if self._foretelling is not None:
            self._foretelling.look(window)
            same = proportion(sum(row.agrees for row in window), len(window))
            value = {"rows": same.n, "share": same.value, "lower": same.lower, "upper": same.upper}
            self.store.put_gauge(self.spec.name, AGREEMENT, value)

    def _alarm(self, kind: str, detail: dict[str, Any], drifted: Sequence[str]) -> None:
        if not self._armed[kind] or self._champion is None:
            return
        self._armed[kind] = False
        self.store.raise_alarm(self.spec.name, kind, self.index, {**detail, "champion": self._champion.version})
        log.warning("%s: %s alarm at input %d: %s", self.spec.name, kind, self.index, drifted)


def _seen(view: View, rows: Sequence[dict[str, Any]]) -> Iterator[Seen]:
    for row in rows:
        yield view.see(row["input_id"], row["payload"], soft_of(row["soft"]), row["truth_label"])


def _means(window: dict[str, Any], reference: Any) -> dict[str, float]:
    """Mean entropies (nats) of a window and, as ``NAME_reference``, of the reference."""
    found = {}
    for name in ENTROPY_COLUMNS:
        if name in reference:
            found[name] = math.fsum(window[name]) / len(window[name])
            found[f"{name}_reference"] = math.fsum(reference[name]) / len(reference[name])
    return found


def _distances(verdict: DriftVerdict) -> list[looks.Distance]:
    return [
        looks.Distance(column=f.column, value=f.statistic, threshold=f.threshold, drifted=f.drifted)
        for f in verdict.findings
    ]


def _gauge(verdict: DriftVerdict, index: int) -> dict[str, Any]:
    worst = max(verdict.findings, key=lambda f: f.statistic - f.threshold, default=None)
    found = {"column": worst.column, "statistic": worst.statistic, "threshold": worst.threshold} if worst else {}
    return {"outcome": verdict.outcome, "index": index, "drifted": ", ".join(verdict.drifted), **found}
