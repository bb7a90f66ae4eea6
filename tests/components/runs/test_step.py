"""What makes a run on Kubeflow known: its first step, its exit handler, and what the steps between them tell."""

import pytest

from components.contracts.errors import ConfigError, NotFoundError, OrderError, PipelineError
from components.contracts.settings import Settings
from components.control import runs
from components.ledger.ledger import entries
from components.registry.component import rollback
from components.runs import step as recording
from components.runs.component import begin, finish
from components.snapshot.component import snapshot
from tests.clock import Clock
from tests.stores import migrated

SPEC = """
name: letters
teacher: {factory: "t:T"}
features: {factory: "components.student.bytes:ByteNgrams"}
student: {variants: [{name: small}]}
"""
KEY = "8f1a-kubeflow"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path / "home"))
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
def began(spec, store):
    return begin.python_func(spec, "continual", "the UI", KEY)[0]


def row(store):
    return store.runs("letters")[-1]


def do(run, name, said=None):
    with recording.step(run, name) as say:
        if said is not None:
            say(said)


def test_a_run_that_a_person_starts_keeps_others_waiting_and_is_recorded_with_what_came_of_it(spec, store, began):
    with pytest.raises(PipelineError, match=r"letters-1 \(continual\) is under way"):
        begin.python_func(spec, "bootstrap", "another", "other-kubeflow")
    assert (row(store).actor, row(store).reason, row(store).detail[runs.KUBEFLOW]) == ("kubeflow", "the UI", KEY)
    assert row(store).detail["silent_seconds"] == Settings().kfp_silent_seconds == 900.0
    do(began, "snapshot", "abc")
    do(began, "register", "3")
    do(began, "report")
    assert "reporting_at" in row(store).detail
    assert finish.python_func(spec, KEY) == "succeeded"
    assert row(store).detail["outputs"] == {"snapshot": "abc", "register": "3"}
    (entry,) = entries(store, "letters")
    assert (entry.actor, entry.action) == ("kubeflow", "pipeline continual")
    assert entry.detail == {"run": "letters-1", "status": "succeeded", "reason": "the UI"}
    begin.python_func(spec, "bootstrap", "another", "other-kubeflow")


def test_at_its_reports_a_run_keeps_no_update_waiting(spec, store, began):
    with recording.step(began, "report"):
        begin.python_func(spec, "continual", "the next", "other-kubeflow")
    assert [r.status for r in store.runs("letters")] == ["running", "running"]


def test_a_failed_step_is_why_the_run_failed_and_releases_the_next(spec, store, began):
    with pytest.raises(ZeroDivisionError), recording.step(began, "distill"):
        _ = 1 / 0
    assert row(store).status == "running", "whether the step is tried again is Kubeflow's to say"
    assert finish.python_func(spec, KEY) == "failed"
    assert row(store).detail["failure"] == "distill: ZeroDivisionError: division by zero"
    assert entries(store, "letters")[-1].detail["status"] == "failed"
    begin.python_func(spec, "continual", "again", "other-kubeflow")


def test_a_step_that_did_its_work_at_the_second_try_is_no_failure(spec, store, began):
    with pytest.raises(ZeroDivisionError), recording.step(began, "distill"):
        _ = 1 / 0
    do(began, "distill")
    assert finish.python_func(spec, KEY) == "failed"
    assert row(store).detail["failure"] == recording.ENDED


def test_a_person_who_retries_a_failed_run_goes_on_with_it(spec, store, began):
    finish.python_func(spec, KEY)
    do(began, "report")
    assert finish.python_func(spec, KEY) == "succeeded"
    assert [e.detail["status"] for e in entries(store, "letters")] == ["failed", "succeeded"]


def test_a_terminated_run_releases_the_next_when_it_has_been_silent_for_long(spec, store, began):
    store.clock = Clock(store.clock() + 900)
    other = runs.begin(store, "letters", "continual", "later", "trigger")
    with pytest.raises(PipelineError, match=f"{other} .* is under way"):
        do(began, "snapshot")
    assert [r.status for r in store.runs("letters")] == ["abandoned", "running"]


def test_the_exit_handler_of_what_was_refused_ends_nothing(spec, store, began):
    assert finish.python_func(spec, "other-kubeflow") == "never begun"
    assert row(store).status == "running"


def test_a_run_that_was_recorded_before_it_was_submitted_is_claimed(spec, store):
    run = runs.begin(store, "letters", "continual", "600 labels", "trigger", {runs.KUBEFLOW: ""})
    assert begin.python_func(spec, "continual", "600 labels", KEY, with_run=run) == (run, spec)
    with pytest.raises(PipelineError, match=f"is Kubeflow's {KEY}"):
        begin.python_func(spec, "continual", "600 labels", "a double", with_run=run)
    assert finish.python_func(spec, KEY) == "failed" and row(store).actor == "trigger"


@pytest.mark.parametrize("key", ["", "{{$.pipeline_job_uuid}}"])
def test_a_key_that_is_no_runs_own_is_refused(spec, store, key):
    for call in (lambda: begin.python_func(spec, "continual", "r", key), lambda: finish.python_func(spec, key)):
        with pytest.raises(ConfigError, match=r"key is .*: must be Kubeflow's id of the run"):
            call()
    assert store.runs("letters") == []


def test_a_component_tells_what_it_returns(spec, store, began, tmp_path, monkeypatch):
    from kfp import dsl

    monkeypatch.setattr("components.snapshot.step.take_snapshot", lambda spec, fresh: (7, "abc"))
    dataset = dsl.Dataset(name="dataset", uri=str(tmp_path / "dataset"))
    assert snapshot.python_func(spec, "champion", dataset, run=began) == "abc"
    assert row(store).detail["outputs"] == {"snapshot": "abc"}
    seen = row(store).detail
    assert snapshot.python_func(spec, "champion", dataset) == "abc"
    assert row(store).detail == seen, "without a run nothing is said"


@pytest.fixture
def ordered(monkeypatch):
    """Orders are carried out at once, or refused."""
    placed = []

    def order(spec, verb, reason, key, args):
        placed.append((verb, key))
        if reason == "bad":
            raise OrderError(verb, "letters", "refused: there is none")
        return "done"

    monkeypatch.setattr("components.registry.step.order", order)
    return placed


def test_an_order_records_itself_beside_an_update_and_once_for_each_run(spec, store, began, ordered):
    for _ in range(2):
        assert rollback.python_func(spec, "previous", "the UI", "", "run-7", record=True) == "done"
    update, order = store.runs("letters")
    assert update.status == "running" and ordered == [("rollback", "run-7")] * 2
    assert (order.pipeline, order.status, order.detail["outputs"]) == ("rollback", "succeeded", {"rollback": "done"})
    with pytest.raises(OrderError):
        rollback.python_func(spec, "previous", "bad", "", "run-8", record=True)
    failed = row(store)
    assert failed.status == "failed" and failed.detail["failure"].startswith("OrderError: ")
    assert {e.action for e in entries(store, "letters")} == {"pipeline rollback"}


def test_an_order_is_not_recorded_twice_nor_where_an_admin_api_takes_it(spec, store, ordered, monkeypatch):
    assert rollback.python_func(spec, "previous", "here", "", "run-7") == "done"
    monkeypatch.setenv("COHOBATE_ADMIN_URL", "https://admin.example")
    monkeypatch.setenv("COHOBATE_DATABASE_URL", "sqlite:////nowhere/control.db")
    assert rollback.python_func(spec, "previous", "there", "", "run-8", record=True) == "done"
    assert store.runs("letters") == [] and len(ordered) == 2


def test_the_platforms_own_actor_is_kept(settings):
    assert recording.actor(settings) == "kubeflow"
    assert recording.actor(settings.model_copy(update={"actor": "ana"})) == "ana"


def test_a_workload_that_is_named_works_with_the_version_that_is_in_force_when_it_begins(
    store, spec, settings, ordered
):
    from components.control.workloads import apply, opened

    named = "workload:letters"
    with pytest.raises(NotFoundError, match="letters"):
        begin.python_func(named, "continual", "the UI", KEY)
    assert store.runs("letters") == [], "what was not begun holds nobody up"
    loaded, bundle = opened(spec, settings)
    apply(store, bundle, loaded, actor="ana", reason="r")
    assert begin.python_func(named, "continual", "the UI", KEY) == ("letters-1", bundle.reference)
    assert finish.python_func(named, KEY) == "failed"
    assert rollback.python_func(named, "previous", "the UI", "", "run-7", record=True) == "done"
    assert [r.pipeline for r in store.runs("letters")] == ["continual", "rollback"]


def test_an_order_needs_the_workloads_name_alone(store, monkeypatch, settings):
    from components.control.order_client import Outcome
    from components.registry.step import order

    class Client:
        def place(self, order, seconds):
            assert order.workload == "letters"
            return Outcome(order=order.key, ok=True, outcome="done")

    monkeypatch.setattr("components.control.order_client.open_order_client", lambda settings: Client())
    assert order("workload:letters", "rollback", "bad", "run-7", {"to": "previous"}) == "done"
