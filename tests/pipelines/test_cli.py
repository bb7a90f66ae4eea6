import json

import pytest
from typer.testing import CliRunner

from components.contracts.errors import ConfigError
from pipelines.cli import app, parameters

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
        "bootstrap.yaml", "continual.yaml", "promote.yaml", "rollback.yaml",
    ]  # fmt: skip
    assert all((tmp_path / "ir" / p.rsplit("/", 1)[1]).stat().st_size > 1000 for p in paths)


@pytest.mark.parametrize("command", ["compile", "run", "submit", "schedule"])
def test_every_command_has_help_and_json(command):
    done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.exit_code == 0
    assert "--json" in done.output


def test_a_failed_run_is_an_error_of_ours(settings, store, spec):
    done = CliRunner().invoke(app, ["run", "promote", "--spec", spec.source])
    assert isinstance(done.exception, ConfigError)
    assert "version" in str(done.exception)
