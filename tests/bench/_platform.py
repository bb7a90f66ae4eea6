"""One workload's platform in simulated time, every part of it in this process.

Gateway, teacher service, labeler, selector and budget, monitor with its regimes, trigger, snapshot, distillation, gate,
controller with its rollouts, and the watch over what the champion promised are the platform's own, over a stream in
memory and a control database of its own. Left out are what does not decide: Ray, Kafka, Kubeflow, and MLflow, in whose
place stands the tests' registry in memory. The watch over the teacher is off: answers are recorded and cannot change.

Time is simulated: :data:`PER_SECOND` inputs are a second, and an update's student is registered
:data:`UPDATE_SECONDS` after the decision, whatever it took here.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
import torch

from components.contracts import spec as sections
from components.contracts.records import Input, SoftLabel, encode
from components.contracts.settings import Settings
from components.contracts.spec import Factory, Policy, Spec, Step
from components.control.intent import ModelRef
from components.control.runs import beat, begin
from components.control.store import ControlStore
from components.distill.train import distill
from components.evaluate.evaluate import evaluate
from components.label.asking import Company
from components.label.labeler import Labeler
from components.ledger.ledger import append
from components.query.budget import Budget
from components.query.scores import StudentScores
from components.query.selector import Selector
from components.snapshot.students import take_again, without_student
from components.snapshot.window import freeze
from components.stream.memory import MemoryBroker
from components.student.runtime import Student
from components.teachers.contract import reference
from pipelines.monitor import POLLED, Monitor
from pipelines.trigger import Trigger
from serving.control.controller import Controller
from serving.gateway.answering import Gateway
from serving.gateway.reply import Reply
from serving.gateway.telemetry import Telemetry
from serving.gateway.wire import Item
from serving.replica.loaded_versions import LoadedVersions
from serving.teacher import Answering, Question
from tests.bench._streams import Stream
from tests.clock import Clock
from tests.serving.conftest import MemoryRegistry
from tests.waiting import wait_for

PER_SECOND = 10
"""Inputs in a second of simulated time, which are answered as one request."""

UPDATE_SECONDS = 5.0
"""From the decision to update to the registration: what the platform takes (``BENCH=warm``)."""

MAX_DISAGREEMENT = 0.1
"""What is promised of answers that are not deferred."""

MANY = 100
"""Classes beyond which a student is wide, as its spec's documentation says."""

HOUR = 3_600
BEGAN = 1_700_000_000 // HOUR * HOUR

torch.set_num_threads(1)


@dataclass(frozen=True, kw_only=True)
class Given:
    """An answer as a user got it; ``asked``: it is the teacher's, else a student's (``label`` None: there is none)."""

    label: str | None
    asked: bool


PACED = os.environ.get("COHOBATE_BENCH_PACED") == "1"
"""Whether deferrals are paced; without it the first of them get what there is."""

NEIGHBOURS = int(n) if (n := os.environ.get("COHOBATE_BENCH_NEIGHBOURS")) else None
"""How many of the teacher's answers are kept for inputs that the budget leaves to the student; None: as by default."""


def spec_of(stream: Stream, calls: int, seed: int) -> Spec:
    """The workload of a stream with so many calls of the teacher."""
    shape = {"dim": 64, "hidden": 128} if len(stream.pool.classes) > MANY else {"dim": 32, "hidden": 64}
    return Spec(
        name="stream",
        teacher=Factory(factory="tests.bench._streams:Recorded"),
        teacher_digest=reference(stream.teacher),
        payload=stream.pool.payload,
        features=stream.pool.features,
        student=sections.Student(variants=(sections.Variant(name="base", **shape),)),
        limits=sections.Limits(min_rows=20, confidence=0.8, min_agreement=0.4, max_parity_gap=0.05),
        monitor=sections.Monitor(window=100, reference=60, min_effect=0.15, resamples=200, run_length=10_000),
        trigger=sections.Trigger(min_labels=200, alarm_labels=60, cooldown_seconds=5),
        rollout=sections.RolloutPolicy(
            steps=(
                Step(weight=0.0, min_requests=30, min_candidate=20),
                Step(weight=0.25, min_requests=40, min_candidate=8),
            ),
            slow_ms=10_000.0,
            lease_seconds=30.0,
            patience_seconds=600.0,
        ),
        serve=sections.Serve(
            replicas=1, max_disagreement=MAX_DISAGREEMENT, novelty=0.05, request_seconds=600.0,
            deferral=sections.Deferral(neighbours=NEIGHBOURS),
        ),
        label=sections.Label(
            linger_seconds=0.0,
            policy=Policy(kind="novelty", share=0.1),
            budget=sections.Budget(per_hour=float(calls), pace_deferred=PACED),
            probe=sections.Probe(size=0),
        ),
        seed=seed,
    )  # fmt: skip


class Platform:
    """A stream's platform, from its history on; while it is entered it answers, :meth:`answer`.

    ``first``: the student that the history gave; ``decided``: at which input an update was decided on, why, and what
    the gate said; ``calls``: of the teacher in the hour that ends with the stream.
    """

    def __init__(self, stream: Stream, calls: int, seed: int, folder: str) -> None:
        self.stream, self.spec = stream, spec_of(stream, calls, seed)
        self.clock = Clock(float(BEGAN - len(stream.history) - 10))
        self.settings = Settings(home=Path(folder))
        self.store = ControlStore(f"sqlite:///{folder}/control.db", clock=self.clock)
        self.store.migrate()
        self.broker, self.registry = MemoryBroker(clock=self.clock), MemoryRegistry()
        self.broker.ensure_topics(self.spec.topics)
        self.decided: list[str] = []
        self.calls, self._sent = 0, 0
        self._due: list[tuple[float, str, ModelRef | None]] = []
        self._open = ExitStack()
        self._history()

    def __enter__(self) -> Self:
        """Let the first student serve, and begin an hour that ends with the stream."""
        spec, store, broker = self.spec, self.store, self.broker
        _, ref = self._update()
        if ref is None:
            raise ValueError("the gate lets no first student through")
        self.first = ref
        self._register(ref)
        self.clock.now = BEGAN + HOUR - (len(self.stream.rows) + 1) / PER_SECOND - 1.0
        self.versions = LoadedVersions(spec, store, clock=self.clock)
        self.versions.start()
        self._open.callback(self.versions.stop)
        self.controller = Controller(
            spec, store, self.registry, broker, self.settings.artifacts, clock=self.clock, trial=lambda *_: None
        )
        self._open.callback(self.controller.close)
        self._tick()
        teacher = self.stream.teacher
        self._answering = Answering(spec, self.settings, store, broker, clock=self.clock, teacher=teacher)
        self.telemetry = Telemetry(spec, lambda: broker)
        self.gateway = Gateway(spec, self.versions, self.telemetry, {"teacher": self._asked}, clock=self.clock)
        budget = Budget(spec.label.budget, spec.name, store, clock=self.clock)
        company = Company(selector=Selector(spec, budget, self.clock), scores=StudentScores(spec, store, 0.0))
        self.labeler = Labeler(spec, teacher, broker, clock=self.clock, company=company)
        self._open.callback(self.labeler.close)
        self.monitor = Monitor(spec, store, broker)
        self.trigger = Trigger(spec, store, broker, launch=self._launch, clock=self.clock)
        self._runner = self._open.enter_context(asyncio.Runner())
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self.store.close()

    @property
    def student(self) -> Student:
        """The champion."""
        champion = self.versions.routing.champion
        if champion is None:
            raise ValueError("nothing serves")
        return champion.student

    def _history(self) -> None:
        """Label the history, all of it."""
        label = msgspec.structs.replace(self.spec.label, policy=Policy(), budget=sections.Budget())
        labeler = Labeler(
            msgspec.structs.replace(self.spec, label=label), self.stream.teacher, self.broker, clock=self.clock
        )
        producer = self.broker.producer()
        for row in self.stream.history.tolist():
            self.clock.now += 1.0
            entry = Input(
                workload=self.spec.name, id=f"h{row}", key=f"h{row}", time=self.clock.now,
                payload=self.stream.pool.payloads[row],
            )  # fmt: skip
            producer.send(self.spec.topic("inputs"), entry.key, encode(entry))
        while labeler.lag():
            labeler.step(0.0)
        labeler.close()

    def answer(self, rows: Sequence[int]) -> list[Given]:
        """A second of traffic, and all that follows of it."""
        self.clock.now += 1.0
        self._register_due()
        items = []
        for row in rows:
            self._sent += 1
            payload = base64.b64encode(self.stream.pool.payloads[row]).decode()
            items.append(Item(id=f"i{self._sent}-{row}", key=f"i{self._sent}", payload=payload))
        answers = self._runner.run(self.gateway.predict(items, allow_defer=True))
        producer = self.broker.producer()
        while self.telemetry.drain(producer, timeout=0.0):
            pass
        while self.labeler.lag():
            self.labeler.step(0.0)
        while self.monitor.step(0.0) >= POLLED:
            pass
        self._tick()
        self.trigger.look()
        self.calls = int(
            Budget(self.spec.label.budget, self.spec.name, self.store, clock=self.clock).spending()["hour"].calls
        )
        return [Given(label=a.label, asked=a.answered_by == "teacher") for a in answers]

    async def _asked(self, entry: Input, student: SoftLabel, urgency: int, need: float, version: str) -> Reply:
        future = asyncio.get_running_loop().create_future()
        decoded = entry.payload.decode() if self.spec.payload.decoder == "text" else entry.payload
        question = Question((urgency, 1.0 - need, 0), entry.id, entry.payload, decoded, future, student.label, version)
        return self._answering([question])[0]

    def _tick(self) -> None:
        """Let the controller look, and the replica follow what it decided."""
        self.controller.tick()
        intent = self.store.intent(self.spec.name)[1]
        wanted = [ref for ref in (intent.champion, intent.candidate) if ref is not None]

        def follows() -> bool:
            routing = self.versions.routing
            return routing.intent == intent and all(routing.student(ref) is not None for ref in wanted)

        if not follows():
            wait_for(follows)

    def _launch(self, reason: str) -> int:
        """An update: its student is there :data:`UPDATE_SECONDS` later."""
        run = begin(self.store, self.spec.name, "continual", reason, "trigger")
        said, ref = self._update()
        self.decided.append(f"{self._sent}: {reason}: {said}")
        self._due.append((self.clock.now + UPDATE_SECONDS, run, ref))
        return 0

    def _register_due(self) -> None:
        for at, run, ref in list(self._due):
            if self.clock.now < at:
                beat(self.store, run)
                continue
            self._due.remove((at, run, ref))
            if ref is not None:
                self._register(ref)
            self.store.finish_run(run, "succeeded", {})

    def _register(self, ref: ModelRef) -> None:
        """As the step does, with its entry in the ledger: by that a window is known to have had its student."""
        self.registry.add(ref)
        append(self.store, self.spec.name, "bench", "register", {"version": ref.version, "digest": ref.digest})
        self.registry.set_alias(self.spec.name, "candidate", ref.version)

    def _update(self) -> tuple[str, ModelRef | None]:
        """What a run's steps do: freeze, distil, judge; the gate's decision, and the student that it lets through."""
        spec, store, artifacts = self.spec, self.store, self.settings.artifacts
        left = without_student(spec, store)
        window = left if left is not None and take_again(spec, store, left) else None
        if window is None and freeze(spec, self.broker, store, artifacts, now=self.clock.now) is None and left is None:
            return "there are no new labels", None
        windows, intent = store.windows(spec.name), store.intent(spec.name)[1]
        done = distill(
            spec, windows, variant=spec.student.variants[0], parent=intent.champion, artifacts=artifacts,
            seed=spec.seed,
        )  # fmt: skip
        judged = evaluate(
            spec, done.uri, done.digest, done.float_uri, windows=windows, champion=intent.champion,
            previous=intent.previous, store=store,
        )  # fmt: skip
        verdict = judged.verdict
        ref = ModelRef(
            version=str(len(self.registry.infos) + len(self._due) + 1), uri=done.uri, digest=done.digest,
            snapshot=windows[-1].digest, teacher=done.card.teacher, defer_below=judged.measurements.get("defer_below"),
        )  # fmt: skip
        if verdict.decision != "promote":
            return f"{verdict.decision}: {'; '.join(verdict.reasons)}", None
        return "promote", ref


def quiet() -> None:
    """Only what went wrong is logged."""
    for name in ("components", "pipelines", "serving", "drift", "feast", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
