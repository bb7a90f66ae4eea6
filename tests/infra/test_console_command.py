import json
import os

import pytest
from typer.testing import CliRunner

from components.contracts.errors import UnavailableError
from infra.cli import app


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path))
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)

    def make(*args):
        return CliRunner().invoke(app, ["console", *args]), opened

    return make


def test_the_console_of_this_home_is_opened_or_its_address_printed(run, tmp_path):
    (tmp_path / "admin.json").write_text(json.dumps({"url": "http://127.0.0.1:8401", "pid": os.getpid()}))
    done, opened = run("--print")
    assert (done.stdout, opened) == ("http://127.0.0.1:8401/console/\n", [])
    done, opened = run()
    assert opened == ["http://127.0.0.1:8401/console/"] and done.exit_code == 0


def test_another_platforms_is_the_one_that_the_settings_name(run, monkeypatch):
    monkeypatch.setenv("COHOBATE_ADMIN_URL", "https://admin.example/")
    assert run("--print")[0].stdout == "https://admin.example/console/\n"


@pytest.mark.parametrize("left", [False, True])
def test_without_a_platform_there_is_none(run, tmp_path, left):
    if left:
        (tmp_path / "admin.json").write_text(json.dumps({"url": "http://127.0.0.1:8401", "pid": 2**22 + 1}))
    done, opened = run()
    assert isinstance(done.exception, UnavailableError) and "cohobate up" in str(done.exception) and opened == []
