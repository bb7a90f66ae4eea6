import pytest

from components.contracts.errors import ConfigError, NotFoundError, PipelineError
from pipelines import runs
from pipelines.local import arguments, last_error, run_local, step_outputs

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def path(spec):
    return spec.source


def test_arguments_take_the_variants_from_the_spec(path):
    made = arguments("bootstrap", path, {"history_uri": "file:///h.jsonl"}, "why")
    assert made == {
        "spec": path, "history_uri": "file:///h.jsonl", "first_variant": "small", "second_variant": "wide",
    }  # fmt: skip
    assert arguments("bootstrap", path, {"history_uri": "u", "second_variant": "x"}, "")["second_variant"] == "x"


def test_a_history_s_path_becomes_a_uri_that_every_component_finds(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = arguments("bootstrap", path, {"history_uri": "data/h.jsonl"}, "")
    assert made["history_uri"] == (tmp_path / "data" / "h.jsonl").as_uri()
    assert arguments("bootstrap", path, {"history_uri": "s3://b/h"}, "")["history_uri"] == "s3://b/h"


def test_arguments_take_the_reason_where_there_is_one_and_the_path_in_the_image(path):
    assert arguments("rollback", path, {"to": "3"}, "it is bad") == {"spec": path, "to": "3", "reason": "it is bad"}
    assert arguments("rollback", path, {"reason": "mine"}, "other")["reason"] == "mine"
    assert arguments("continual", path, {"spec": "/app/tickets.yaml"}, "why") == {"spec": "/app/tickets.yaml"}


@pytest.mark.parametrize(("given", "meant"), [("true", True), ("False", False)])
def test_force_is_a_boolean(path, given, meant):
    assert arguments("continual", path, {"force": given}, "why")["force"] is meant


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


def test_an_update_beside_another_is_refused_and_leaves_no_run(path, settings, store, clock):
    import time

    clock.now = time.time()
    runs.begin(store, "tickets", "continual", "the first", "me")
    with pytest.raises(PipelineError, match="tickets-1"):
        run_local("continual", path, {}, reason="the second", settings=settings)
    assert len(store.runs("tickets")) == 1
