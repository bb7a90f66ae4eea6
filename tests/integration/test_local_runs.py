"""Runs of a pipeline on this machine, by Kubeflow's local runner: a process for the run and one for each component."""

import threading

import pytest

from components.contracts.errors import PipelineError
from components.control.store import ControlStore
from components.ledger.ledger import entries
from pipelines.local import run_local

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def path(spec):
    return spec.source


@pytest.fixture
def controller(store, settings):
    """What a rollout controller does with orders: carries out the first, refuses the others."""
    stop = threading.Event()

    def serve():
        mine = ControlStore(settings.control_url)
        done = 0
        while not stop.wait(0.02):
            for row in mine.open_orders("tickets"):
                mine.finish_order(
                    row.id, done == 0, "version 1 serves" if done == 0 else "there is no previous version"
                )
                done += 1
        mine.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_a_rollback_is_an_order_with_an_outcome_and_a_refusal_fails_with_its_reason(path, settings, store, controller):
    done = run_local("rollback", path, {}, reason="answers are wrong", settings=settings)
    assert done.status == "succeeded"
    assert done.outputs == {"rollback": "version 1 serves"}
    with pytest.raises(PipelineError, match="refused: there is no previous version") as failed:
        run_local("rollback", path, {}, reason="again", settings=settings)
    assert "tickets-2-rollback.log" in str(failed.value)
    with store.session() as s:
        from components.control.tables import OrderRow

        orders = s.query(OrderRow).order_by(OrderRow.seq).all()
    assert [(o.verb, o.args, o.reason) for o in orders] == [
        ("rollback", {"to": "previous"}, "answers are wrong"),
        ("rollback", {"to": "previous"}, "again"),
    ]
    assert len({o.id for o in orders}) == 2
    assert [(r.id, r.status) for r in store.runs("tickets")] == [("tickets-1", "succeeded"), ("tickets-2", "failed")]
    assert [e.detail["status"] for e in entries(store) if e.action == "pipeline rollback"] == ["succeeded", "failed"]


def test_the_trigger_s_process_records_a_run_that_failed(path, settings, store):
    from pipelines.run import main

    assert main(["rollback", path, " "]) == 1
    (run,) = store.runs("tickets")
    assert (run.status, run.pipeline) == ("failed", "rollback")
    assert "must say why" in run.detail["failure"]
    assert store.open_orders("tickets") == []
