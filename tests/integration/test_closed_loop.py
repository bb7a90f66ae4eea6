"""The whole loop in one process: stream, label, train, gate, canary, promotion, and two rollbacks."""

import asyncio
import random
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from components.contracts.records import Truth, encode
from components.contracts.settings import Settings
from components.contracts.spec import RolloutPolicy, Serve, Step, build, load_spec
from components.contracts.storage import get_bytes
from components.control.store import ControlStore
from components.distill.train import distill
from components.evaluate.evaluate import evaluate
from components.label.labeler import Labeler
from components.ledger.ledger import entries, verify
from components.registry.registry import Registry
from components.snapshot.window import freeze
from components.stream.memory import MemoryBroker
from infra.demo import bad
from serving.controller import Controller
from serving.gateway import Gateway, create_app
from serving.slots import Slots
from serving.telemetry import Telemetry
from tests.workloads.tickets.tickets import WORDS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420), pytest.mark.filterwarnings("ignore")]

SPEC = Path(__file__).parents[1] / "workloads" / "tickets" / "tickets.yaml"
POLICY = RolloutPolicy(
    steps=(
        Step(weight=0.0, min_requests=40, min_candidate=30),
        Step(weight=0.05, min_requests=40, min_candidate=1),
        Step(weight=0.25, min_requests=40, min_candidate=8),
    ),
    slow_ms=1_000.0,
    max_extra_disagreement=0.1,
)


class Loop:
    """One workload's platform, driven by hand."""

    def __init__(self, folder: Path) -> None:
        spec = load_spec(SPEC)
        self.spec = msgspec.structs.replace(spec, rollout=POLICY, serve=Serve(audit_share=1.0))
        self.settings = Settings(home=folder)
        self.broker = MemoryBroker()
        self.broker.ensure_topics(self.spec.topics)
        self.store = ControlStore(self.settings.control_url)
        self.store.migrate()
        self.registry = Registry(self.settings)
        self.labeler = Labeler(self.spec, build(self.spec.teacher, self.spec.source), self.broker)
        self.slots = Slots(self.spec, self.store)
        self.telemetry = Telemetry(self.spec, lambda: self.broker)
        self.gateway = Gateway(self.spec, self.slots, self.telemetry)
        self.controller = Controller(self.spec, self.store, self.registry, self.broker, folder / "rollouts")
        self.slots.start()
        self.chance = random.Random(7)
        self.sent = 0

    def payload(self, kind: str) -> dict[str, str]:
        words = self.chance.choices(sorted(WORDS[kind]), k=3) + [f"w{self.chance.randrange(500)}" for _ in range(4)]
        return {"subject": " ".join(words[:2]), "body": " ".join(words[2:])}

    def ask(self, kinds: list[str]) -> list[dict]:
        """Send one request for each kind, then publish telemetry, label, and let the controller tick."""
        app = create_app(self.gateway)
        items = []
        for kind in kinds:
            self.sent += 1
            items.append({"id": f"t{self.sent}", "key": f"k{self.sent}", "json": self.payload(kind)})
        answers = asyncio.run(self._post(app, items))
        producer = self.broker.producer()
        while self.telemetry.drain(producer, timeout=0.0):
            pass
        for item, kind in zip(items, kinds, strict=True):
            truth = Truth(
                workload="tickets",
                input_id=item["id"],
                time=time.time(),
                known_at=time.time(),
                source="desk",
                label=kind,
            )
            producer.send(self.spec.topic("truth"), item["id"], encode(truth))
        self.label()
        self.controller.tick()
        return answers

    async def _post(self, app, items: list[dict]) -> list[dict]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
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
        assert freeze(self.spec, self.broker, self.store, self.settings.artifacts, now=time.time()) is not None
        windows = self.store.windows("tickets")
        champion = self.store.intent("tickets")[1].champion
        made = distill(
            self.spec,
            windows,
            variant=self.spec.student.variants[0],
            parent=champion,
            artifacts=self.settings.artifacts,
            seed=0,
        )
        judged = evaluate(
            self.spec,
            made.uri,
            made.digest,
            made.float_uri,
            windows=windows,
            champion=champion,
            store=self.store,
        )
        assert judged.verdict.decision == "promote", judged.verdict.reasons
        model = self.registry.register(
            self.spec, made.uri, made.digest, made.card, verdict=judged.verdict.as_dict(), metrics={}, params={}
        )
        self.registry.set_alias("tickets", "candidate", model.version)
        return model.version

    def alias(self, name: str) -> str | None:
        model = self.registry.get("tickets", name)
        return model.version if model else None

    def until(self, condition, kinds: list[str], most: int = 60) -> None:
        for _ in range(most):
            if condition():
                return
            self.ask(self.chance.choices(kinds, k=20))
        raise AssertionError(f"not reached: {self.store.rollouts('tickets')[-1].state}")


def first_window(loop: Loop, kinds: list[str], rows: int) -> None:
    from components.contracts.records import Input

    producer = loop.broker.producer()
    for _ in range(rows):
        loop.sent += 1
        kind, now = loop.chance.choice(kinds), time.time()
        payload = msgspec.json.encode(loop.payload(kind))
        entry = Input(workload="tickets", id=f"t{loop.sent}", key="desk", time=now, payload=payload)
        producer.send(loop.spec.topic("inputs"), "desk", encode(entry))
        truth = Truth(workload="tickets", input_id=entry.id, time=now, known_at=now, source="desk", label=kind)
        producer.send(loop.spec.topic("truth"), entry.id, encode(truth))
    loop.label()


def wait_for(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_a_student_is_distilled_updated_promoted_and_taken_back(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    old, new = ["billing", "login"], ["shipping", "returns"]

    # A first student from history becomes champion.
    first_window(loop, old, 200)
    first = loop.update()
    loop.controller.tick()
    assert loop.alias("champion") == first
    wait_for(lambda: loop.slots.routing.student(loop.slots.routing.intent.champion) is not None)

    # The traffic changes: the champion knows none of the new classes.
    stale = [a["label"] in new for _ in range(13) for a in loop.ask(loop.chance.choices(new, k=20))]
    assert not any(stale)

    # An update passes the gate, the canary takes it to 100 %.
    second = loop.update()
    assert second != first
    wait_ticks(loop)
    loop.until(lambda: loop.alias("champion") == second, old + new)
    assert loop.alias("previous") == first and loop.alias("candidate") is None
    rollout = loop.store.rollouts("tickets")[-1].state
    assert rollout["outcome"] == "promoted" and rollout["steps"][0]["name"] == "shadow"
    fresh = [(a["label"], a["model_version"]) for a in loop.ask(["shipping"] * 20)]
    assert sum(label == "shipping" for label, _ in fresh) >= 18 and {v for _, v in fresh} == {second}

    # A student with permuted classes is forced past the gate; the canary's guard takes it back.
    champion = loop.store.intent("tickets")[1].champion
    assert champion is not None
    worse = bad.register(loop.spec, loop.settings, loop.registry, champion)
    refused = loop.store.order("tickets", "start", "eve", "without force", {"version": worse.version})
    loop.controller.tick()
    assert loop.store.get_order(refused).ok is False
    args = {"version": worse.version, "forced": True, "skip_shadow": True}
    forced = loop.store.order("tickets", "start", "eve", "a test", args)
    loop.controller.tick()
    assert loop.store.get_order(forced).ok is True
    loop.until(lambda: loop.store.active_rollout("tickets") is None, old + new)
    rollout = loop.store.rollouts("tickets")[-1].state
    assert rollout["outcome"] == "rolled_back" and "disagreement" in rollout["reason"]
    assert 0 < rollout["candidate_requests"] < 0.2 * rollout["requests"]
    assert loop.alias("champion") == second
    assert loop.store.intent("tickets")[1].candidate is None

    # A person on call takes the last promotion back.
    order = loop.store.order("tickets", "rollback", "eve", "three in the morning", {"to": "previous"})
    loop.controller.tick()
    assert loop.store.get_order(order).ok is True
    assert loop.alias("champion") == first and loop.alias("previous") == second
    wait_for(lambda: {a["model_version"] for a in loop.ask(["login"])} == {first})

    # All of it is in the ledger, and what serves is what was registered.
    assert verify(loop.store) == len(list(entries(loop.store)))
    actions = [e.action for e in entries(loop.store, "tickets")]
    assert "first champion" in actions and "rollout promote" in actions and "rollback" in actions
    served = loop.store.intent("tickets")[1].champion
    assert served is not None and get_bytes(served.uri, served.digest)
    loop.slots.stop()


def wait_ticks(loop: Loop) -> None:
    """The controller asks the registry for a candidate at most twice a second."""
    wait_for(lambda: (loop.controller.tick(), loop.store.active_rollout("tickets"))[1] is not None)
