"""The demo's story, told through the same commands, topics and processes that a real workload uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from components.contracts.errors import UnavailableError
from components.contracts.settings import Settings, mask
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes, local_path
from components.control.intent import ModelRef
from components.control.runs import updating
from components.control.store import ControlStore
from components.registry.registry import Registry
from components.stream import open_broker
from components.student.runtime import Student
from infra.demo import bad, report
from infra.demo.sources import open_source, write_history
from infra.demo.traffic import Traffic, wait_for
from infra.stack import PlatformState, down, up, wipe
from infra.workloads.source import Source

FRESH_PER_SECOND = 35.0
"""Fresh inputs a second: what one thread of the teacher keeps up with."""

BUSY_PER_SECOND = 6.0
"""Fresh inputs a second while an update or a rollout is under way."""

BUSY_INPUTS = 60
"""Most fresh inputs during one update and its rollout: the demo compresses hours into minutes, so it holds new inputs
back while the platform works (requests go on), or a slow machine would see whole phases pass during one update."""

TRUTH_DELAY = 30
"""Inputs after which the truth of one becomes known."""

AHEAD = 80
"""Fresh inputs that may wait for their label before the client waits."""

UPDATE_SECONDS = 180.0
ROLLOUT_SECONDS = 120.0


class Demo:
    """One run of the demo on one workload."""

    def __init__(self, settings: Settings, spec: Spec, source: Source, seed: int, progress: Progress) -> None:
        self.settings, self.spec, self.source, self.seed, self.progress = settings, spec, source, seed, progress
        self.store = ControlStore(settings.control_url)
        self.registry = Registry(settings)
        self.broker = open_broker(settings)
        self.task = progress.add_task("starting", total=sum(len(p.items) for p in source.phases))
        self._bootstrap: Future[dict[str, Any]] | None = None
        self._due = 0.0
        self._was_busy = False
        self._sent_busy = 0
        self._labelled_before = 0

    def say(self, text: str) -> None:
        """Print one line of the story."""
        self.progress.console.print(text, highlight=False)

    @contextmanager
    def stage(self, name: str, waits_for: str) -> Iterator[None]:
        """Name a stage and what it waits for while it lasts; print how long it took."""
        self.progress.update(self.task, description=f"{name}: waiting for {waits_for}")
        started = time.monotonic()
        yield
        self.say(f"[bold]{name}[/] done in {time.monotonic() - started:.1f} s")

    def pipeline(self, name: str, reason: str, **parameters: str) -> dict[str, Any]:
        """Run a pipeline by the command that a user would type, and return what it reports.

        Raises:
            UnavailableError: it failed; the message ends with the command's own.
        """
        command = [sys.executable, "-m", "infra.cli", "pipeline", "run", name, "--spec", self.spec.source, "--json"]
        command += ["--reason", reason]
        for key, value in parameters.items():
            command += ["--param", f"{key}={value}"]
        env = {**os.environ, **self.settings.environment()}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UnavailableError(f"pipeline {name}", self.spec.name, (done.stderr or done.stdout)[-2000:])
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def busy(self) -> bool:
        """Whether an update or a rollout is under way."""
        now = time.time()
        return any(updating(r, now) for r in self.store.runs(self.spec.name)) or self.rolling()

    def rolling(self) -> bool:
        """Whether a rollout is under way or a candidate waits for one."""
        waits = self.registry.get(self.spec.name, "candidate") is not None
        return waits or self.store.active_rollout(self.spec.name) is not None

    def begin_bootstrap(self) -> None:
        """Start to distil the first student from history: it needs the stream, but no gateway."""
        history = self.settings.home / "history.jsonl"
        write_history(history, self.spec, self.source.history)
        pool = ThreadPoolExecutor(1, thread_name_prefix="bootstrap")
        self._bootstrap = pool.submit(
            self.pipeline, "bootstrap", "demo: first student from history", history_uri=history.resolve().as_uri()
        )
        pool.shutdown(wait=False)

    def bootstrap(self) -> ModelRef:
        """Wait for the first student, and until it serves."""
        if self._bootstrap is None:
            raise UnavailableError("bootstrap", self.spec.name, "the platform came up without a stream")
        with self.stage("bootstrap", f"the teacher to label {len(self.source.history)} inputs, and two students"):
            self._bootstrap.result()
            try:
                wait_for(lambda: self.champion() is not None, 20, "the first champion to serve")
            except TimeoutError as error:
                judged = self.store.gauges(self.spec.name).get("evaluation")
                why = "; ".join(judged.value["reasons"]) if judged else "no student was evaluated"
                raise UnavailableError("first champion", self.spec.name, f"the gate said: {why}") from error
        champion = self.champion()
        if champion is None:
            raise UnavailableError("champion", self.spec.name, "the bootstrap ended without one")
        return champion

    def champion(self) -> ModelRef | None:
        """The champion that all live replicas acknowledge."""
        revision, intent = self.store.intent(self.spec.name)
        acknowledged = self.store.acknowledgements(self.spec.name)
        served = len(acknowledged) >= 1 and all(a.revision >= revision for a in acknowledged)
        return intent.champion if served else None

    def stream(self, traffic: Traffic) -> None:
        """Send every phase's inputs; the platform's own trigger, gate and controller do the rest."""
        sent = 0
        for phase in self.source.phases:
            self.say(f"[bold]{phase.name}[/]: {len(phase.items)} inputs begin at index {sent}")
            for item in phase.items:
                self._pace(traffic, sent, phase.name)
                traffic.send(phase.name, item)
                sent += 1
                self.progress.update(self.task, completed=sent)
            self._settle(traffic, phase.name)

    def _pace(self, traffic: Traffic, sent: int, phase: str) -> None:
        rolling = self.rolling() if sent % 5 == 0 else traffic.repeating
        busy = rolling or (self.busy() if sent % 5 == 0 else self._was_busy)
        self._was_busy, self._sent_busy = busy, self._sent_busy + 1 if busy else 0
        traffic.repeat(rolling)
        if self._sent_busy > BUSY_INPUTS:
            self._settle(traffic, phase)
        what = "a rollout" if rolling else "an update" if busy else "answers"
        self.progress.update(self.task, description=f"stream {phase}: waiting for {what}")
        now = time.monotonic()
        time.sleep(max(0.0, self._due - now))
        self._due = max(self._due, now) + 1.0 / (BUSY_PER_SECOND if busy else FRESH_PER_SECOND)
        wait_for(lambda: sent - self.labelled() < AHEAD, 120, "the teacher to keep up", poll=0.05)

    def _settle(self, traffic: Traffic, phase: str) -> None:
        """Let an update that is under way end, so that it is not mixed with the next phase."""
        self.progress.update(self.task, description=f"stream {phase}: waiting for updates and rollouts to end")
        wait_for(
            lambda: not self.busy(),
            UPDATE_SECONDS + ROLLOUT_SECONDS,
            "the update to end",
            also=lambda: traffic.repeat(self.rolling()),
        )
        traffic.repeat(False)

    def begin_streaming(self) -> None:
        """Count labels from here: those of the history are not the stream's."""
        self._labelled_before = self.labelled()

    def labelled(self) -> int:
        """Streamed inputs that the labeler has dealt with."""
        gauges = self.store.gauges(self.spec.name).items()
        labelers = [gauge.value for name, gauge in gauges if name.startswith("labeler")]
        dealt_with = sum(int(v["labelled"] + v["duplicates"] + v["dead"]) for v in labelers)
        return dealt_with - self._labelled_before

    def take_back_a_bad_student(self, traffic: Traffic, champion: ModelRef) -> None:
        """Force a student with permuted classes into the canary and wait until the guard has taken it back."""
        candidate = bad.register(self.spec, self.settings, self.registry, champion)
        with self.stage("bad student", f"the canary guard to catch v{candidate.version}"):
            order = self.store.order(
                self.spec.name,
                "start",
                self.settings.actor,
                bad.REASON,
                {"version": candidate.version, "forced": True, "skip_shadow": True},
            )
            started = self.store.await_order(order)
            if not started.ok:
                raise UnavailableError("rollout", self.spec.name, started.outcome or "no controller took the order")
            traffic.repeat(True)
            wait_for(lambda: self.store.active_rollout(self.spec.name) is None, ROLLOUT_SECONDS, "the rollback")
            traffic.repeat(False)

    def roll_back_by_pipeline(self) -> None:
        """Make the version before the champion again, by the pipeline that a person on call starts."""
        with self.stage("rollback pipeline", "the controller to make 'previous' champion"):
            self.pipeline("rollback", "demo: a person on call takes the last promotion back", to="previous")


class Watch(threading.Thread):
    """Prints what the platform does by itself: alarms, pipeline runs, and rollouts' steps."""

    def __init__(self, store: ControlStore, workload: str, say: Callable[[str], None]) -> None:
        super().__init__(name="watch", daemon=True)
        self.store, self.workload, self.say = store, workload, say
        self.ended = threading.Event()
        self._seen: dict[str, str] = {}

    def run(self) -> None:
        """Look every half second until ended."""
        while not self.ended.wait(0.5):
            self.look()

    def look(self) -> None:
        """Print what is new since the last look."""
        for alarm in self.store.alarms(self.workload):
            self._once(f"alarm-{alarm.id}", f"  [yellow]alarm[/] {alarm.kind} at input {alarm.input_index}")
        for run in self.store.runs(self.workload):
            took = f" in {run.finished_at - run.started_at:.1f} s" if run.finished_at else ""
            self._once(run.id, f"  pipeline {run.pipeline} {run.status}{took}: {run.reason}")
        for rollout in self.store.rollouts(self.workload):
            state = rollout.state
            line = f"  rollout v{state['candidate']['version']} {state['phase']} step {state['step']}"
            self._once(rollout.id, f"{line} {state.get('reason') or ''}".rstrip())

    def _once(self, key: str, line: str) -> None:
        if self._seen.get(key) != line:
            self._seen[key] = line
            self.say(line)


def run(settings: Settings, *, workload: str, seed: int, report_path: Path, console: Console) -> dict[str, Any]:
    """Run the demo and write its report; the platform is down again when this returns, however it ends."""
    home = settings.home / "demo" / workload
    settings = settings.model_copy(update={"home": home.resolve()})
    started = time.monotonic()
    wipe(settings)
    home.mkdir(parents=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{workload}: waiting for its inputs to be read", total=None)
        spec, source = open_source(workload, settings, seed)
        console.print(f"{sum(len(p.items) for p in source.phases)} real inputs in {len(source.phases)} phases")
        progress.update(task, description="platform: waiting for its processes")
        demo = Demo(settings, spec, source, seed, progress)
        try:
            state = up(
                settings,
                [spec.source],
                lambda s: progress.update(task, description=f"waiting for {s}"),
                bound=True,
                on_stream=demo.begin_bootstrap,
            )
            console.print(f"[bold]platform[/] up in {time.monotonic() - started:.1f} s")
            progress.remove_task(task)
            done = _play(demo, state)
        finally:
            console.print("stopping the platform")
            down(settings)
    done["wall_seconds"] = time.monotonic() - started
    done["artifacts"]["report"] = str(report_path.resolve())
    report_path.write_text(json.dumps(done, indent=2) + "\n")
    report.render(done, console)
    _say_where_to_look(settings, done, console)
    return done


def _play(demo: Demo, state: PlatformState) -> dict[str, Any]:
    watch = Watch(demo.store, demo.spec.name, demo.say)
    watch.start()
    first = demo.bootstrap()
    demo.begin_streaming()
    before = report.teacher_labels(demo.spec, demo.broker)
    traffic = Traffic(demo.spec, state.gateway, demo.broker.producer(), truth_delay=TRUTH_DELAY, seed=demo.seed)
    try:
        demo.stream(traffic)
        champion = demo.champion() or first
        demo.take_back_a_bad_student(traffic, champion)
        demo.roll_back_by_pipeline()
    finally:
        traffic.close()
        watch.ended.set()
        watch.join()
    watch.look()
    demo.progress.update(demo.task, description="report: waiting for the sums")
    return _report(demo, traffic, first, champion, before)


def _report(
    demo: Demo, traffic: Traffic, first: ModelRef, champion: ModelRef, before: dict[str, str]
) -> dict[str, Any]:
    offset = len(demo.source.history)
    changes = [(offset + i, traffic.answers[i].at) for i in report.changes(traffic.answers)]
    static = Student.load(get_bytes(first.uri, first.digest))
    artifact = get_bytes(champion.uri, champion.digest)
    rows = demo.store.rollouts(demo.spec.name)
    rollouts = [_rollout(r.state) for r in rows]
    own = [r for r in rows if not r.state["forced"]]
    happened = {
        "alarm": [a.at for a in demo.store.alarms(demo.spec.name)],
        "candidate": [r.created_at for r in own],
        "promotion": [float(r.state["ended_at"]) for r in own if r.state["phase"] == "promoted"],
    }
    labels = report.teacher_labels(demo.spec, demo.broker)
    home = demo.settings.home
    payloads = [a.item.payload for a in traffic.answers]
    reports = sorted(str(p) for p in local_path(demo.settings.artifacts).rglob("*.html"))
    return {
        "workload": demo.spec.name,
        "seed": demo.seed,
        "wall_seconds": 0.0,
        "history": {"inputs": offset, "teacher_calls": len(before)},
        "phases": report.phases(traffic.answers, static, _served(demo, traffic), labels, before),
        "recovery": report.recovery(traffic.answers, happened),
        "cost": report.cost(demo.spec, Student.load(artifact), payloads, len(artifact)),
        "alarms": report.alarms(demo.store, demo.spec.name, changes),
        "rollouts": rollouts,
        "rollback_seconds": next((r["rollback_seconds"] for r in rollouts if r["forced"]), None),
        "requests": traffic.requests,
        "failed_requests": traffic.failed,
        "failures": traffic.errors[:10],
        "artifacts": {
            "control_database": str(home / "control.db"),
            "mlflow": mask(demo.settings.mlflow_uri),
            "evidently_reports": reports,
            "logs": str(home / "logs"),
        },
    }


def _served(demo: Demo, traffic: Traffic) -> dict[str, Student]:
    """The students that answered, by version."""
    found = {}
    for version in sorted({a.version for a in traffic.answers if a.version is not None}):
        ref = demo.registry.get(demo.spec.name, version)
        if ref is not None:
            found[version] = Student.load(get_bytes(ref.uri, ref.digest))
    return found


def _rollout(state: dict[str, Any]) -> dict[str, Any]:
    requests = state["requests"]
    return {
        "candidate": state["candidate"]["version"],
        "forced": state["forced"],
        "steps": state["steps"],
        "outcome": state["phase"],
        "reason": state["reason"],
        "requests": requests,
        "candidate_requests": state["candidate_requests"],
        "candidate_request_share": state["candidate_requests"] / requests if requests else 0.0,
        "rollback_seconds": state["rollback_seconds"],
    }


def _say_where_to_look(settings: Settings, done: dict[str, Any], console: Console) -> None:
    home = os.path.relpath(settings.home)
    console.print("look further:", highlight=False)
    for command in (
        f"cohobate --home {home} status",
        f"cohobate --home {home} ledger verify",
        f"cohobate --home {home} gate ui",
        f"mlflow ui --host 127.0.0.1 --backend-store-uri {mask(settings.mlflow_uri)}",
    ):
        console.print(f"  .venv/bin/{command}", highlight=False, soft_wrap=True)
    for path in done["artifacts"]["evidently_reports"][-2:]:
        console.print(f"  report {path}", highlight=False, soft_wrap=True)
    console.print(f"  {done['artifacts']['report']}", highlight=False, soft_wrap=True)
