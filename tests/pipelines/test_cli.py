import json

import msgspec
import pytest
from typer.testing import CliRunner

from components.contracts.errors import ConfigError
from pipelines import local
from pipelines.cli import app, parameters
from pipelines.local import RunResult
from pipelines.outcome import Outcome

pytestmark = pytest.mark.filterwarnings("ignore")


def test_parameters_may_hold_equal_signs():
    assert parameters(["to=3", "reason=a=b", "key="]) == {"to": "3", "reason": "a=b", "key": ""}
    assert parameters(None) == {}
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        parameters(["to"])


def test_compile_writes_all_pipelines_and_prints_their_paths(tmp_path):
    done = CliRunner().invoke(app, ["compile", "--output", str(tmp_path / "ir"), "--json"])
    assert done.exit_code == 0, done.output
    paths = json.loads(done.stdout)
    assert sorted(p.rsplit("/", 1)[1] for p in paths) == [
        "bootstrap.yaml", "continual.yaml", "data-free.yaml", "promote.yaml", "rollback.yaml",
    ]  # fmt: skip
    assert all((tmp_path / "ir" / p.rsplit("/", 1)[1]).stat().st_size > 1000 for p in paths)


@pytest.mark.parametrize(
    "command",
    [
        "compile",
        "run",
        "submit",
        "schedule",
        "schedules",
        "unschedule",
        "install",
        "uninstall",
        "link",
    ],
)
def test_every_command_has_help_and_json(command):
    done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.exit_code == 0
    assert "--json" in done.output


def test_a_failed_run_is_an_error_of_ours(settings, store, spec):
    done = CliRunner().invoke(app, ["run", "promote", "--spec", spec.source])
    assert isinstance(done.exception, ConfigError)
    assert "version" in str(done.exception)


@pytest.mark.parametrize(
    ("made", "code", "said"),
    [
        (Outcome(decision="promote", version="2"), 0, "student: version 2 is registered"),
        (
            Outcome(decision="hold", version=None, reasons=("too few",), more_labels=50),
            4,
            "held: too few. About 50 more",
        ),
        (Outcome(decision="reject", version=None, reasons=("too bad",)), 4, "rejected: too bad"),
        (Outcome(decision="nothing", version=None), 4, "there are no new labels"),
        (None, 0, "tickets-1 succeeded"),
    ],
)
def test_an_update_without_a_student_ends_with_code_4_and_the_reason_last(monkeypatch, spec, made, code, said):
    done = RunResult(run="tickets-1", pipeline="x", status="succeeded", seconds=1.0, log="l", outcome=made)
    monkeypatch.setattr(local, "run_local", lambda *_, **__: done)
    ran = CliRunner().invoke(app, ["run", "continual", "--spec", spec.source])
    assert ran.exit_code == code
    assert said in ran.stdout.splitlines()[-1]
    shown = CliRunner().invoke(app, ["run", "continual", "--spec", spec.source, "--json"])
    assert shown.exit_code == code
    assert msgspec.convert(json.loads(shown.stdout)["outcome"], Outcome | None) == made
