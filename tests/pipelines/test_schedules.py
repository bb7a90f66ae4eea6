"""Schedules of a workload's pipelines: one of each, whatever else is there and whoever else schedules."""

import itertools
import threading
from datetime import UTC, datetime

import pytest

from components.contracts.errors import PipelineError, RefusedError
from pipelines.cron import timing
from pipelines.install import install, package_of
from pipelines.kubeflow_api import connect
from pipelines.placing import put
from pipelines.schedules import OWN_COPY, put_schedule, schedules, unschedule

PLACE = "/specs/tickets.yaml"


@pytest.fixture
def plan(remote, spec):
    """Schedule a pipeline, as the command does."""

    def make(cron="0 3 * * *", name="continual", *, settings=remote, **parameters):
        with connect(settings) as server:
            placed = put(server, package_of(name, spec, PLACE, settings))
            when = timing(cron, datetime.now(UTC))
            made = {"spec": PLACE, **parameters}
            return put_schedule(server, placed, when, made, workload="tickets", reason="nightly", settings=settings)

    return make


@pytest.fixture
def listed(remote):
    def read():
        with connect(remote) as server:
            return schedules(server, "tickets", remote)

    return read


def test_a_schedule_runs_the_installed_version_one_at_a_time_and_makes_up_for_nothing(shared, plan):
    done = plan()
    (job,) = shared.jobs.values()
    assert job["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}, "six fields, as the server reads them"
    assert (job["max_concurrency"], job["mode"], job["no_catchup"]) == ("1", "ENABLE", True)
    assert job["runtime_config"]["parameters"] == {"spec": PLACE}
    (version,) = shared.versions.values()
    assert job["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert (done.id, done.version, done.cron) == (job["recurring_run_id"], version["name"], "0 0 3 * * *")
    assert job["service_account"] == "default-editor", "the server's own"
    assert [datetime.fromisoformat(time).hour for time in done.next] == [3, 3, 3]


def test_the_service_account_can_be_named(shared, plan, remote):
    plan(settings=remote.model_copy(update={"kfp_service_account": "mine"}))
    assert [job["service_account"] for job in shared.jobs.values()] == ["mine"]


def test_a_second_one_replaces_the_first_even_within_one_second(shared, plan):
    shared.clock = lambda: 1_800_000_000.0
    ids = [plan(cron).id for cron in ("@daily", "0 4 * * *", "@every 6h", "0 5 * * *", "0 6 * * *")]
    (job,) = shared.jobs.values()
    assert job["recurring_run_id"] == ids[-1] and job["trigger"]["cron_schedule"]["cron"] == "0 0 6 * * *"


def test_the_new_one_is_there_before_the_old_one_goes(shared, plan):
    plan()
    shared.requests.clear()
    plan("@daily")
    made, gone = (next(i for i, (m, _) in enumerate(shared.requests) if m == method) for method in ("POST", "DELETE"))
    assert made < gone


def test_a_new_one_that_is_refused_leaves_the_old_one(shared, plan):
    first = plan()
    with pytest.raises(Exception, match="colour is not an input of the pipeline"):
        plan("@daily", colour="red")
    assert set(shared.jobs) == {first.id}


def fail_from(shared, method, nth=1):
    """The server is out of order from the n-th such request for schedules on."""
    seen = []

    def fail(handler):
        if handler.command == method and "recurringruns" in handler.path:
            seen.append(handler.path)
            if len(seen) >= nth:
                handler.answer(500, {"message": "database is locked"})
                return True
        return False

    shared.before = fail


def test_one_that_was_made_but_cannot_be_looked_for_is_taken_away_again(shared, plan):
    first = plan()
    fail_from(shared, "GET", nth=2)  # the look before it is made goes well
    with pytest.raises(RefusedError, match="database is locked"):
        plan("@daily")
    assert set(shared.jobs) == {first.id}


def test_an_older_one_that_cannot_be_taken_away_is_named_and_the_next_call_mends_it(shared, plan):
    first = plan()
    fail_from(shared, "DELETE")
    with pytest.raises(PipelineError, match=f"the older one {first.id} is still there, and runs too: schedule once mo"):
        plan("@daily")
    assert len(shared.jobs) == 2
    shared.before = None
    last = plan("@daily")
    assert set(shared.jobs) == {last.id}


def test_twenty_callers_at_once_leave_one(shared, plan):
    found, start = [], threading.Barrier(20)

    def call():
        start.wait()
        found.append(plan().id)

    threads = [threading.Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (left,) = shared.jobs
    assert len(found) == 20 and left in found
    assert len(shared.versions) == 1


def test_of_two_that_schedule_otherwise_at_once_one_is_told(shared, plan):
    """The second looks before the first has made its schedule, and makes its own in the same generation."""
    plan("@weekly")
    ids = iter(["zzzz", "aaaa"])
    real, second = shared.keep, []

    def keep(table, key, body):
        row = real(table, key, body)
        if key == "recurring_run_id":
            del table[row[key]]
            row[key] = next(ids)
            table[row[key]] = row
        return row

    def between(handler):
        if handler.command == "POST" and handler.path.endswith("recurringruns") and not second:
            second.append(True)
            plan("0 5 * * *")
        return False

    shared.keep, shared.before = keep, between
    with pytest.raises(PipelineError, match=r"another caller scheduled tickets-continual as 0 0 5 .* and that stays"):
        plan("0 4 * * *")
    assert [job["trigger"]["cron_schedule"]["cron"] for job in shared.jobs.values()] == ["0 0 5 * * *"]


def test_those_of_older_releases_and_doubled_ones_are_replaced_and_others_stay(shared, plan):
    first = plan()
    (experiment,) = shared.experiments
    old = {
        "display_name": "tickets-continual", "experiment_id": experiment, "pipeline_spec": {}, "namespace": "team",
        "trigger": {"cron_schedule": {"cron": "0 0 2 * * *"}}, "status": "ENABLED",
    }  # fmt: skip
    for _ in range(2):
        shared.keep(shared.jobs, "recurring_run_id", dict(old))
    theirs = shared.keep(shared.jobs, "recurring_run_id", {**old, "display_name": "report"})["recurring_run_id"]
    rollback = plan(name="rollback")
    second = plan("@daily")
    assert set(shared.jobs) == {second.id, rollback.id, theirs} and first.id != second.id


def test_the_list_tells_times_state_and_version_as_the_server_holds_them(shared, plan, listed):
    assert listed() == []
    made = plan()
    (experiment,) = shared.experiments
    old = {
        "display_name": "tickets-bootstrap", "experiment_id": experiment, "pipeline_spec": {}, "namespace": "team",
        "trigger": {"cron_schedule": {"cron": "0 3 * * *"}}, "status": "ENABLED",
    }  # fmt: skip
    shared.keep(shared.jobs, "recurring_run_id", old)
    paused = {**old, "display_name": "tickets-rollback", "status": "DISABLED"}
    paused["trigger"] = {"periodic_schedule": {"interval_second": "3600"}}
    shared.keep(shared.jobs, "recurring_run_id", paused)
    bootstrap, continual, rollback = listed()
    assert continual == made
    assert bootstrap.version == OWN_COPY
    times = [datetime.fromisoformat(time) for time in bootstrap.next]
    assert [(t.minute, t.second) for t in times] == [(3, 0)] * 3, "five fields on the server begin with the second"
    assert {b - a for a, b in itertools.pairwise(times)} == {times[1] - times[0]} and (
        times[1] - times[0]
    ).seconds == 3600
    assert (rollback.enabled, rollback.next, rollback.cron) == (False, (), "@every 3600s")
    assert "disabled" in rollback.text and "UTC" in continual.text


def test_unschedule_takes_away_the_one_of_its_name(shared, plan, remote, listed):
    plan()
    kept = plan(name="rollback")
    with connect(remote) as server:
        assert len(unschedule(server, "tickets", "continual")) == 1
        assert unschedule(server, "tickets", "continual") == []
    assert listed() == [kept]


def test_a_schedule_renews_what_it_runs_after_an_upgrade(shared, plan, remote, spec, listed):
    plan()
    newer = remote.model_copy(update={"kfp_image": "here/cohobate:2"})
    with connect(newer) as server:
        done = install(server, spec, newer)
    assert done.outdated == ("continual",)
    renewed = plan(settings=newer)
    assert renewed.version == next(p.version for p in done.pipelines if p.name == "tickets-continual")
    with connect(newer) as server:
        assert install(server, spec, newer).outdated == ()
    assert [row.id for row in listed()] == [renewed.id]
