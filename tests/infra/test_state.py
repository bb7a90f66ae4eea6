import os
import time

import msgspec
from typer.testing import CliRunner

from components.contracts.errors import NotFoundError
from components.contracts.settings import Settings
from infra.cli import app
from infra.state import PlatformState


def test_a_platform_takes_up_only_what_it_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path))
    specs = (f"workload:one@{'a' * 64}", f"workload:other@{'b' * 64}", "/some/spec.yaml")
    state = PlatformState(
        pid=os.getpid(), started_at=time.time(), gateway="g", kafka="k", specs=specs, ready=True
    )  # fmt: skip
    assert state.workloads == ("one", "other")
    (Settings().home / "platform.json").write_bytes(msgspec.json.encode(state))
    done = CliRunner().invoke(app, ["apply", "files"])
    assert isinstance(done.exception, NotFoundError)
    assert "no workload 'files': the platform runs one, other: one more takes 'cohobate down', and" in str(
        done.exception
    )


def test_a_line_of_a_log_that_is_waited_for_is_shown_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path))
    state = PlatformState(pid=os.getpid(), started_at=time.time(), gateway="g", kafka="k", specs=(), ready=True)

    def started(settings, specs, progress):
        progress("[ALERT] : [/opt/haproxy.main()] no listener")
        return state

    monkeypatch.setattr("infra.stack.up", started)
    done = CliRunner().invoke(app, ["up", "--spec", "files"])
    assert done.exit_code == 0 and "gateway g" in done.stdout
