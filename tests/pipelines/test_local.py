from pathlib import Path

import pytest

from components.contracts.errors import ConfigError, NotFoundError, PipelineError
from components.contracts.spec import load_spec
from components.control import runs
from pipelines.local import _registered, last_error, run_local, step_outputs

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


def test_a_file_that_a_student_is_made_by_becomes_a_version_and_an_order_s_does_not(path, settings, store, tmp_path):
    from components.control.workloads import apply, in_force, opened, versions

    assert _registered(path, "rollback", store, settings).source == path and not versions(store, "tickets")
    first = _registered(path, "bootstrap", store, settings)
    assert first.source == in_force(store, "tickets").reference and first.digest == load_spec(path).digest
    (tmp_path / "tickets.py").write_bytes((Path(path).parent / "tickets.py").read_bytes())
    (tmp_path / "t.yaml").write_text(Path(path).read_text() + "\nseed: 99\n")
    other = _registered(str(tmp_path / "t.yaml"), "continual", store, settings)
    assert [v.digest for v in versions(store, "tickets")] == [first.bundle, other.bundle] and other.seed == 99
    assert in_force(store, "tickets").digest == first.bundle
    assert versions(store, "tickets")[1].reason == "a run of continual"
    spec, bundle = opened(str(tmp_path / "t.yaml"), settings)
    apply(store, bundle, spec, actor="ana", reason="better")
    assert _registered(other.source, "continual", store, settings) == other


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

    clock.now = time.time() + 3_600  # ahead: however long the machine stands still, the first is not silent yet
    runs.begin(store, "tickets", "continual", "the first", "me")
    with pytest.raises(PipelineError, match="tickets-1"):
        run_local("continual", path, {}, reason="the second", settings=settings)
    assert len(store.runs("tickets")) == 1
