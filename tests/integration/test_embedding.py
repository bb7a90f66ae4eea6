"""An embedding goes the whole way with a real encoder: drift, alarm, update, gate, promotion, and two rollbacks."""

import random
from pathlib import Path

import pytest

from components.contracts.records import vector_of
from components.contracts.spec import build
from components.contracts.vectors import distance
from pipelines.monitor import Monitor
from tests.integration.loop import WORKLOADS, Loop, Platform, Traffic
from tests.workloads.summaries.texts import texts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420), pytest.mark.filterwarnings("ignore")]


def summary(chance: random.Random, kind: str) -> tuple[bytes, dict[str, str]]:
    """What a function of this subject says of itself; nothing is true of its vector."""
    return chance.choice(texts(kind)).encode(), {}


SUMMARIES = Traffic(WORKLOADS / "summaries" / "summaries.yaml", summary)


def distances(loop: Loop, kind: str) -> list[float]:
    """How far the answers to twenty inputs are from the teacher's, the same inputs whenever it is asked."""
    chance = random.Random(1)
    asked = [summary(chance, kind)[0] for _ in range(20)]
    loop.make, made = (lambda *_: (asked[loop.sent % 20], {})), loop.make
    loop.sent += -loop.sent % 20 - 1  # the next is the first
    answers = loop.ask([kind] * 20)
    loop.make = made
    teacher = build(loop.spec.teacher, loop.spec.source).label([asked[i].decode() for i in range(20)])
    return [distance(a["soft_label"]["vector"], t.vector) for a, t in zip(answers, teacher, strict=True)]


def test_from_drift_to_a_promotion_and_back(tmp_path: Path) -> None:
    loop = Loop(Platform(tmp_path), SUMMARIES)
    first = loop.first(["network"], 300)
    monitor = Monitor(loop.spec, loop.store, loop.broker)
    before = sum(distances(loop, "network")) / 20

    # The traffic changes: answers move away from the teacher's, and the monitor alarms without any truth.
    stale = sum(distances(loop, "numbers")) / 20
    assert stale > before + 0.1
    for _ in range(8):
        loop.ask(["numbers"] * 20)
        while monitor.step(0.0):
            pass
    assert {a.kind for a in loop.store.open_alarms("summaries", first)}

    # An update passes the gate, the canary takes it to 100 %, and its vectors are nearer.
    second = loop.promote(["network", "numbers"])
    assert loop.alias("champion") == second != first and loop.alias("previous") == first
    now = sum(distances(loop, "numbers")) / 20
    assert now < stale - 0.1
    rollout = loop.store.rollouts("summaries")[-1].state
    assert rollout["outcome"] == "promoted" and rollout["candidate_requests"] > 0

    # The stale one is forced past the gate: its vectors are farther from the teacher's, and the guard takes it back.
    assert loop.order("start", "the stale one again", {"version": first, "forced": True, "skip_shadow": True})
    loop.until(lambda: loop.store.active_rollout("summaries") is None, ["numbers"])
    rollout = loop.store.rollouts("summaries")[-1].state
    assert rollout["outcome"] == "rolled_back" and "disagreement" in rollout["reason"]
    assert loop.alias("champion") == second

    # A person takes the promotion back.
    assert loop.order("rollback", "three in the morning", {"to": "previous"})
    assert loop.alias("champion") == first

    # What is served is a unit vector and its expected distance, and the label is its text.
    answer = loop.answers[-1]
    vector = answer["soft_label"]["vector"]
    assert len(vector) == 384 and sum(v * v for v in vector) == pytest.approx(1.0, abs=1e-5)
    assert answer["confidence"] == pytest.approx(1.0 / (1.0 + answer["soft_label"]["scale"]))
    assert vector_of(answer["label"]) == pytest.approx(vector, abs=1e-3)
    monitor._consumer.close()
    loop.close()
