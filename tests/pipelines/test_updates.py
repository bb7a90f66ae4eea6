"""Updates that the trigger runs on Kubeflow: submitted once, watched, and recorded."""

import json
import time

import pytest

from components.contracts.errors import AccessError, ConfigError, PipelineError, RefusedError
from components.contracts.records import encode
from components.control import runs
from components.control.intent import Intent, ModelRef
from components.ledger.ledger import entries
from components.runs.component import begin, finish
from pipelines.trigger import Trigger
from pipelines.updates import ASK_SECONDS, KubeflowUpdates
from tests.clock import Clock

CHAMPION = ModelRef(version="7", uri="u", digest="d", snapshot="s", teacher="t")


@pytest.fixture
def put(broker, spec, tickets, label_of):
    def put(n):
        producer = broker.producer()
        for entry in tickets(n, classes=("login",)):
            producer.send(spec.topic("labels"), entry.input.id, encode(label_of(entry)))

    return put


@pytest.fixture
def watch():
    return Clock(0.0)


@pytest.fixture
def updates(store, remote, watch):
    return KubeflowUpdates("tickets", store, remote, clock=watch)


@pytest.fixture
def start(updates, spec):
    return lambda: updates.start(spec.source, "600 labels")


def look(updates, watch):
    watch.now += ASK_SECONDS
    updates.tend()


def row(store):
    return store.runs("tickets")[-1]


def only(shared):
    (run,) = shared.runs.values()
    return run


def test_an_update_is_recorded_and_submitted_with_its_row_and_named_by_it(start, shared, store):
    assert start() == "tickets-1"
    run = only(shared)
    assert run["display_name"] == "continual tickets-1 2027-01-15 08:00:00: 600 labels"
    assert run["runtime_config"]["parameters"] == {
        "spec": "/specs/tickets.yaml", "reason": "600 labels", "with_run": "tickets-1",
    }  # fmt: skip
    assert (row(store).status, row(store).detail[runs.KUBEFLOW]) == ("running", run["run_id"])
    with pytest.raises(PipelineError, match="tickets-1"):
        start()
    assert len(shared.runs) == 1


@pytest.mark.parametrize("died", ["before it was submitted", "before its id was noted", "after that"])
def test_a_trigger_that_dies_and_is_started_again_finds_its_run(died, start, shared, store, remote, watch, monkeypatch):
    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        if died == "before it was submitted":
            m.setattr("pipelines.updates.submit", die)
        elif died == "before its id was noted":
            m.setattr("pipelines.updates.claim", die)
        if died == "after that":
            start()
        else:
            with pytest.raises(KeyboardInterrupt):
                start()
    assert len(shared.runs) == (died != "before it was submitted")
    KubeflowUpdates("tickets", store, remote, clock=watch).tend()
    assert row(store).detail[runs.KUBEFLOW] == only(shared)["run_id"]


def test_a_request_that_came_late_makes_a_run_that_its_own_first_step_refuses(start, shared, store, spec):
    start()
    twin = {**only(shared), "run_id": "twin"}
    with pytest.raises(PipelineError, match="and no other"):
        begin.python_func(spec.source, "continual", "600 labels", twin["run_id"], with_run="tickets-1")
    mine = only(shared)["run_id"]
    assert begin.python_func(spec.source, "continual", "600 labels", mine, with_run="tickets-1") == (
        "tickets-1",
        spec.source,
    )


def test_a_run_that_goes_on_is_kept_alive_and_not_asked_for_more_often_than_need_be(
    start, updates, watch, shared, store, clock
):
    start()
    asked = len(shared.requests)
    clock.now += 800
    updates.tend()
    assert len(shared.requests) == asked
    look(updates, watch)
    clock.now += 800
    assert runs.alive(row(store), clock.now)


@pytest.mark.parametrize(
    ("state", "status", "failure"),
    [
        ("FAILED", "failed", "it is failed on Kubeflow"),
        ("CANCELED", "failed", "it is canceled on Kubeflow"),
        ("SUCCEEDED", "succeeded", None),
    ],
)
def test_a_run_that_ended_without_its_exit_handler_is_recorded_at_once(
    start, updates, watch, shared, store, state, status, failure
):
    start()
    only(shared)["state"] = state
    look(updates, watch)
    assert (row(store).status, row(store).detail.get("failure")) == (status, failure)
    (entry,) = entries(store, "tickets")
    assert (entry.action, entry.detail["status"]) == ("pipeline continual", status)
    start()


def test_what_kubeflow_says_of_a_failure_is_kept(start, updates, watch, shared, store):
    start()
    only(shared).update(state="FAILED", error={"code": 9, "message": "the pod was evicted"})
    look(updates, watch)
    assert row(store).detail["failure"] == "the pod was evicted"


def test_a_run_that_was_deleted_there_is_recorded_as_failed(start, updates, watch, shared, store):
    start()
    shared.runs.clear()
    look(updates, watch)
    assert row(store).status == "failed" and "it was deleted" in row(store).detail["failure"]


def test_the_end_that_an_exit_handler_recorded_stays(start, updates, watch, shared, store, spec):
    start()
    key = only(shared)["run_id"]
    begin.python_func(spec.source, "continual", "600 labels", key, with_run="tickets-1")
    runs.note(store, "tickets-1", {"done": {"report": 1.0}, "outputs": {"register": "8"}})
    assert finish.python_func(spec.source, key) == "succeeded"
    only(shared)["state"] = "FAILED"
    look(updates, watch)
    assert (row(store).status, row(store).detail["outputs"]) == ("succeeded", {"register": "8"})
    assert len(entries(store, "tickets")) == 1


def test_a_run_that_a_person_started_and_terminated_releases_the_next_at_once(
    start, updates, watch, shared, store, spec, clock
):
    clock.now = time.time()  # by which the step goes, that is in another process
    shared.runs["by-ada"] = {"run_id": "by-ada", "experiment_id": "", "namespace": "team", "state": "RUNNING"}
    begin.python_func(spec.source, "bootstrap", "by ada", "by-ada")
    with pytest.raises(PipelineError, match=r"tickets-1 \(bootstrap\) is under way"):
        start()
    shared.runs["by-ada"]["state"] = "CANCELED"
    look(updates, watch)
    assert row(store).status == "failed"
    assert start() == "tickets-2"


def test_where_kubeflow_does_not_answer_an_update_waits_for_it(start, updates, watch, shared, store, caplog):
    def away(handler):
        handler.answer(503, "no", kind="text/plain")
        return True

    shared.before = away
    assert start() == "tickets-1"
    assert "does not answer" in caplog.text and row(store).status == "running" and not shared.runs
    shared.before = None
    look(updates, watch)
    assert row(store).detail[runs.KUBEFLOW] == only(shared)["run_id"]


def test_an_answer_that_is_lost_makes_no_second_run(start, updates, watch, shared, store):
    def lose(handler):
        if handler.command == "POST" and handler.path.endswith("/runs"):
            shared.before = None
            body = json.loads(handler.body)
            shared.keep(shared.runs, "run_id", {**body, "state": "PENDING"})
            handler.answer(504, "late", kind="text/plain")
            return True
        return False

    shared.before = lose
    start()
    assert len(shared.runs) == 1 and row(store).detail[runs.KUBEFLOW] == ""
    look(updates, watch)
    assert row(store).detail[runs.KUBEFLOW] == only(shared)["run_id"]


def test_what_kubeflow_refuses_is_recorded_as_failed_with_its_sentence(start, shared, store, monkeypatch):
    def refuse(*_, **__):
        raise RefusedError("Kubeflow Pipelines", "h", "quota exceeded", "correct what was asked for")

    monkeypatch.setattr("pipelines.updates.submit", refuse)
    with pytest.raises(PipelineError, match=r"tickets-1 was not submitted: .*quota exceeded"):
        start()
    assert row(store).status == "failed" and "quota exceeded" in row(store).detail["failure"]


def test_where_nobody_may_connect_an_update_is_recorded_as_failed_at_once(start, store, monkeypatch):
    def refuse(settings):
        raise AccessError("Kubeflow Pipelines", "h", "token", "the token file is empty", "write one")

    with monkeypatch.context() as m:
        m.setattr("pipelines.updates.connect", refuse)
        with pytest.raises(AccessError, match="token file"):
            start()
    assert row(store).status == "failed" and "token file is empty" in row(store).detail["failure"]
    assert start() == "tickets-2"


@pytest.mark.parametrize(
    ("change", "named"),
    [({"kfp_host": ""}, "COHOBATE_KFP_HOST"), ({"kfp_spec": ""}, "COHOBATE_KFP_SPEC"), ({"kfp_env": "x"}, "KFP_ENV")],
)
def test_settings_that_are_missing_are_named_before_anything_starts(updates, spec, store, remote, change, named):
    with pytest.raises(ConfigError, match=named):
        KubeflowUpdates("tickets", store, remote.model_copy(update=change)).check(spec.source)
    updates.check(spec.source)


def test_the_trigger_submits_when_an_update_pays_and_starts_none_beside_it(
    updates, watch, shared, store, spec, broker, put, clock
):
    store.put_intent("tickets", 0, Intent(champion=CHAMPION))
    trigger = Trigger(spec, store, broker, remote=updates, clock=clock)
    put(300)
    assert trigger.look().start and len(shared.runs) == 1
    assert trigger.look().reason == "a run is under way" and len(shared.runs) == 1
    only(shared)["state"] = "FAILED"
    watch.now += ASK_SECONDS
    assert "cooling down" in trigger.look().reason
    assert row(store).status == "failed"


def test_a_refusal_ends_no_trigger(updates, watch, shared, store, spec, broker, put, clock, caplog):
    store.put_intent("tickets", 0, Intent(champion=CHAMPION))
    shared.callers.clear()
    put(300)
    assert Trigger(spec, store, broker, remote=updates, clock=clock).look().start
    assert row(store).status == "failed" and "token" in row(store).detail["failure"]
    assert "was not submitted" in caplog.text
