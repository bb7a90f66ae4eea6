import pytest

from components.contracts.errors import ConfigError, NotFoundError, PipelineError
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


def test_an_update_beside_another_is_refused_and_leaves_no_run(path, settings, store, clock):
    import time

    clock.now = time.time()
    runs.begin(store, "tickets", "continual", "the first", "me")
    with pytest.raises(PipelineError, match="tickets-1"):
        run_local("continual", path, {}, reason="the second", settings=settings)
    assert len(store.runs("tickets")) == 1
