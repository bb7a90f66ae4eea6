import json
import sys

import pytest

from components.contracts.errors import ConfigError, NotFoundError, PipelineError
from components.contracts.settings import Settings
from components.control.store import ControlStore
from infra.console_pipelines import LocalPipelines
from infra.specs import in_force, prepared, record
from tests.pipelines.conftest import TICKETS

PYTHON = """#!{python}
import json, os, sys, time
with open({told!r} + ".new", "w") as file:
    json.dump([sys.argv[1:], os.environ["COHOBATE_ACTOR"], os.environ["COHOBATE_HOME"]], file)
os.rename({told!r} + ".new", {told!r})
time.sleep(600 if {stays!r} else 0)
"""


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Stands for Python: tells with what it was started, and stays until it is ended, or not."""

    def make(stays):
        script, told = tmp_path / "python", tmp_path / "told"
        script.write_text(PYTHON.format(python=sys.executable, told=str(told), stays=stays))
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        return told

    return make


@pytest.fixture
def settings(tmp_path):
    made = Settings(home=tmp_path / "home")
    store = ControlStore(made.control_url)
    store.migrate()
    record(store, made, prepared(made, TICKETS), "started")
    store.close()
    return made


def test_a_run_is_a_process_in_the_callers_name_and_ends_with_the_platform(settings, started):
    told = started(stays=True)
    with LocalPipelines(settings) as pipelines:
        pipelines.start("tickets", "rollback", {"to": "3"}, "it is bad", "eve")
        with pytest.raises(PipelineError, match="is under way"):
            pipelines.start("tickets", "rollback", {}, "again", "ada")
        (process,) = pipelines._running.values()
        while not told.exists():
            assert process.poll() is None
    assert process.returncode == -15
    spec = in_force(settings, "tickets").source
    argv = ["-m", "pipelines.run", "rollback", spec, "it is bad", "to=3"]
    assert json.loads(told.read_text()) == [argv, "eve", str(settings.home.resolve())]


def test_one_that_has_ended_may_be_started_again(settings, started):
    started(stays=False)
    with LocalPipelines(settings) as pipelines:
        for _ in range(2):
            pipelines.start("tickets", "continual", {}, "why", "eve")
            assert pipelines._running["tickets", "continual"].wait() == 0


def test_what_is_wrong_starts_nothing(settings):
    with LocalPipelines(settings) as pipelines:
        for workload, pipeline, given, error in (
            ("none", "continual", {}, NotFoundError), ("tickets", "retrain", {}, NotFoundError),
            ("tickets", "bootstrap", {}, ConfigError), ("tickets", "continual", {"epochs": "3"}, ConfigError),
        ):  # fmt: skip
            with pytest.raises(error):
                pipelines.start(workload, pipeline, given, "why", "eve")
        assert pipelines._running == {}
