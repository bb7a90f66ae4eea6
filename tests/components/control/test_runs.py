import threading
import time

import pytest

from components.contracts.errors import PipelineError
from components.control import runs
from components.control.store import ControlStore
from components.ledger.ledger import entries
from tests.clock import Clock


@pytest.fixture
def clock(store):
    store.clock = Clock(1_800_000_000.0)
    return store.clock


def test_runs_are_numbered_for_each_workload(store):
    ids = [runs.begin(store, w, "rollback", "why", "me") for w in ("files", "files", "mail")]
    assert ids == ["files-1", "files-2", "mail-1"]


def test_an_update_is_refused_beside_another_of_the_same_workload_only(store):
    first = runs.begin(store, "files", "bootstrap", "why", "me")
    with pytest.raises(PipelineError, match=r"files-1 \(bootstrap\) is under way"):
        runs.begin(store, "files", "continual", "why", "me")
    runs.begin(store, "mail", "continual", "why", "me")
    store.finish_run(first, "succeeded", {})
    assert runs.begin(store, "files", "continual", "why", "me") == "files-2"


@pytest.mark.parametrize("pipeline", ["bootstrap", "continual", "data-free", runs.FORGET])
def test_no_update_starts_while_an_entity_is_forgotten_and_the_other_way_round(store, pipeline):
    for first, second in ((runs.FORGET, pipeline), (pipeline, runs.FORGET)):
        run = runs.begin(store, "tickets", first, "asked", "ada")
        with pytest.raises(PipelineError, match="under way"):
            runs.begin(store, "tickets", second, "asked", "ada")
        store.finish_run(run, "succeeded", {})


def test_nobody_is_forgotten_while_an_update_is_at_its_reports(store):
    run = runs.begin(store, "tickets", "continual", "why", "me")
    runs.reporting(store, run)
    with pytest.raises(PipelineError, match="under way"):
        runs.begin(store, "tickets", runs.FORGET, "asked", "ada")
    runs.begin(store, "tickets", "continual", "more", "me")


def test_orders_run_beside_an_update_and_do_not_keep_one_from_starting(store):
    runs.begin(store, "files", "continual", "why", "me")
    order = runs.begin(store, "files", "rollback", "it is bad", "me")
    store.finish_run("files-1", "succeeded", {})
    assert runs.begin(store, "files", "continual", "why", "me") == "files-3"
    assert order == "files-2"


def test_a_silent_run_is_recorded_as_abandoned(store, clock):
    runs.begin(store, "files", "continual", "why", "me")
    clock.now += runs.SILENT_SECONDS
    runs.begin(store, "files", "continual", "again", "me")
    assert [(r.status, r.finished_at) for r in store.runs("files")] == [("abandoned", clock.now), ("running", None)]


def test_a_beat_keeps_a_run_alive_and_does_not_revive_an_ended_one(store, clock):
    run = runs.begin(store, "files", "continual", "why", "me")
    clock.now += runs.SILENT_SECONDS - 1
    runs.beat(store, run)
    clock.now += runs.SILENT_SECONDS - 1
    assert runs.alive(store.runs("files")[0], clock.now)
    store.finish_run(run, "failed", {"failure": "x"})
    runs.beat(store, run)
    assert store.runs("files")[0].detail == {"failure": "x"}
    assert not runs.alive(store.runs("files")[0], clock.now)


def test_it_beats_from_a_thread_while_the_body_runs(store, clock):
    run = runs.begin(store, "files", "continual", "why", "me")
    clock.now += 50
    with runs.beating(store, run, seconds=0.01):
        deadline = time.monotonic() + 180
        while store.runs("files")[0].detail["alive_at"] < clock.now and time.monotonic() < deadline:
            time.sleep(0.01)
    assert store.runs("files")[0].detail["alive_at"] == clock.now
    assert not any(t.name.startswith("heartbeat") for t in threading.enumerate())


def test_of_many_that_begin_at_once_one_update_runs(store):
    began, refused = [], []

    def begin():
        mine = ControlStore(store.url)
        try:
            began.append(runs.begin(mine, "files", "continual", "race", "me"))
        except PipelineError as error:
            refused.append(error)
        mine.close()

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(began) == 1
    assert len(refused) == 5


ON_KUBEFLOW = {runs.KUBEFLOW: "8f1a", "silent_seconds": 900.0}


def last(store):
    return store.runs("files")[-1]


def test_a_run_on_kubeflow_may_be_silent_for_as_long_as_its_row_says(store, clock):
    run = runs.begin(store, "files", "continual", "why", "me", ON_KUBEFLOW)
    clock.now += 899
    with pytest.raises(PipelineError, match=f"{run} .* is under way"):
        runs.begin(store, "files", "continual", "again", "me")
    clock.now += 1
    assert runs.begin(store, "files", "continual", "again", "me") != run


def test_what_was_given_up_is_in_the_ledger(store, clock):
    run = runs.begin(store, "files", "continual", "why", "me")
    clock.now += runs.SILENT_SECONDS
    runs.begin(store, "files", "rollback", "it is bad", "ada")
    (entry,) = entries(store, "files")
    assert (entry.actor, entry.action) == ("ada", "pipeline continual")
    assert entry.detail == {"run": run, "status": "abandoned", "reason": "why"}


def test_a_first_step_that_is_started_anew_begins_no_other_run(store, clock):
    first = runs.begin(store, "files", "continual", "why", "me", ON_KUBEFLOW)
    clock.now += 10
    assert runs.begin(store, "files", "continual", "why", "me", ON_KUBEFLOW) == first
    (row,) = store.runs("files")
    assert row.detail["alive_at"] == clock.now
    runs.end(store, first, "succeeded", {}, "me")
    with pytest.raises(PipelineError, match=f"run {first} has ended"):
        runs.begin(store, "files", "continual", "why", "me", ON_KUBEFLOW)


def test_a_recorded_run_is_claimed_by_one_of_kubeflows_alone(store):
    run = runs.begin(store, "files", "continual", "why", "me", {runs.KUBEFLOW: ""})
    for _ in range(2):
        assert runs.claim(store, run, "files", "continual", "8f1a") == run
    with pytest.raises(PipelineError, match="is Kubeflow's 8f1a, and no other"):
        runs.claim(store, run, "files", "continual", "other")
    assert last(store).detail[runs.KUBEFLOW] == "8f1a"


@pytest.mark.parametrize(
    ("run", "workload", "pipeline"),
    [("files-2", "files", "continual"), ("files-1", "mail", "continual"), ("files-1", "files", "bootstrap")],
)
def test_what_is_no_run_of_the_pipeline_is_not_claimed(store, run, workload, pipeline):
    runs.begin(store, "files", "continual", "why", "me")
    with pytest.raises(PipelineError, match=f"there is no run {run} of it"):
        runs.claim(store, run, workload, pipeline, "8f1a")


@pytest.mark.parametrize("status", ["abandoned", "failed"])
def test_what_was_given_up_or_is_retried_goes_on_unless_another_has_begun(store, clock, status):
    run = runs.begin(store, "files", "continual", "why", "me", ON_KUBEFLOW)
    runs.end(store, run, status, {}, "me")
    clock.now += 50
    runs.go_on(store, run)
    row = last(store)
    assert (row.status, row.finished_at, row.detail["alive_at"]) == ("running", None, clock.now)
    runs.end(store, run, status, {}, "me")
    other = runs.begin(store, "files", "bootstrap", "why", "me")
    with pytest.raises(PipelineError, match=rf"run {other} \(bootstrap\) is under way"):
        runs.go_on(store, run)
    with pytest.raises(PipelineError, match="no such run"):
        runs.go_on(store, "files-99")


@pytest.mark.parametrize("pipeline", ["continual", runs.FORGET])
def test_what_is_retried_does_not_go_on_after_another_began_though_that_ended(store, clock, pipeline):
    """It would register a student of what it had read before somebody was forgotten, say."""
    run = runs.begin(store, "files", "continual", "why", "me", ON_KUBEFLOW)
    runs.end(store, run, "failed", {}, "me")
    clock.now += 50
    other = runs.begin(store, "files", pipeline, "asked", "ada")
    runs.end(store, other, "succeeded", {}, "ada")
    said = rf"run {other} \({pipeline}\) has begun since {run} did"
    with pytest.raises(PipelineError, match=said):
        runs.go_on(store, run)
    with pytest.raises(PipelineError, match=said):
        runs.claim(store, run, "files", "continual", "8f1a")
    with pytest.raises(PipelineError, match=said):
        runs.begin(store, "files", "continual", "why", "me", ON_KUBEFLOW)


def test_a_run_ends_once_with_one_line_in_the_ledger(store):
    run = runs.begin(store, "files", "continual", "why", "me", ON_KUBEFLOW)
    runs.note(store, run, {"outputs": {"snapshot": "abc"}})
    runs.note(store, run, {"outputs": {"register": "3"}})
    assert runs.end(store, run, "succeeded", {"failure": ""}, "ada")
    assert not runs.end(store, run, "failed", {"failure": "late"}, "bob")
    row = last(store)
    assert (row.status, row.detail["failure"]) == ("succeeded", "")
    assert row.detail["outputs"] == {"snapshot": "abc", "register": "3"}
    (entry,) = entries(store, "files")
    assert (entry.actor, entry.detail["status"]) == ("ada", "succeeded")


def test_a_beat_that_cannot_be_written_ends_no_heartbeat(store, monkeypatch):
    from sqlalchemy.exc import OperationalError

    run, beats, again = runs.begin(store, "files", "continual", "why", "me"), [], threading.Event()

    def beat(*_):
        beats.append(1)
        if len(beats) == 1:
            raise OperationalError("UPDATE", {}, Exception("the database is away"))
        again.set()

    monkeypatch.setattr(runs, "beat", beat)
    with runs.beating(store, run, seconds=0.01):
        assert again.wait(180)
