"""Sets of classes go the whole way: an alarm of drift, an update, the gate, a promotion, and a rollback."""

import json
from pathlib import Path

import pytest

from components.contracts.storage import get_bytes
from components.control.alarm_kinds import DOUBT, DRIFT, ENTROPY, NOVELTY
from components.evaluate.evaluate import read_evidence
from components.evaluate.judge import replay
from components.evaluate.page import quality_page
from components.steps import evidence_of
from pipelines.monitor import Monitor
from tests.integration.loop import WORKLOADS, Loop, Platform, Traffic
from tests.waiting import wait_for
from tests.workloads.modalities import teachers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420), pytest.mark.filterwarnings("ignore")]

PAIRS = Traffic(WORKLOADS / "modalities" / "pairs.yaml", teachers.pair)
OLD = ["zero", "one", "two", "zero+one", "one+two", "zero+two", ""]
NEW = ["three", "four", "three+four", "one+three", "two+four"]


def drain(monitor: Monitor) -> None:
    while monitor.step(0.0):
        pass


def shared(answer: dict, kind: str) -> bool:
    return answer["label"] == json.dumps(sorted(name for name in kind.split("+") if name))


def test_from_a_change_of_traffic_to_a_promotion_and_back(tmp_path: Path) -> None:
    loop = Loop(Platform(tmp_path), PAIRS)
    first = loop.first(OLD, 450)
    monitor = Monitor(loop.spec, loop.store, loop.broker)

    # Traffic as it was raises nothing.
    for _ in range(4):
        loop.ask(loop.chance.choices(OLD, k=20))
    drain(monitor)
    assert loop.store.open_alarms("pairs", first) == []

    # It changes: the champion names none of the new digits, and the monitors tell it.
    stale = [a for _ in range(13) for a in loop.ask(loop.chance.choices(NEW, k=20))]
    assert not any(name in a["label"] for a in stale for name in ("three", "four"))
    drain(monitor)
    assert {a.kind for a in loop.store.open_alarms("pairs", first)} & {DRIFT, DOUBT, ENTROPY, NOVELTY}
    agreed = loop.store.gauges("pairs")["agreement"].value
    assert agreed["rows"] == 60 and agreed["share"] < 0.3

    # An update passes the gate and takes over; it knows the old and the new, in any combination.
    second = loop.promote(OLD + NEW)
    assert loop.alias("champion") == second != first and loop.alias("previous") == first
    loop.chance.seed(1)  # the same inputs in every run, however many it took to come here
    kinds = loop.chance.choices(OLD + NEW, k=60)
    said = loop.ask(kinds)
    assert sum(shared(a, kind) for a, kind in zip(said, kinds, strict=True)) >= 40
    assert all(set(a["soft_label"]) <= set(teachers.DIGITS) for a in said)

    # What the gate saw is there, leads to the same verdict, and has a page.
    windows = loop.store.windows("pairs")
    served = loop.store.intent("pairs")[1].champion
    assert served is not None
    lines = get_bytes(evidence_of(windows[-1], served.digest)).splitlines()
    assert replay(lines).same is True
    measured = {c.measure for c in read_evidence(evidence_of(windows[-1], served.digest)).judgement.criteria}
    assert {"micro_f1", "micro_f1_loss", "accuracy", "loss"} <= measured
    assert b"<h2>Classes</h2>" in quality_page(loop.spec, windows, served.digest)

    # The stale one is forced past the gate; the canary takes it back for its disagreement.
    assert loop.order("start", "the stale one again", {"version": first, "forced": True, "skip_shadow": True})
    loop.until(lambda: loop.store.active_rollout("pairs") is None, NEW)
    rollout = loop.store.rollouts("pairs")[-1].state
    assert rollout["outcome"] == "rolled_back" and "disagreement" in rollout["reason"]
    assert loop.alias("champion") == second

    # A person takes the promotion back.
    assert loop.order("rollback", "three in the morning", {"to": "previous"})
    assert loop.alias("champion") == first
    wait_for(lambda: {a["model_version"] for a in loop.ask(["one"])} == {first})
    loop.close()
