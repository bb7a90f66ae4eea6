"""Names in texts go the whole way: a trained transformer labels, the student drifts, learns, and is taken back."""

import random
from pathlib import Path
from typing import Any

import pytest

from components.evaluate.evaluate import GAUGE
from components.evaluate.page import quality_page
from components.export.export import export, version_to_export
from components.ledger.ledger import entries, verify
from infra.demo import bad
from infra.documents.cards import data_sheet, model_card
from infra.documents.facts import gather
from pipelines.monitor import Monitor
from tests.integration.loop import WORKLOADS, Loop, Platform, Traffic
from tests.spans import message
from tests.token_teacher import save

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420), pytest.mark.filterwarnings("ignore")]


def sent(chance: random.Random, regime: str) -> tuple[bytes, dict[str, Any]]:
    text, spans = message(regime, chance)
    return text.encode(), {"spans": spans}


def spans_of(answer: dict[str, Any]) -> set[tuple[int, int, str]]:
    return {(s["start"], s["end"], s["label"]) for s in answer["spans"]}


def test_from_drift_to_a_promotion_and_a_rollback(tmp_path: Path) -> None:
    spec = tmp_path / "names.yaml"
    folder = save(tmp_path / "teacher")
    spec.write_text((WORKLOADS / "names.yaml").read_text().replace("FOLDER", str(folder)))
    loop = Loop(Platform(tmp_path), Traffic(spec, sent))
    first = loop.first(["mail"], 250)
    gauge = loop.store.gauges("names")[GAUGE].value
    assert gauge["span_f1"] > 0.9 and gauge["span_f1_lower"] > 0.8 and gauge["teacher_span_f1"] > 0.9

    # The traffic changes: the champion finds none of the new kind of spans, and the monitors say so.
    monitor = Monitor(loop.spec, loop.store, loop.broker)
    for _ in range(10):
        said = loop.ask(["parcel"] * 20)
        assert not any(kind == "NUM" for a in said for _, _, kind in spans_of(a))
    while monitor.step(0.05):
        pass
    raised = {a.kind for a in loop.store.open_alarms("names", first)}
    assert raised & {"drift", "change", "novelty"}, raised

    # An update passes the gate, the canary takes it to 100 %, and it knows the old regime and the new.
    second = loop.promote(["mail", "parcel"])
    assert loop.alias("champion") == second != first and loop.alias("previous") == first
    loop.chance.seed(1)  # the same inputs in every run, however many it took to come here
    again = random.Random(1)
    said = loop.ask(["parcel", "mail"] * 20)
    wanted = [sent(again, kind) for kind in ["parcel", "mail"] * 20]
    true = [{(s.start, s.end, s.label) for s in known["spans"]} for _, known in wanted]
    assert sum(spans_of(a) == spans for a, spans in zip(said, true, strict=True)) >= 36
    assert {kind for a in said for _, _, kind in spans_of(a)} == {"PER", "ORG", "LOC", "NUM"}

    # What is told of it names spans, and a bundle of it says the very same ones.
    windows, model = loop.store.windows("names"), loop.registry.get("names", second)
    page = quality_page(loop.spec, windows, model.digest).decode()
    assert "<h2>Spans</h2>" in page and "NUM" in page and "labels on the new holdout" not in page
    facts = gather(loop.settings, loop.registry, loop.store, "names", second, str(spec))
    assert facts.labels.keys() == {"PER", "ORG", "LOC", "NUM"} and "span_f1" in facts.measured
    told = str(model_card(facts)) + str(data_sheet(facts))
    assert "spans of 4 kinds" in told and "tagging has no classes of inputs" in told
    version, payloads = version_to_export(loop.spec, loop.settings, loop.registry, loop.store, "champion")
    done = export(version, "onnx", tmp_path / "bundle", payloads, limit=loop.spec.limits.max_parity_gap)
    assert done.parity.rows == len(payloads) > 9 and done.parity.gap == 0.0

    # A student with permuted tags is forced past the gate; the canary's guard takes it back.
    champion = loop.store.intent("names")[1].champion
    assert champion is not None
    worse = bad.register(loop.spec, loop.settings, loop.registry, champion)
    assert loop.order("start", "a test", {"version": worse.version, "forced": True, "skip_shadow": True})
    loop.until(lambda: loop.store.active_rollout("names") is None, ["mail", "parcel"])
    rollout = loop.store.rollouts("names")[-1].state
    assert rollout["outcome"] == "rolled_back" and "disagreement" in rollout["reason"]
    assert loop.alias("champion") == second

    # A person takes the last promotion back.
    assert loop.order("rollback", "three in the morning", {"to": "previous"})
    assert loop.alias("champion") == first
    assert verify(loop.store) == len(list(entries(loop.store)))
    loop.close()
