import threading

import pytest

from components.contracts.errors import ConfigError, NotFoundError, PipelineError
from components.control.store import ControlStore
from components.ledger.ledger import entries
from pipelines import runs
from pipelines.local import last_error, run_local, step_outputs

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def path(spec):
    return spec.source


@pytest.mark.parametrize(
    ("name", "given", "error", "said"),
    [
        ("retrain", {}, NotFoundError, "there are bootstrap, continual"),
        ("continual", {"epochs": "3"}, ConfigError, "takes force"),
        ("continual", {"force": "maybe"}, ConfigError, "true or false"),
        ("bootstrap", {}, ConfigError, "--param history_uri=VALUE"),
        ("promote", {"reason": "x"}, ConfigError, "--param version=VALUE"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(path, settings, store, name, given, error, said):
    with pytest.raises(error, match=said):
        run_local(name, path, given, reason="why", settings=settings)
    assert store.runs("tickets") == []


def test_the_last_error_of_a_log_is_found(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        "INFO: fine\n    ValueError: first\n    components.contracts.errors.ConfigError: spec is 'x': must be\n  at\n"
    )
    assert last_error(log) == "components.contracts.errors.ConfigError: spec is 'x': must be"
    log.write_text("all is well\n")
    assert last_error(log) == ""


def test_outputs_of_steps_are_read_from_the_executors_files(tmp_path):
    for step, text in (("snapshot", '{"parameterValues": {"Output": "abc"}}'), ("distill", '{"artifacts": {}}')):
        folder = tmp_path / "continual-1" / step
        folder.mkdir(parents=True)
        (folder / "executor_output.json").write_text(text)
    assert step_outputs(tmp_path) == {"snapshot": "abc"}


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


@pytest.mark.integration
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


def test_an_update_beside_another_is_refused_and_leaves_no_run(path, settings, store, clock):
    import time

    clock.now = time.time()
    runs.begin(store, "tickets", "continual", "the first", "me")
    with pytest.raises(PipelineError, match="tickets-1"):
        run_local("continual", path, {}, reason="the second", settings=settings)
    assert len(store.runs("tickets")) == 1


@pytest.mark.integration
def test_the_trigger_s_process_records_a_run_that_failed(path, settings, store):
    from pipelines.run import main

    assert main(["rollback", path, " "]) == 1
    (run,) = store.runs("tickets")
    assert (run.status, run.pipeline) == ("failed", "rollback")
    assert "must say why" in run.detail["failure"]
    assert store.open_orders("tickets") == []
