import json
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from kfp import dsl

from components import steps
from components.contracts.errors import ConfigError, NotFoundError, OrderError
from components.contracts.settings import Settings
from components.contracts.spec import Factory, Payload, load_spec
from components.contracts.storage import digest_of, put_bytes
from components.control import forgettings
from components.control.intent import Intent, ModelRef
from components.control.store import ControlStore
from components.control.tables import WindowRow
from components.distill import step as distilling
from components.distill.component import distill
from components.evaluate import step as judging
from components.evaluate.component import choose, evaluate, report
from components.kubeflow import read_candidate, write_candidate
from components.ledger.ledger import entries
from components.registry import step as registering
from components.registry.component import promote, register, rollback
from components.registry.registry import Registry
from components.snapshot import step as freezing
from components.snapshot.component import snapshot
from components.steps import Candidate
from components.student.card import StudentCard
from tests import stores
from tests.stores import migrated
from tests.students import bag

pytestmark = pytest.mark.filterwarnings("ignore")

SPEC = """
name: letters
teacher: {factory: "t:T"}
features: {factory: "components.student.bytes:ByteNgrams"}
student: {variants: [{name: small}, {name: wide}]}
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COHOBATE_BROKER_PORT", "9")  # nothing listens there
    return Settings()


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "letters.yaml"
    path.write_text(SPEC)
    return str(path)


@pytest.fixture
def store(settings):
    store = migrated(settings.control_url)
    yield store
    store.close()


@pytest.fixture
def artifact(tmp_path):
    def make(kind, name, candidate=None):
        made = kind(name=name, uri=str(tmp_path / name))
        if candidate is not None:
            write_candidate(made, candidate)
        return made

    return make


@pytest.fixture
def candidate(settings):
    def make(decision="promote", *, agreement=0.9, variant="small", measurements=None, **more):
        data = f"{decision} {agreement} {variant}".encode()
        uri = f"{settings.artifacts}/letters/students/{digest_of(data)}/model.onnx"
        put_bytes(uri, data)
        card = StudentCard(
            workload="letters", task="classification", space="s@1", classes=("a", "b"), features=Factory(factory="f:F"),
            payload=Payload(), **bag(16, 4, 8), variant=variant, snapshots=("a" * 64,), teacher="t@1",
            parent=None, code="1",
        )  # fmt: skip
        return Candidate(
            uri=uri, digest=digest_of(data), float_uri=uri, card=card, parity_gap=0.0, metrics={"loss": 0.5},
            history=(1.0, 0.5), decision=decision, verdict={"decision": decision, "reasons": [f"it is {decision}"]},
            measurements={"agreement": agreement} if measurements is None else measurements, **more,
        )  # fmt: skip

    return make


# Nothing new: every step passes that on and touches nothing.


def test_nothing_new_goes_through_every_step_without_a_platform(spec, settings, store, artifact, monkeypatch):
    monkeypatch.setattr(freezing, "take_snapshot", lambda *_: (0, steps.NOTHING))
    dataset = artifact(dsl.Dataset, "dataset")
    assert snapshot.python_func(spec, "champion", dataset) == "nothing"
    assert dataset.metadata == {"rows": 0, "digest": "nothing"}
    student, metrics = artifact(dsl.Model, "student"), artifact(dsl.Metrics, "metrics")
    distill.python_func(spec, "", "champion", "nothing", student, metrics)
    judged, html, quality = artifact(dsl.Model, "judged"), artifact(dsl.HTML, "html"), artifact(dsl.HTML, "quality")
    confusion = artifact(dsl.ClassificationMetrics, "confusion")
    assert evaluate.python_func(spec, student, judged, metrics, confusion) == "nothing"
    report.python_func(spec, judged, html, quality)
    assert all("no new labels" in Path(page.path).read_text() for page in (html, quality))
    assert register.python_func(spec, judged) == "nothing"
    assert metrics.metadata == confusion.metadata == {}
    assert judged.metadata == {"decision": "nothing"}
    assert not (settings.home / "mlflow.db").exists()


def test_a_new_window_is_shown_with_its_rows(spec, artifact, monkeypatch):
    asked = []
    monkeypatch.setattr(freezing, "take_snapshot", lambda *given: asked.append(given) or (12, "abc"))
    dataset = artifact(dsl.Dataset, "dataset")
    assert snapshot.python_func(spec, "champion", dataset) == "abc"
    assert snapshot.python_func(spec, "fresh", dataset) == "abc"
    assert asked == [(spec, False), (spec, True)]
    assert dataset.metadata == {"rows": 12, "digest": "abc"}
    with open(dataset.path) as file:
        assert file.read() == "abc"


# Evaluation


def test_the_evaluation_fills_what_the_ui_draws(spec, artifact, candidate, monkeypatch):
    done = candidate(
        "hold",
        measurements={"agreement": 0.9, "rows": 40.0, "teacher_accuracy": None, "loss": float("nan")},
        confusion={"labels": ["a", "b"], "matrix": [[3, 1], [0, 4]]},
    )
    monkeypatch.setattr(judging, "judge", lambda _, given: done if given.decision == "promote" else None)
    student, judged = artifact(dsl.Model, "student", candidate()), artifact(dsl.Model, "judged")
    metrics, confusion = artifact(dsl.Metrics, "metrics"), artifact(dsl.ClassificationMetrics, "confusion")
    assert evaluate.python_func(spec, student, judged, metrics, confusion) == "hold"
    assert metrics.metadata == {"agreement": 0.9, "rows": 40.0}
    drawn = confusion.metadata["confusionMatrix"]
    assert [a["displayName"] for a in drawn["annotationSpecs"]] == ["a", "b"]
    assert [r["row"] for r in drawn["rows"]] == [[3, 1], [0, 4]]
    assert judged.metadata["reasons"] == ["it is hold"]
    assert judged.metadata["decision"] == "hold"
    assert json.dumps(judged.metadata)


@pytest.mark.parametrize(("page", "shown"), [(b"<p>drift</p>", "<p>drift</p>"), (b"", "no older window")])
def test_the_report_is_shown_where_there_is_something_to_compare(spec, artifact, candidate, monkeypatch, page, shown):
    monkeypatch.setattr(judging, "report", lambda *_: page)
    monkeypatch.setattr(judging, "quality_page", lambda *_: b"<p>promote</p>")
    html, quality = artifact(dsl.HTML, "html"), artifact(dsl.HTML, "quality")
    report.python_func(spec, artifact(dsl.Model, "judged", candidate()), html, quality)
    assert shown in Path(html.path).read_text() and Path(quality.path).read_text() == "<p>promote</p>"


# Choosing


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        (("promote", 0.8), ("promote", 0.9), "wide"),
        (("promote", 0.8), ("reject", 0.99), "small"),
        (("hold", 0.8), ("promote", 0.1), "wide"),
        (("reject", 0.8), ("hold", 0.7), "small"),
        (("promote", None), ("promote", 0.1), "wide"),
    ],
)
def test_the_better_of_two_that_may_be_promoted_is_chosen(artifact, candidate, first, second, chosen):
    one = artifact(dsl.Model, "one", candidate(first[0], agreement=first[1], variant="small"))
    two = artifact(dsl.Model, "two", candidate(second[0], agreement=second[1], variant="wide"))
    out = artifact(dsl.Model, "out")
    decision = choose.python_func(one, two, out)
    best = read_candidate(out.path)
    assert best.card.variant == chosen
    assert best.decision == decision


def test_of_two_regressions_the_one_with_less_error_is_chosen(artifact, candidate):
    one = artifact(dsl.Model, "one", candidate(measurements={"rmse": 3.0}, variant="small"))
    two = artifact(dsl.Model, "two", candidate(measurements={"rmse": 2.0}, variant="wide"))
    out = artifact(dsl.Model, "out")
    choose.python_func(one, two, out)
    assert read_candidate(out.path).card.variant == "wide"


# Registering


@pytest.mark.parametrize("decision", ["hold", "reject"])
def test_a_student_that_the_gate_does_not_promote_is_not_registered(
    spec, settings, store, artifact, candidate, decision
):
    stores.registering(settings)
    assert register.python_func(spec, artifact(dsl.Model, "judged", candidate(decision))) == decision
    assert Registry(settings).versions("letters") == []
    with pytest.raises(OrderError, match=f"the gate says {decision}: it is {decision}"):
        registering.register(spec, candidate(decision))
    assert entries(store) == []


def test_a_promoted_student_becomes_the_candidate(spec, settings, store, artifact, candidate):
    stores.registering(settings)
    assert register.python_func(spec, artifact(dsl.Model, "judged", candidate())) == "1"
    version = Registry(settings).get("letters", "candidate")
    assert version.version == "1"
    assert [(e.action, e.detail["forced"]) for e in entries(store)] == [("register", False)]


def test_a_forced_student_is_marked_and_waits_for_an_order(spec, settings, store, artifact, candidate):
    stores.registering(settings)
    assert register.python_func(spec, artifact(dsl.Model, "judged", candidate("reject")), force=True) == "1"
    registry = Registry(settings)
    assert registry.get("letters", "candidate") is None
    assert registry.versions("letters")[0].verdict["forced"] is True
    assert registry.versions("letters")[0].verdict["decision"] == "reject"
    assert entries(store)[0].detail["forced"] is True


# Orders


def test_orders_carry_their_arguments_and_the_run_s_key(spec, store, monkeypatch):
    placed = []

    def answer(self, order_id, timeout):
        placed.append((self.get_order(order_id).verb, order_id, self.get_order(order_id).args))
        return SimpleNamespace(id=order_id, done_at=1.0, ok=True, outcome="done")

    monkeypatch.setattr(ControlStore, "await_order", answer)
    assert promote.python_func(spec, "7", "it is good", "", "run-1") == "done"
    assert promote.python_func(spec, "8", "forced", "mine", "run-2", force=True) == "done"
    assert rollback.python_func(spec, "previous", "it is bad", "", "run-3") == "done"
    assert placed == [
        ("start", "run-1", {"version": "7", "forced": False}),
        ("start", "mine", {"version": "8", "forced": True}),
        ("rollback", "run-3", {"to": "previous"}),
    ]


def test_an_order_that_nobody_takes_says_that_it_stays(spec, store, monkeypatch):
    monkeypatch.setattr(registering, "ORDER_SECONDS", 0.05)
    with pytest.raises(OrderError, match="no controller took it in 0 s; it stays open"):
        registering.order(spec, "rollback", "bad", "k1", {"to": "previous"})
    assert [o.id for o in store.open_orders("letters")] == ["k1"]


@pytest.mark.parametrize(("reason", "key"), [("", "k"), ("  ", "k"), ("why", ""), ("why", "{{$.pipeline_job_uuid}}")])
def test_an_order_needs_a_reason_and_a_key_of_its_own(spec, store, reason, key):
    with pytest.raises(ConfigError):
        registering.order(spec, "rollback", reason, key, {})
    assert store.open_orders("letters") == []


# Windows


def test_a_student_learns_from_the_windows_up_to_its_own(spec, store):
    for number in (1, 2, 3):
        row = WindowRow(
            digest=f"d{number}", workload="letters", number=number, uri="", rows=1, created_at=0.0, manifest={}
        )
        store.add_window(row)
    workload = load_spec(spec)
    assert [w.digest for w in steps.windows_until(store, workload, "d2")] == ["d1", "d2"]
    assert [w.digest for w in steps.windows_until(store, workload, "nothing")] == ["d1", "d2", "d3"]
    with pytest.raises(NotFoundError, match="3 of letters"):
        steps.windows_until(store, workload, "d9")


def test_what_cannot_be_distilled_is_named(spec, store):
    with pytest.raises(ConfigError, match="small, wide"):
        distilling.distil(spec, "huge", True, "nothing")
    with pytest.raises(ConfigError, match="label a history first"):
        distilling.distil(spec, "small", True, "nothing")


@pytest.fixture
def distilled(monkeypatch):
    """What the training would have been asked for."""
    asked = {}

    def distill(spec, windows, *, variant, parent, **_):
        asked.update(variant=variant.name, parent=parent and parent.version, windows=[w.digest for w in windows])
        raise RuntimeError("it was asked")

    monkeypatch.setattr("components.distill.train.distill", distill)
    return asked


@pytest.mark.parametrize(("listed", "parent", "variant"), [(False, "7", "small"), (True, None, "wide")])
def test_an_update_starts_from_no_champion_that_learnt_from_what_was_forgotten(
    spec, store, distilled, monkeypatch, listed, parent, variant
):
    champion = ModelRef(version="7", uri="u", digest="d7", snapshot="d1", teacher="t@1")
    store.put_intent("letters", 0, Intent(champion=champion))
    row = WindowRow(digest="d1", workload="letters", number=1, uri="u", rows=1, created_at=1.0, manifest={})
    store.add_window(row)
    monkeypatch.setattr(distilling, "_variant_of", lambda *_: "wide")
    order = forgettings.open_order(store, "letters", "someone", "ada", "asked")
    forgettings.put(store, order.id, result={"students": [{"version": "7", "digest": "d7" if listed else "d6"}]})
    with pytest.raises(RuntimeError, match="asked"):
        distilling.distil(spec, "", False, "d1")
    assert distilled == {"variant": variant, "parent": parent, "windows": ["d1"]}
    if listed:  # without new labels too
        distilled.clear()
        with pytest.raises(RuntimeError, match="asked"):
            distilling.distil(spec, "", False, "nothing")
        assert distilled["windows"] == ["d1"]
    else:
        assert distilling.distil(spec, "", False, "nothing") is None


def test_an_order_to_forget_asks_until_the_student_is_made_and_not_until_a_run_begins(spec, store, monkeypatch):
    """A training that fails leaves it asking, whatever runs the pipeline."""
    champion = ModelRef(version="7", uri="u", digest="d7", snapshot="d1", teacher="t@1")
    store.put_intent("letters", 0, Intent(champion=champion))
    store.add_window(WindowRow(digest="d1", workload="letters", number=1, uri="", rows=1, created_at=1.0, manifest={}))
    monkeypatch.setattr(distilling, "_variant_of", lambda *_: "wide")
    for key, student in (("someone", "d7"), ("another", "d6")):
        order = forgettings.open_order(store, "letters", key, "ada", "asked")
        forgettings.put(store, order.id, result={"students": [{"version": "7", "digest": student}]})

    def asking():
        return [r.result["students"][0]["digest"] for r in forgettings.orders(store, "letters") if not r.retrained_at]

    def fail(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr("components.distill.train.distill", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        distilling.distil(spec, "", False, "d1")
    assert sorted(asking()) == ["d6", "d7"]
    names = ("uri", "digest", "float_uri", "card", "parity_gap", "metrics", "history", "terms")
    made = SimpleNamespace(**dict.fromkeys(names))
    monkeypatch.setattr("components.distill.train.distill", lambda *_, **__: made)
    distilling.distil(spec, "", False, "d1")
    assert asking() == ["d6"]


def test_a_candidate_survives_the_artifact(artifact, candidate):
    made = candidate(measurements={"agreement": 0.5, "accuracy": None})
    assert read_candidate(artifact(dsl.Model, "m", made).path) == made
    assert msgspec.json.decode(msgspec.json.encode(made), type=Candidate) == made
