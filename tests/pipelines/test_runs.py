import threading
import time

import pytest

from components.contracts.errors import PipelineError
from components.control.store import ControlStore
from pipelines import runs


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
        deadline = time.monotonic() + 90
        while store.runs("files")[0].detail["alive_at"] < clock.now and time.monotonic() < deadline:
            time.sleep(0.01)
    assert store.runs("files")[0].detail["alive_at"] == clock.now
    assert not any(t.name.startswith("heartbeat") for t in threading.enumerate())


def test_of_many_that_begin_at_once_one_update_runs(store, settings):
    began, refused = [], []

    def begin():
        mine = ControlStore(settings.control_url)
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
