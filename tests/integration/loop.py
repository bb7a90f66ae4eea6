"""One workload's platform, every part of it in this process and driven by hand."""

import asyncio
import base64
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec

from components.contracts.records import Input, Truth, encode
from components.contracts.settings import Settings
from components.contracts.spec import RolloutPolicy, Serve, Spec, Step, build, load_spec
from components.distill.train import distill
from components.evaluate.evaluate import evaluate
from components.label.labeler import Labeler
from components.ledger.ledger import append
from components.registry.registry import Registry
from components.snapshot.window import freeze
from components.stream.contract import Broker
from components.stream.memory import MemoryBroker
from serving.control.controller import Controller
from serving.gateway.app import Gateway, create_app
from serving.gateway.telemetry import Telemetry
from serving.replica.loaded_versions import LoadedVersions
from tests.stores import migrated, registering
from tests.waiting import wait_for
from tests.workloads.regression import Physicist
from tests.workloads.tickets.tickets import WORDS

WORKLOADS = Path(__file__).parents[1] / "workloads"
POLICY = RolloutPolicy(
    steps=(
        Step(weight=0.0, min_requests=40, min_candidate=30),
        Step(weight=0.05, min_requests=40, min_candidate=1),
        Step(weight=0.25, min_requests=40, min_candidate=8),
    ),
    slow_ms=1_000.0,
    max_extra_disagreement=0.1,
)


class Platform:
    """What workloads share: the broker, the control database, the registry, the artifacts."""

    def __init__(self, home: Path) -> None:
        self.settings = registering(Settings(home=home))
        self.broker: Broker = MemoryBroker()
        self.store = migrated(self.settings.control_url)
        self.registry = Registry(self.settings)


@dataclass(frozen=True)
class Traffic:
    """A workload's inputs: ``make(chance, kind)`` gives a payload (bytes, or JSON) and what a truth says of it.

    Nothing is true of it where that is empty.
    """

    spec: Path
    make: Callable[[random.Random, str], tuple[Any, dict[str, Any]]]


def ticket(chance: random.Random, kind: str) -> tuple[dict[str, str], dict[str, Any]]:
    words = chance.choices(sorted(WORDS[kind]), k=3) + [f"w{chance.randrange(500)}" for _ in range(4)]
    return {"subject": " ".join(words[:2]), "body": " ".join(words[2:])}, {"label": kind}


def reading(chance: random.Random, kind: str) -> tuple[list[float], dict[str, Any]]:
    """Steady weather, from which nobody can learn what a trend means, or a steep rise."""
    trend = {"steady": 0.0, "rise": chance.gauss(6.0, 0.3)}[kind]
    row = [chance.gauss(2.0, 3.0), trend, chance.uniform(0.0, 15.0)]
    return row, {"value": Physicist().label([row])[0].value}


TICKETS = Traffic(WORKLOADS / "tickets" / "tickets.yaml", ticket)
HEAT = Traffic(WORKLOADS / "regression.yaml", reading)


class Loop:
    """One workload on a platform."""

    def __init__(self, platform: Platform, traffic: Traffic, seed: int = 7) -> None:
        spec: Spec = load_spec(traffic.spec)
        self.spec = msgspec.structs.replace(spec, rollout=POLICY, serve=Serve(audit_share=1.0))
        self.name, self.make = spec.name, traffic.make
        self.broker, self.store, self.registry = platform.broker, platform.store, platform.registry
        self.settings = platform.settings
        self.broker.ensure_topics(self.spec.topics)
        self.labeler = Labeler(self.spec, build(self.spec.teacher, self.spec.source), self.broker)
        self.versions = LoadedVersions(self.spec, self.store)
        self.telemetry = Telemetry(self.spec, lambda: self.broker)
        self.gateway = Gateway(self.spec, self.versions, self.telemetry)
        self.controller = Controller(self.spec, self.store, self.registry, self.broker, self.settings.artifacts)
        self.versions.start()
        self.chance = random.Random(seed)
        self.sent = 0
        self.answers: list[dict[str, Any]] = []

    def _next(self, kind: str) -> tuple[str, Any, Truth | None]:
        self.sent += 1
        name, now = f"{self.name}-{self.sent}", time.time()
        payload, known = self.make(self.chance, kind)
        told = {"workload": self.name, "input_id": name, "time": now, "known_at": now, "source": "desk"}
        return name, payload, Truth(**told, **known) if known else None

    def history(self, kinds: Sequence[str], rows: int) -> None:
        """Put inputs with their truths on the topics, and label them."""
        producer = self.broker.producer()
        for _ in range(rows):
            name, payload, truth = self._next(self.chance.choice(kinds))
            data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
            entry = Input(workload=self.name, id=name, key="desk", time=time.time(), payload=data)
            producer.send(self.spec.topic("inputs"), "desk", encode(entry))
            if truth is not None:
                producer.send(self.spec.topic("truth"), name, encode(truth))
        self.label()

    def ask(self, kinds: Sequence[str]) -> list[dict[str, Any]]:
        """Send one request for each kind, then publish telemetry, label, and let the controller tick."""
        made = [self._next(kind) for kind in kinds]
        answers = asyncio.run(self._post([{"id": n, "key": n, **_field(p)} for n, p, _ in made]))
        producer = self.broker.producer()
        while self.telemetry.drain(producer, timeout=0.0):
            pass
        for name, truth in ((n, t) for n, _, t in made if t is not None):
            producer.send(self.spec.topic("truth"), name, encode(truth))
        self.label()
        self.controller.tick()
        self.answers += answers
        return answers

    async def _post(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        transport = httpx.ASGITransport(create_app(self.gateway))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            answers = []
            for item in items:
                response = await client.post("/v1/predict", json={"inputs": [item]})
                assert response.status_code == 200, response.text
                answers += response.json()["predictions"]
            return answers

    def label(self) -> None:
        while self.labeler.lag():
            self.labeler.step(0.05)

    def update(self) -> str:
        """Freeze, distil from the champion, judge, register; returns the version."""
        spec, artifacts, store = self.spec, self.settings.artifacts, self.store
        assert freeze(spec, self.broker, store, artifacts, now=time.time()) is not None
        windows, champion = store.windows(self.name), store.intent(self.name)[1].champion
        variant = spec.student.variants[0]
        made = distill(spec, windows, variant=variant, parent=champion, artifacts=artifacts, seed=0)
        judged = evaluate(spec, made.uri, made.digest, made.float_uri, windows=windows, champion=champion, store=store)
        assert judged.verdict.decision == "promote", judged.verdict.reasons
        verdict = judged.verdict.as_dict()
        model = self.registry.register(spec, made.uri, made.digest, made.card, verdict=verdict, metrics={}, params={})
        append(self.store, spec.name, "loop", "register", {"version": model.version, "digest": model.digest})
        self.registry.set_alias(self.name, "candidate", model.version)
        return model.version

    def order(self, verb: str, reason: str, args: dict[str, Any]) -> bool:
        """Place an order as a person would and let the controller take it; whether it was carried out."""
        key = self.store.order(self.name, verb, "eve", reason, args)
        self.controller.tick()
        return self.store.get_order(key).ok is True

    def alias(self, name: str) -> str | None:
        model = self.registry.get(self.name, name)
        return model.version if model else None

    def first(self, kinds: Sequence[str], rows: int) -> str:
        """A first student from history, serving; its version."""
        self.history(kinds, rows)
        version = self.update()
        self.controller.tick()
        assert self.alias("champion") == version
        wait_for(lambda: self.versions.routing.student(self.versions.routing.intent.champion) is not None)
        return version

    def promote(self, kinds: Sequence[str]) -> str:
        """An update that the canary takes to 100 % on traffic of these kinds; its version."""
        version = self.update()
        # the controller asks the registry for a candidate at most twice a second
        wait_for(lambda: (self.controller.tick(), self.store.active_rollout(self.name))[1] is not None)
        self.until(lambda: self.alias("champion") == version, kinds)
        wait_for(lambda: self.versions.routing.champion.ref.version == version)  # a busy replica may follow later
        return version

    def until(self, condition: Callable[[], bool], kinds: Sequence[str], most: int = 60) -> None:
        for _ in range(most):
            if condition():
                return
            self.ask(self.chance.choices(kinds, k=20))
        raise AssertionError(f"not reached: {self.store.rollouts(self.name)[-1].state}")

    def close(self) -> None:
        self.versions.stop()
        self.labeler.close()


def _field(payload: Any) -> dict[str, Any]:
    return {"payload": base64.b64encode(payload).decode()} if isinstance(payload, bytes) else {"json": payload}
