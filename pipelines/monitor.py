"""The monitors: the traffic that a champion answers, and the labels of it, against what the champion was trained on.

Drift, predictive entropy and novelty are read from inputs and from the answers that they were given, so that an alarm
needs no call of the teacher; its own entropy, and the champion's agreement with it, from labels. Three verdicts are
taken of windows: ``drift`` over the payload's descriptors and the mix of the champion's answers, ``predictive_entropy``
over how unsure it is and how far it disagrees with the one that it replaced, and ``entropy`` over the teacher's soft
labels. ``novelty`` looks at the p-value of every answer; where the spec gives a run length, ``change`` looks at all of
the columns after every input and every label. The spec's alpha is divided among them (:class:`.Watch`).

Of inputs that are sent again, and of more than the spec's ``inputs_per_second``, a part is looked at
(:mod:`.traffic`); of labels that a policy chose a representative one. A kind alarms once for each champion: the trigger
holds the alarm until another champion serves, and the new reference arms it again. Alarms are dated by the count of
labels, as the trigger counts them, and say what they were read from and how many inputs had been looked at; one of
``novelty`` by the count of when the new inputs probably began, since labels of them may be there before it. A champion
that has just been learnt is at once asked how novel the newest inputs are that came after its window: a change that
came while it was made, or was rolled out, is no less of a change to it, and is dated as it came. Former
champions are held against the present one, and the canary is ordered for one whose traffic has returned
(:mod:`.regimes`).

A restarted monitor goes on where it was, with the evidence of what looks at every row; windows begin anew. The
champion's accuracy on every window is estimated without labels, and the estimates are held against the truth as it
comes (gauge :data:`ACCURACY`); windows whose truth comes after a restart of the monitor are not.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from components.contracts.errors import FinderError, RecordError, UnavailableError
from components.contracts.masking import masked_input
from components.contracts.payload import carried, carrying
from components.contracts.records import NAMED, Input, Label, Prediction, decode, label_of
from components.contracts.spec import Kind, Spec
from components.control import looks
from components.control.alarm_kinds import CHANGE, DOUBT, DRIFT, ENTROPY, MONITORED, NOVELTY, SOURCES, UNKNOWN, Source
from components.control.intent import ModelRef
from components.control.store import ControlStore, routing_bell
from components.control.tables import AlarmRow, WindowRow
from components.query.policies import least_chance, representative
from components.snapshot.holdout import kept_shares, standing
from components.snapshot.provenance import usable_truth
from components.snapshot.table import known_of, representatives, soft_of
from components.snapshot.window import read
from components.stream.contract import Broker, Consumer, Record, named
from drift.monitor import LEAST_ROWS, DriftVerdict, Reference
from drift.quality import proportion
from pipelines.foretelling import MOST_KNOWN, Foretelling
from pipelines.regimes import RETURN, Regimes, returned
from pipelines.traffic import Thinning, Window
from pipelines.watch import Row, Seen, View, Watch, columns_of, observed, said

log = logging.getLogger(__name__)

PLACE = "monitor"
"""The gauge that keeps the place in the stream, from which a restarted monitor goes on, and the detector's evidence."""

POLL_SECONDS = 0.02
"""How long a look waits for records: a broker that has some answers sooner."""

GATHER_SECONDS = 0.25
"""Wait between two looks while records come, but few at a time: each look writes what it knows."""

IDLE_SECONDS = 1.0
"""Wait between two looks while no records come."""

FOLLOW_SECONDS = 5.0
"""How old what is known of the routing may be where its changes are heard of."""

POLLED = 500
"""Records that are read at once: an answer is two, and a busy gateway gives hundreds a second."""

AGREEMENT = "agreement"
"""The gauge of how often the champion says what the teacher says, on the newest window, with its 95 % interval."""

CAME = "came_at"
"""In the detail of an alarm that is raised later than its traffic came: when it came, Unix seconds."""

REPORT_SECONDS = 10.0
"""How old the place may be where no records come: whoever looks sees by its age that the monitor lives."""

ACCURACY = "foretold_accuracy"
"""The gauge of the champion's accuracy as foretold without labels (:meth:`.Foretelling.gauge`)."""


class Resumable(Protocol):
    """What looks at every row, and keeps its evidence over a restart."""

    def resume(self, data: dict[str, Any], /) -> Any:
        """Go on with evidence that was kept."""


class Past(NamedTuple):
    """An input that was looked at, on the stream since ``at``, and the counts then."""

    at: float
    labels: int
    inputs: int
    payload: bytes


class Known(NamedTuple):
    """What a champion was made on, as it sees it: the monitors' reference, and the newest rows that were held out.

    ``usual``: its p-values of the reference's held-out rows, where they are of the last of several regimes.
    """

    reference: list[Seen]
    held: list[Seen]
    usual: list[float]


class Monitor:
    """Watches one workload's traffic.

    ``index`` counts its labels, ``inputs`` the inputs that were looked at, and ``beside`` the labels of traffic that
    came while inputs were; ``unsearched`` inputs that were not looked at since the search for personal data failed.
    """

    def __init__(self, spec: Spec, store: ControlStore, broker: Broker) -> None:
        self.spec, self.store = spec, store
        self._champion: ModelRef | None = None
        self._view: View | None = None
        self._watch = Watch(references={}, changes={}, novelty=None)
        self._begin_windows()
        self._newest: deque[Past] = deque(maxlen=spec.monitor.window)
        self._thinning = Thinning(spec.monitor.inputs_per_second)
        self._answered = Thinning(spec.monitor.inputs_per_second)
        self._trained_until = 0.0
        self._armed = dict.fromkeys(MONITORED, True)
        self._answers = {"rows": 0, "wrong": 0}
        self._foretelling: Foretelling | None = None
        self._regimes: Regimes | None = None
        kept = self._place()
        self.index, self.inputs = int(kept.get("index", 0)), int(kept.get("inputs", 0))
        self.beside = int(kept.get("beside", 0))
        self.unsearched, self._unsearched = int(kept.get("unsearched", 0)), False
        self._kinds = spec.kinds
        self._consumer = self._resume(broker, kept.get("positions", {}))
        self._behind, self._placed = False, store.clock()

    def _begin_windows(self) -> None:
        size = self.spec.monitor.window
        self._traffic, self._labelled = Window[Row](size), Window[Seen](size)
        self._then: deque[int] = deque(maxlen=size)

    def _resume(self, broker: Broker, seen: dict[str, int]) -> Consumer:
        """A consumer that stands behind what was seen; from the earliest on a new broker.

        A topic that a monitor of an earlier version did not read is read from its end.
        """
        kinds: tuple[Kind, ...] = ("labels", "truth", "inputs", "inputs.urgent", "predictions")
        topics = [self.spec.topic(kind) for kind in kinds]
        broker.ensure_topics(topics, self.spec.partitions)
        consumer = broker.consumer(topics)
        ends = consumer.ends()
        if not seen or any(seen.get(p.name, 0) > end for p, end in ends.items()):
            return consumer
        known = {name.rpartition(":")[0] for name in seen}
        places = {p: seen.get(p.name, 0 if p.topic in known else ends[p]) for p in consumer.positions()}
        consumer.close()
        return broker.consumer(topics, start=places)

    def _place(self) -> dict[str, Any]:
        gauge = self.store.gauges(self.spec.name).get(PLACE)
        return gauge.value if gauge else {}

    def step(self, timeout: float = 0.5, *, follow: bool = True) -> int:
        """Take in what waits, and look at every window that it completes; returns how many records came.

        ``follow``: look who the champion is, before.
        """
        if follow:
            self._follow_champion()
        records = self._consumer.poll(POLLED, timeout)
        came: list[Past] = []
        for record in records:
            kind = self._kinds[record.topic]
            if kind == "truth":
                self._learn(record)
            elif kind == "predictions":
                self._note(record)
            elif kind == "labels":
                self._take(record)
            elif (entry := self._input(record)) is not None:
                came.append(Past(record.timestamp, self.index, self.inputs + len(came) + 1, carried(entry)))
        self._newest.extend(came)
        self._look_at_inputs([one.payload for one in came])
        if self._regimes is not None:
            self._regimes.consider()
        if records or self._behind or self.store.clock() - self._placed >= REPORT_SECONDS:
            self._say_place()
        if records:
            self._report()
        return len(records)

    def _say_place(self) -> None:
        """Say how far it is; where the broker does not tell how much waits, a later step does."""
        self._behind = True
        try:
            lag = self._consumer.lag()
        except UnavailableError as error:
            log.warning("%s: how many records wait is not known: %s", self.spec.name, error)
            return
        value = {
            "index": self.index,
            "inputs": self.inputs,
            "beside": self.beside,
            "unsearched": self.unsearched,
            "lag": lag,
            "positions": named(self._consumer.positions()),
            "answers": {"champion": self._champion.version if self._champion else None, **self._answers},
        }
        self.store.put_gauge(self.spec.name, PLACE, value | self._evidence())
        self._placed = self.store.clock()
        self._behind = lag > 0  # the mark of a transaction counts until a poll that finds no record

    def run(self, stop: threading.Event) -> None:
        """Step until ``stop`` is set: at once while many records wait, else after what gathers some more."""
        rung, followed = self.store.bells.listen(routing_bell(self.spec.name)), float("-inf")
        while not stop.is_set():
            late = time.monotonic() - followed >= FOLLOW_SECONDS
            follow = late or rung.is_set() or not self.store.bells.heard
            if follow:
                rung.clear()
                followed = time.monotonic()
            found = self.step(POLL_SECONDS, follow=follow)
            if found < POLLED:
                stop.wait(GATHER_SECONDS if found else IDLE_SECONDS)
        self.store.bells.leave(rung)
        self._consumer.close()

    def _follow_champion(self) -> None:
        intent = self.store.intent(self.spec.name)[1]
        champion = intent.champion
        if champion is None or champion == self._champion:
            return
        view = View(self.spec, champion, intent.previous)
        snapshots = set(view.champion.card.snapshots)
        trained = [w.created_at for w in self.store.windows(self.spec.name) if not snapshots.isdisjoint(w.digests)]
        before = self._champion
        learnt = before is not None and max(trained, default=0.0) > self._trained_until
        self._champion, self._view = champion, view
        known = self._known(view)
        calibrated = min(map(len, view.champion.card.novelty), default=0)
        self._watch = Watch.fit(self.spec, known.reference, calibrated, known.usual)
        self._foretelling = Foretelling(known.held, self.spec.seed) if self.spec.task in NAMED else None
        self._trained_until = max(trained, default=0.0)
        self._begin_windows()
        self._regimes = Regimes(self.spec, self.store, champion, calibrated)
        self._go_on(champion)
        returned(self.store, self.spec.name, champion)
        raised = {a.kind for a in self.store.open_alarms(self.spec.name, champion.version)}
        self._armed = {kind: kind not in raised for kind in self._armed}
        log.info("%s: reference of champion v%s", self.spec.name, champion.version)
        if learnt and before is not None:  # one that served before is there for the traffic that comes
            self._keep_open(before)
            self._look_back(view)

    def _keep_open(self, before: ModelRef) -> None:
        """Keep the alarm that the champion ``before`` did not know the traffic, where the new one cannot know it.

        Its window was frozen before that alarm, so it has no label that came after it. Where the alarm is dated before
        the window was frozen, the labels that the window has do not count again: the trigger counts none of them.
        """
        found = self.store.open_alarms(self.spec.name, before.version)
        first = next((alarm for alarm in found if alarm.kind in UNKNOWN), None)
        at = float(first.detail.get(CAME, first.at)) if first is not None else 0.0
        if first is None or at <= self._trained_until:
            return
        detail = {name: value for name, value in first.detail.items() if name != "key"}
        self._alarm(NOVELTY, detail | {"kept_from": before.version, CAME: at}, [first.kind], index=first.input_index)

    def _look_back(self, view: View) -> None:
        """Ask a champion that was just learnt about what came after its window; an alarm has the counts of then.

        About novelty alone: of a window that has little of the new regime the reference is mostly of the old one, and
        what is compared with it would change however well the champion knows the new one.
        """
        now = self.index, self.inputs
        for one in [p for p in self._newest if p.at > self._trained_until]:
            self.index, self.inputs = one.labels, one.inputs
            for looked in view.look([one.payload]):
                self._bet(looked.novelty, {CAME: one.at})
        self.index, self.inputs = now

    def _go_on(self, champion: ModelRef) -> None:
        """Give what looks at every row the evidence that it had before a restart, if this was its champion."""
        place = self._place()
        answers, kept = place.get("answers", {}), place.get("evidence", {})
        same = answers.get("champion") == champion.version
        self._answers = {name: int(answers[name]) if same else 0 for name in self._answers}
        if kept.get("champion") != champion.version:
            return
        detectors: dict[str, Resumable] = {**self._watch.detectors}
        if self._regimes is not None:
            detectors[RETURN] = self._regimes.detector
        for name, detector in detectors.items():
            try:
                detector.resume(kept.get(name, {}))
            except (ValueError, KeyError) as error:
                log.warning("%s: the watch over %s starts anew: %s", self.spec.name, name, error)

    def _report(self) -> None:
        if self._foretelling is not None and (value := self._foretelling.gauge()):
            self.store.put_gauge(self.spec.name, ACCURACY, value)
        for name, found in ((CHANGE, list(self._watch.changes.values())), (NOVELTY, [self._watch.novelty])):
            shown = [d for d in found if d is not None]
            if shown:
                most = max(shown, key=lambda d: d.evidence - math.log(d.run_length))
                limit = math.log(most.run_length)
                value = {"index": self.index, "log_evidence": max(most.evidence, 0.0), "log_evidence_limit": limit}
                self.store.put_gauge(self.spec.name, name, value)

    def _evidence(self) -> dict[str, Any]:
        detectors, champion = self._watch.detectors, self._champion
        if champion is None:
            return {}
        kept = {name: detector.as_dict() for name, detector in detectors.items()}
        if self._regimes is not None:
            kept[RETURN] = self._regimes.detector.as_dict()
        return {"evidence": {"champion": champion.version, **kept}}

    def _known(self, view: View) -> Known:
        """The newest rows of the champion's snapshots (what the traffic was when it was trained).

        Of the reference as many as the spec says, and holdout rows: the champion is unsure of those as it will be of
        traffic, and has learnt the others by heart. Training rows come in only where the spec asks for a larger
        reference than the holdouts give.

        Where a regime has begun that the champion was learnt for, rows of before are none: against a mixture of two
        regimes the new one, which the champion knows, would be an alarm again. The reference is then as large as that
        regime's holdout; training rows come in only where it could judge nothing. Nor are the p-values of the new
        regime uniform, which those of all regimes calibrated: they are held against the holdout's own.
        """
        known = {d: w for w in self.store.windows(self.spec.name) for d in w.digests}
        trained = [known[d] for d in view.champion.card.snapshots if d in known]
        kept = kept_shares(trained)
        tables = [standing(read(w.uri, w.digest), kept[w.number]).to_pylist() for w in trained]
        chosen = [r for t in tables for r in representatives(self.spec, t)]
        rows = sorted(chosen, key=lambda r: float(r["time"]), reverse=True)
        most = self.spec.monitor.reference
        held = [r for r in rows if r["split"] == "holdout"][: max(most, MOST_KNOWN)]
        began = _began(self.store.alarms(self.spec.name), trained, rows)
        mine = [r for r in held if float(r["time"]) >= began][:most]
        short = max(0, (min(most, LEAST_ROWS) if began else most) - len(mine))
        learnt = [r for r in rows if r["split"] != "holdout" and float(r["time"]) >= began][:short]
        seen = list(_seen(view, held))
        usual = [row.novelty for row in seen[: len(mine)] if row.novelty is not None] if began else []
        return Known(reference=[*seen[: len(mine)], *_seen(view, learnt)], held=seen, usual=usual)

    def _learn(self, record: Record) -> None:
        try:
            truth = usable_truth(self.spec, record)
        except RecordError as error:
            log.debug("%s: a truth is unusable: %s", self.spec.name, error)  # the next snapshot counts and keeps it
            return
        if self._foretelling is not None and isinstance(truth.said, str):
            self._foretelling.learn(truth.input_id, truth.said)

    def _input(self, record: Record) -> Input | None:
        """An input that is to be looked at: traffic of this champion, not seen before, and not too much at once."""
        if self._view is None or record.timestamp <= self._trained_until:
            return None
        try:
            entry = masked_input(self.spec, decode(Input, record.value))
        except RecordError:
            return None  # the labeler sends it to the dead letters
        except FinderError as error:
            if not self._unsearched:
                log.warning("%s: inputs are not looked at while this lasts: %s", self.spec.name, error)
            self._unsearched, self.unsearched = True, self.unsearched + 1
            return None  # the labeler waits for the finder
        self._unsearched = False
        if entry.synthetic is not None:
            return None
        return entry if self._thinning.takes(entry.id, record.timestamp) else None

    def _look_at_inputs(self, payloads: Sequence[bytes]) -> None:
        if self._view is None or not payloads:
            return
        looked = self._view.look(payloads)
        if self._regimes is not None:
            self._regimes.look([one.decoded for one in looked], [one.novelty for one in looked])
        for one in looked:
            self.inputs += 1
            self._look_at_row("inputs", one.columns)
            if self._traffic.add(one.columns):
                columns = columns_of(self._traffic.rows)
                for kind in (DRIFT, DOUBT):
                    self._judge(kind, columns)

    def _note(self, record: Record) -> None:
        """Bet on how novel the champion found an input that it answered, or was asked about beside another student."""
        champion = self._champion
        if self._watch.novelty is None or champion is None:
            return
        try:
            prediction = decode(Prediction, record.value)
        except RecordError as error:
            log.debug("%s: a prediction is unusable: %s", self.spec.name, error)
            return
        answers = [a for a in (prediction.answer, prediction.shadow) if a is not None and a.version == champion.version]
        novelty = next((a.novelty for a in answers), None)
        if novelty is not None and self._answered.takes(prediction.input_id, record.timestamp):
            self._bet(novelty)

    def _bet(self, novelty: float | None, beside: dict[str, float] | None = None) -> None:
        detector = self._watch.novelty
        if detector is None or novelty is None:
            return
        self._then.append(self.index)
        found = detector.observe({NOVELTY: [novelty]})
        if found is not None:
            ago = min(found.row - found.since + 1, len(self._then))
            detail = said(found, detector.run_length) | (beside or {})
            self._alarm(NOVELTY, detail, [found.column], index=self._then[-ago])

    def _take(self, record: Record) -> None:
        self.index += 1
        try:
            label = label_of(self.spec.task, record.value)
        except RecordError as error:
            log.warning("%s: label %d is unusable: %s", self.spec.name, self.index, error)
            return
        self.beside += self._view is not None and label.input.synthetic is None
        if self._view is None or label.labelled_at <= self._trained_until or label.input.synthetic is not None:
            return
        try:
            decoded = self._view.decoded(carried(label.input))
        except RecordError:
            return  # the labeler has sent such inputs to the dead letters; an old one may still be on the topic
        if not self._counts(label):
            if self._regimes is not None:
                self._regimes.label(decoded, label.soft, None)
            return
        seen = self._view.judge(label.input.id, decoded, label.soft)
        if label.soft.task in NAMED:  # of values nobody can say by the answer alone that one is wrong
            self._answers["rows"] += 1
            self._answers["wrong"] += not seen.agrees
        if self._regimes is not None:
            self._regimes.label(decoded, label.soft, seen.answer)
        self._look_at_row("labels", seen.columns)
        if self._labelled.add(seen):
            self._look_at_labels(self._labelled.rows)

    def _counts(self, label: Label) -> bool:
        """Whether the label is of a representative part: what a policy prefers would look like drift."""
        least = least_chance(self.spec.label.policy)
        return representative(least, self.spec.name, label.input.id, label.probability, label.audit)

    def _look_at_row(self, source: Source, columns: Row) -> None:
        if (detector := self._watch.changes.get(source)) is None:
            return
        found = detector.observe(observed(detector, columns))
        if found is not None:
            self._alarm(CHANGE, said(found, detector.run_length), [found.column], source)

    def _judge(self, kind: str, columns: dict[str, list[float | str | None]]) -> None:
        """Take the verdict of a kind on a window, and alarm if it is drift."""
        if (reference := self._watch.references.get(kind)) is None:
            return
        verdict = reference.assess(columns)
        means = {} if kind == DRIFT else _means(columns, reference)
        index = self.index if SOURCES[kind] == "labels" else self.inputs
        self.store.put_gauge(self.spec.name, kind, _gauge(verdict, index) | means)
        looks.add(self.store, self.spec.name, index, {kind: _distances(verdict)})
        if verdict.outcome == "drift":
            self._alarm(kind, verdict.as_dict(), verdict.drifted)

    def _look_at_labels(self, window: Sequence[Seen]) -> None:
        self._judge(ENTROPY, columns_of([row.columns for row in window]))
        if self._foretelling is not None:
            self._foretelling.look(window)
            same = proportion(sum(row.agrees for row in window), len(window))
            value = {"rows": same.n, "share": same.value, "lower": same.lower, "upper": same.upper}
            self.store.put_gauge(self.spec.name, AGREEMENT, value)

    def _alarm(
        self,
        kind: str,
        detail: dict[str, Any],
        drifted: Sequence[str],
        source: Source | None = None,
        index: int | None = None,
    ) -> None:
        """Raise an alarm, dated at the count of labels ``index``; None: as many as there are now."""
        if not self._armed[kind] or self._champion is None:
            return
        if all(self._armed.values()):  # a regime begins: what came before tells nothing of it
            self._answers = dict.fromkeys(self._answers, 0)
        self._armed[kind] = False
        read = {"read_from": source or SOURCES[kind], "inputs": self.inputs, "champion": self._champion.version}
        at = self.index if index is None else index
        self.store.raise_alarm(self.spec.name, kind, at, detail | read)
        log.warning("%s: %s alarm at label %d, input %d: %s", self.spec.name, kind, at, self.inputs, drifted)


def _began(alarms: Sequence[AlarmRow], trained: Sequence[WindowRow], rows: Sequence[dict[str, Any]]) -> float:
    """When the last regime began that the newest of the ``trained`` windows has rows of, Unix seconds; 0: with them.

    That is the first alarm about any champion, if it came before that window was frozen, and as many ``rows`` after it
    as a reference needs: of fewer a champion has not learnt what the alarm told of.
    """
    first: dict[str, float] = {}
    for alarm in alarms:
        if alarm.kind in MONITORED:
            first.setdefault(str(alarm.detail.get("champion")), float(alarm.detail.get(CAME, alarm.at)))
    until = max((w.created_at for w in trained), default=0.0)
    times = [float(r["time"]) for r in rows]
    known = [at for at in first.values() if at <= until and sum(t >= at for t in times) >= LEAST_ROWS]
    return max(known, default=0.0)


def _seen(view: View, rows: Sequence[dict[str, Any]]) -> Iterator[Seen]:
    for row in rows:
        yield view.see(
            row["input_id"], carrying(row["payload"], known_of(row["entity"])), soft_of(row["soft"]), row["truth_label"]
        )


def _means(window: dict[str, Any], reference: Reference) -> dict[str, float]:
    """Mean entropies (nats) of a window and, as ``NAME_reference``, of the reference.

    The champion's is shown beside the teacher's, too.
    """
    found = {}
    for name in ("student_entropy", *reference.columns):
        found[name] = math.fsum(window[name]) / len(window[name])
        if name in reference.columns:
            before: Any = reference.columns[name]
            found[f"{name}_reference"] = math.fsum(before) / len(before)
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
