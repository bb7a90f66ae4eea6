"""A look imports nothing heavy: the help of every command, and the status of a platform that has had a student."""

import importlib
import json
import subprocess
import sys

import pytest
import typer

from components.contracts.settings import Settings
from components.contracts.spec import Factory, Spec
from components.contracts.storage import digest_of, put_bytes
from components.registry import Registry
from infra.cli import SUB_COMMANDS, app
from tests.components.registry.test_registry import VERDICT, card
from tests.stores import migrated, registering

HEAVY = (
    "alembic", "evidently", "feast", "kafka", "kfp", "mlflow", "numpy", "onnxruntime", "pandas", "pyarrow", "ray",
    "scipy", "sklearn", "torch", "transformers",
)  # fmt: skip

LOOK = """
import sys
from typer.testing import CliRunner
from infra.cli import app
for argv in {looks!r}:
    done = CliRunner().invoke(app, argv)
    assert done.exit_code == 0, (argv, done.output, done.exception)
print(done.output)
print(*sorted(set({heavy!r}) & set(sys.modules)), file=sys.stderr)
"""


def imported(looks, heavy, home):
    """What of ``heavy`` a process of its own has imported after these looks, and what the last one printed."""
    code = LOOK.format(looks=looks, heavy=heavy)
    done = subprocess.run(
        [sys.executable, "-c", code], env={"COHOBATE_HOME": str(home)}, capture_output=True, text=True, check=True
    )
    return done.stderr.split(), done.stdout


def test_help_imports_nothing_heavy(tmp_path):
    group = typer.main.get_command(app)
    looks = [["--help"], *([name, "--help"] for name in group.commands)]
    looks += [[sub.name, name, "--help"] for sub in SUB_COMMANDS for name in group.commands[sub.name].commands]
    assert len(looks) > 40
    assert imported(looks, (*HEAVY, "sqlalchemy", "httpx"), tmp_path)[0] == []


def test_the_list_of_commands_imports_no_sub_command(tmp_path):
    modules = tuple(sub.module for sub in SUB_COMMANDS)
    found, shown = imported([["--help"]], (*modules, "pydantic", "msgspec"), tmp_path)
    assert found == [] and all(f" {sub.name} " in shown for sub in SUB_COMMANDS)


@pytest.mark.parametrize("sub", SUB_COMMANDS, ids=lambda sub: sub.name)
def test_the_list_says_of_a_sub_command_what_it_says_itself(sub):
    assert importlib.import_module(sub.module).app.info.help == sub.help


def test_status_imports_nothing_heavy(tmp_path):
    settings = registering(Settings(home=tmp_path))
    store, data, uri = migrated(settings.control_url), b"student", f"{settings.artifacts}/1.onnx"
    store.put_gauge("files", "labeler", {"labelled": 3})
    put_bytes(uri, data)
    spec = Spec(name="files", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"))
    Registry(settings).register(
        spec, uri, digest_of(data), card(), verdict=VERDICT, metrics={"defer_below": 0.5}, params={}
    )  # fmt: skip
    store.close()
    found, shown = imported([["status", "--json"]], HEAVY, tmp_path)
    assert found == []
    workload = json.loads(shown)["workloads"]["files"]
    assert workload["models"] == [{"version": "1", "aliases": [], "teacher": "t@1", "defer_below": 0.5}]
    assert workload["gauges"]["labeler"]["labelled"] == 3
