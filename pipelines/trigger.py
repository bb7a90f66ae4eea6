"""When an update pays: a pure decision, and the loop that starts the ``continual`` pipeline by it."""

from __future__ import annotations

import functools
import logging
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from components.contracts.errors import ArtifactError, CohobateError, RecordError
from components.contracts.records import Label, decode
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec
from components.contracts.spec import Trigger as Policy
from components.control import forgettings
from components.control.alarm_kinds import MONITORED
from components.control.intent import ModelRef
from components.control.learning import evaluated
from components.control.runs import RETENTION, UPDATES, alive, ended_at, updating
from components.control.store import ControlStore
from components.control.tables import AlarmRow, RunRow, WindowRow
from components.control.workloads import newest
from components.query.lacking import TRIGGER
from components.query.least import least_labels
from components.snapshot.reading import places_after
from components.snapshot.window import known_keys
from components.stream.contract import Broker, Consumer, Record, read_to_end
from drift.learning_curve import Point
from pipelines.forked import Forked, GoneError, Warm, fork
from pipelines.payoff import (
    Evidence,
    Payoff,
    assess,
    certifying_labels,
    cost_of,
    learnt_of,
    points_of,
)

if TYPE_CHECKING:
    from components.forget.retention import Sweeper
    from pipelines.updates import KubeflowUpdates

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How often it is asked whether an update pays, or has ended."""

SOON = 0.5
"""An update is near with this share of the labels that start one."""

COUNT_SECONDS = 0.02
"""How long labels that may have come are waited for: a broker that has some answers sooner."""

REPORT_SECONDS = 10.0
"""How old the gauge may be while its text stays the same."""

STDOUT = 1
"""Where a run's output goes: where this process's does."""

GONE = 1
"""In place of the exit code of a run whose fork server ended, and it with that."""

LAST_RUNS = 5
"""Updates whose median says how long the next one takes."""

ACTOR = "trigger"

TOLD = ("now", "after", "gain", "cost", "wait", "waiting")
"""The numbers of a decision that its gauge has, each as ``payoff_NAME``."""

Run = Forked | subprocess.Popen[bytes]

Launch = Callable[[str], int]
"""Starts one run for a reason, waits for it, and returns its exit code."""


@dataclass(frozen=True, kw_only=True)
class TriggerState:
    """What the decision is made from.

    ``labels``: on the stream after the last window; ``alarms``: kinds raised about the present champion;
    ``since_alarm``: labels after the first of them; ``running``: a pipeline run is under way; ``rolling``: a
    candidate is being rolled out; ``last_end``: Unix seconds at which the last run ended, None before the first;
    ``at_work``: a run that makes a student is under way, if only at its reports; ``forgotten``: orders to forget what
    the champion had learnt from, for which no update was started yet. ``evidence``: of whether an update
    pays, where the spec asks for that (:mod:`pipelines.payoff`); ``least``: the lower bound of labels; ``certain``:
    labels that certify a limit of deferral, and ``promise``: the share that may disagree of what is not deferred.
    """

    labels: int
    alarms: tuple[str, ...]
    since_alarm: int
    running: bool
    rolling: bool
    last_end: float | None
    has_champion: bool
    at_work: bool = False
    forgotten: tuple[str, ...] = ()
    least: int = 0
    certain: int = 0
    promise: float = 1.0
    evidence: Evidence | None = None

    @property
    def fresh(self) -> int:
        """New labels of the present regime."""
        return min(self.since_alarm, self.labels) if self.alarms else self.labels


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether to start an update, and why (or why not); ``payoff``: the numbers, where it was asked whether it pays."""

    start: bool
    reason: str
    payoff: Payoff | None = None


def decide(state: TriggerState, now: float, policy: Policy) -> Decision:
    """Start when enough new labels came, or fewer together with an alarm; one at a time, after the cool-down.

    With ``policy.payoff`` that is the latest moment; it starts before where it pays, with ``state.least`` new labels of
    the present regime at least. Where the champion keeps what is promised of its answers, ``state.certain`` are waited
    for: with fewer its successor would come up without a limit of deferral. Even after an alarm it does not start with
    fewer than ``state.least`` in all: a student that cannot be judged serves nobody, and the labels after it would
    begin to be counted anew.

    An update needs a champion to start from, and there is one candidate at a time: while one is rolled out, labels
    wait for the next window.
    """
    if not state.has_champion:
        return Decision(start=False, reason="there is no champion yet: run the bootstrap pipeline")
    if state.running:
        return Decision(start=False, reason="a run is under way")
    if state.rolling:
        return Decision(start=False, reason="a rollout is under way")
    if state.last_end is not None and now - state.last_end < policy.cooldown_seconds:
        left = policy.cooldown_seconds - (now - state.last_end)
        return Decision(start=False, reason=f"cooling down for {left:.0f} s more")
    if state.forgotten:
        named = ", ".join(state.forgotten)
        return Decision(start=True, reason=f"the champion had learnt from what was forgotten since (order {named})")
    if state.labels >= policy.min_labels:
        return Decision(start=True, reason=f"{state.labels} new labels (at least {policy.min_labels})")
    kinds = " and ".join(dict.fromkeys(state.alarms))
    if state.alarms and state.fresh >= policy.alarm_labels and state.labels >= state.least:
        return Decision(
            start=True, reason=f"{kinds} alarm and {state.since_alarm} labels since (at least {policy.alarm_labels})"
        )
    if policy.payoff:
        return _paying(state, kinds)
    if state.alarms and state.fresh >= policy.alarm_labels:
        least = f"at least {state.least} before its student can be judged"
        return Decision(start=False, reason=f"{kinds} alarm and {state.labels} new labels ({least})")
    return Decision(start=False, reason=f"{state.labels} new labels")


def _paying(state: TriggerState, kinds: str) -> Decision:
    """Whether to start before the upper bound."""
    came = f"{kinds} alarm and {state.since_alarm} labels since" if state.alarms else f"{state.labels} new labels"
    if state.evidence is None or state.fresh < state.least:
        return Decision(start=False, reason=f"{came} (at least {state.least} before an update can pay)")
    found = assess(state.evidence)
    if found.start and state.labels < state.certain and found.now <= state.promise:
        why = f"{came} (at least {state.certain} certify a limit of deferral, and the champion keeps what is promised)"
        return Decision(start=False, reason=why, payoff=found)
    return Decision(start=found.start, reason=f"{came}: {found.reason}", payoff=found)


def near(state: TriggerState, policy: Policy) -> bool:
    """Whether an update is to be expected soon, or one is under way: that its processes should be warm."""
    if state.at_work:
        return True
    most = state.least if policy.payoff else policy.min_labels
    return state.has_champion and (bool(state.alarms) or state.labels >= SOON * most)


def _regimes(alarms: Sequence[AlarmRow], windows: Sequence[WindowRow]) -> list[int]:
    """The counts of the windows' labels at which regimes began: of each champion the first alarm.

    They are told by time: what an alarm counts has labels that no window took, too.
    """
    first: dict[str, float] = {}
    for alarm in alarms:
        if alarm.kind in MONITORED:
            first.setdefault(str(alarm.detail.get("champion")), alarm.at)
    return [sum(w.frozen_of_traffic for w in windows if w.created_at <= at) for at in first.values()]


class Trigger:
    """Counts labels, reads alarms, and launches updates for one workload."""

    def __init__(
        self,
        spec: Spec,
        store: ControlStore,
        broker: Broker,
        *,
        launch: Launch | None = None,
        warm: Warm | None = None,
        remote: KubeflowUpdates | None = None,
        sweeper: Sweeper | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.spec, self.store, self._clock = spec, store, clock or store.clock
        self._launch = launch or (functools.partial(self._submit, remote) if remote is not None else self._run_pipeline)
        self._remote, self._sweeper = remote, sweeper
        self._broker = broker
        self._counting: tuple[str, Consumer] | None = None
        self._counted = 0
        self._reported: tuple[str, float] = "", 0.0
        self._frozen: set[str] = set()
        self._warm = warm
        self._reporting: list[Run] = []
        self._stop = threading.Event()

    def state(self) -> TriggerState:
        """What is known now."""
        from pipelines.regimes import returned

        name, now = self.spec.name, self._clock()
        with self.store.together():
            source = newest(self.store, self.spec)
            runs, intent = self.store.runs(name), self.store.intent(name)[1]
            windows, rolling = self.store.windows(name), self.store.active_rollout(name) is not None
            champion = intent.champion.version if intent.champion else None
            digest = intent.champion.digest if intent.champion else None
            alarms = self.store.open_alarms(name, champion)
            forgotten = tuple(row.id for row in forgettings.waiting(self.store, name, digest))
        if source != self.spec.source:
            self.spec = load_spec(source)  # its limits and prices say what pays; none of them starts a worker anew
        if alarms and intent.champion is not None:
            returned(self.store, name, intent.champion)  # else alarms of long ago would start an update
            alarms = self.store.open_alarms(name, champion)
        ends = [at for r in runs if r.pipeline != RETENTION and (at := ended_at(r)) is not None]
        state = TriggerState(
            labels=self._count(windows),
            alarms=tuple(a.kind for a in alarms),
            since_alarm=self._labels_seen() - alarms[0].input_index if alarms else 0,
            least=least_labels(self.spec),
            certain=certifying_labels(self.spec) if self.spec.trigger.payoff else 0,
            promise=1.0 if self.spec.serve.max_disagreement is None else self.spec.serve.max_disagreement,
            running=any(updating(r, now) for r in runs),
            rolling=intent.candidate is not None or rolling,
            last_end=max(ends, default=None),
            has_champion=champion is not None,
            forgotten=forgotten,
            at_work=any(alive(r, now) and r.pipeline in UPDATES for r in runs),
        )
        if not self.spec.trigger.payoff or intent.champion is None or state.fresh < state.least:
            return state
        return replace(state, evidence=self._evidence(state, intent.champion, runs, now))

    def _evidence(self, state: TriggerState, champion: ModelRef, runs: Sequence[RunRow], now: float) -> Evidence:
        """What is known of whether an update pays.

        Where an alarm is open its regime is the present one; else that of the last alarm that was followed by an
        update. The champion's answers to labels since then, or since it serves, are a point too.
        """
        name, policy = self.spec.name, self.spec.trigger
        windows, gauges = self.store.windows(name), self.store.gauges(name)
        alarms = _regimes(self.store.alarms(name), windows)
        *past, points = points_of(evaluated({n: g.value for n, g in gauges.items()}), windows, alarms)
        learnt = learnt_of(champion.snapshot, windows, alarms)
        frozen = learnt_of(windows[-1].digest, windows, alarms) if windows else learnt
        monitor = gauges["monitor"].value if "monitor" in gauges else {}
        answers = monitor.get("answers", {})
        if answers.get("champion") == champion.version:
            points.append(Point(labels=learnt, wrong=answers["wrong"], rows=answers["rows"]))
        ratio = max(1.0, monitor.get("inputs", 0) / max(1, monitor.get("beside", 0)))
        took = [at - r.started_at for r in runs if r.pipeline == "continual" and (at := ended_at(r)) is not None]
        seconds = statistics.median(took[-LAST_RUNS:]) if took else 0.0
        begun = [r.started_at for r in runs if r.pipeline in UPDATES]
        since = max([windows[-1].created_at if windows else now, *begun[-1:]])
        rate = state.labels / max(now - since, POLL_SECONDS)
        most = policy.alarm_labels if state.alarms else policy.min_labels
        return Evidence(
            learnt=learnt,
            fresh=state.fresh + max(0, frozen - learnt),  # windows that no champion came of are learnt from, too
            left=max(0, most - state.fresh),
            points=tuple(points),
            past=tuple(tuple(p) for p in past if p),
            ratio=ratio,
            horizon=policy.min_labels,
            making=seconds * rate * ratio,
            cost=cost_of(self.spec, seconds),
        )

    def _labels_seen(self) -> int:
        """Labels that the monitors have looked at, in whose count alarms are dated."""
        gauge = self.store.gauges(self.spec.name).get("monitor")
        return int(gauge.value["index"]) if gauge else 0

    def new_labels(self) -> int:
        """Labels on the stream that the next window would freeze.

        They are read and counted: offsets count the marks of transactions too. Where the broker began anew, what it
        has is read from the beginning, as a snapshot does, and a label that a window holds already (a history that was
        labelled again, say) is not new. The first time all that are there are counted; after that what has come, which
        asks the broker less, and may be counted a look later.
        """
        return self._count(self.store.windows(self.spec.name))

    def _count(self, windows: Sequence[WindowRow]) -> int:
        since = windows[-1].digest if windows else ""
        if self._counting is None or self._counting[0] != since:
            self._end_counting()
            self._counting = since, self._behind(windows)
            self._counted = sum(self._new(record) for record in read_to_end(self._counting[1]))
        while records := self._counting[1].poll(timeout=COUNT_SECONDS):
            self._counted += sum(self._new(record) for record in records)
        return self._counted

    def _behind(self, windows: Sequence[WindowRow]) -> Consumer:
        topic, manifest = self.spec.topic("labels"), windows[-1].manifest if windows else {}
        self._broker.ensure_topics([topic], self.spec.partitions)
        start, anew = places_after(self._broker, topic, manifest.get("anchors", {}))
        self._frozen = self._frozen_keys(windows) if anew and windows else set()
        return self._broker.consumer([topic], start=start, partitions=list(start))

    def _frozen_keys(self, windows: Sequence[WindowRow]) -> set[str]:
        try:
            return known_keys(windows)
        except ArtifactError as error:
            log.warning("%s: all labels count as new: %s", self.spec.name, error)
            return set()

    def _new(self, record: Record) -> bool:
        """Whether no window holds this label yet (a tombstone is none; what is unreadable a snapshot refuses)."""
        if record.value is None or not self._frozen:
            return record.value is not None
        try:
            return decode(Label, record.value).key not in self._frozen
        except RecordError:
            return True

    def _end_counting(self) -> None:
        if self._counting is not None:
            self._counting[1].close()
        self._counting, self._counted = None, 0

    def look(self) -> Decision:
        """Decide once, and run the update if it pays; else delete what is too old, if it is time."""
        if self._remote is not None:
            self._tend(self._remote)
        state = self.state()
        decision = decide(state, self._clock(), self.spec.trigger)
        waits = state.has_champion and not (decision.start or state.running or state.rolling)
        self._report(decision.reason, decision.payoff, state.labels if waits else None)
        if self._warm is not None:
            self._warm.tend(wanted=decision.start or near(state, self.spec.trigger))
        if decision.start:
            self._keep(state, decision)
            log.info("%s: starting an update: %s", self.spec.name, decision.reason)
            code = self._launch(decision.reason)
            what = "the update ended with" if self._remote is None else "Kubeflow was given the update, with"
            log.log(logging.WARNING if code else logging.INFO, "%s: %s %d", self.spec.name, what, code)
        elif self._sweeper is not None:
            self._sweeper.tend(self.spec)
        return decision

    def _keep(self, state: TriggerState, decision: Decision) -> None:
        """Write into the ledger why an update starts that was found to pay, so that it can be decided anew."""
        if decision.payoff is None:
            return
        from components.ledger.ledger import append

        numbers = {"evidence": msgspec.to_builtins(state.evidence), "payoff": msgspec.to_builtins(decision.payoff)}
        append(self.store, self.spec.name, ACTOR, "decide update", {"reason": decision.reason, **numbers})

    def _report(self, reason: str, payoff: Payoff | None = None, labels: int | None = None) -> None:
        """Say why an update starts or does not; ``labels``: new ones, where one waits for more of them."""
        now = self._clock()
        if reason != self._reported[0] or not 0 <= now - self._reported[1] < REPORT_SECONDS:
            numbers = {f"payoff_{n}": v for n, v in msgspec.to_builtins(payoff or {}).items() if n in TOLD}
            counts = {} if labels is None else {"labels": labels, "index": self._labels_seen()}
            self.store.put_gauge(self.spec.name, TRIGGER, {"last": reason, **counts, **numbers})
            self._reported = reason, now

    def run(self, stop: threading.Event) -> None:
        """Look every second until ``stop`` is set; an update that is under way then is ended."""
        self._stop = stop
        while not stop.is_set():
            self.look()
            self._reporting = [run for run in self._reporting if _ended(run) is None]
            stop.wait(POLL_SECONDS)
        for run in self._reporting:
            run.terminate()
        for run in self._reporting:
            _ended(run, wait=True)
        self._end_counting()

    def _submit(self, remote: KubeflowUpdates, reason: str) -> int:
        """Have Kubeflow run an update, which is not waited for: while it is under way none starts."""
        try:
            remote.start(newest(self.store, self.spec), reason)
        except CohobateError as error:
            log.error("%s: %s", self.spec.name, error)
            return 1
        return 0

    def _tend(self, remote: KubeflowUpdates) -> None:
        try:
            remote.tend()
        except CohobateError as error:
            log.error("%s: %s", self.spec.name, error)

    def _run_pipeline(self, reason: str) -> int:
        """Run an update, in a process that is forked where there is one to fork it from, until its student is made.

        Its reports are left to it: they are for people, and the next update need not wait for them.
        """
        known = {run.id for run in self.store.runs(self.spec.name)}
        run = self._start(["continual", newest(self.store, self.spec), reason])
        while (code := _ended(run)) is None:
            if self._warm is not None:
                self._warm.tend(wanted=True)
            self._report(reason)
            mine = [r for r in self.store.runs(self.spec.name) if r.id not in known and r.pipeline in UPDATES]
            if any("reporting_at" in r.detail for r in mine):
                self._reporting.append(run)
                return 0
            if self._stop.wait(POLL_SECONDS):
                run.terminate()
                return _ended(run, wait=True) or 0
        return code

    def _start(self, argv: Sequence[str]) -> Run:
        environment = {**os.environ, **Settings().environment()}
        if self._warm is not None:
            try:
                return fork(self._warm.home, "run", argv, environment, STDOUT)
            except GoneError as error:
                log.warning("%s: the update begins in a process of its own: %s", self.spec.name, error)
        return subprocess.Popen([sys.executable, "-m", "pipelines.run", *argv], env=environment)


def _ended(run: Run, *, wait: bool = False) -> int | None:
    """With what a run has ended: None while it goes on, unless it is waited for."""
    try:
        return run.wait() if wait else run.poll()
    except GoneError:
        return GONE
