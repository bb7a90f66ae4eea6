"""What the gateway's worker does before it deploys."""

import os
import subprocess
import sys
import threading

import msgspec
import pytest

from components.contracts.settings import Settings
from infra.state import PlatformState
from infra.worker import SURPLUS, _without_surplus, await_stream
from infra.workloads import spec_path


def test_a_ray_that_is_started_here_has_none_of_what_serves_nobody():
    from ray._private.node import Node

    before = {name: getattr(Node, f"start_{name}") for name in SURPLUS}
    with _without_surplus():
        for name in SURPLUS:
            assert getattr(Node, f"start_{name}")(None, include_dashboard=False) is None
    assert {name: getattr(Node, f"start_{name}") for name in SURPLUS} == before


def test_a_ray_without_these_starts_all_that_it_has(monkeypatch, caplog):
    from ray._private.node import Node

    monkeypatch.delattr(Node, "start_monitor")
    with _without_surplus():
        assert not hasattr(Node, "start_monitor")
    assert "has no start_monitor" in caplog.text


STARTS = """
import sys, threading
from serving.ray_light import import_serve
import_serve()
import ray
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from infra.worker import serve

def init(**options):
    print(options["address"])
    raise SystemExit

ray.init = init
serve([load_spec(sys.argv[1])], Settings(), threading.Event())
"""


def test_a_ray_of_our_own_is_started_whatever_cluster_this_machine_knows(tmp_path):
    """Without an address Ray joins the cluster that was started here last, and fails where that has ended."""
    env = os.environ | {"COHOBATE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", STARTS, str(spec_path("files"))]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "local\n"), done.stderr


class Stop(threading.Event):
    """Is asked to wait: meanwhile the topics come to be, at the second time."""

    def __init__(self, settings, pid):
        super().__init__()
        self.settings, self.pid, self.waits = settings, pid, 0
        self.tell(stream=False)

    def tell(self, *, stream):
        state = PlatformState(
            pid=self.pid, started_at=0.0, gateway="", kafka="", specs=(), ready=False, stream=stream
        )  # fmt: skip
        (self.settings.home / "platform.json").write_bytes(msgspec.json.encode(state))

    def wait(self, timeout=None):
        self.waits += 1
        if self.waits == 2:
            self.tell(stream=True)
        return False


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path)


def test_it_waits_for_its_supervisor_s_topics(settings):
    stop = Stop(settings, os.getppid())
    await_stream(settings, stop)
    assert stop.waits == 2


def test_it_waits_for_no_other_platform_and_for_none(settings):
    stop = Stop(settings, os.getpid())
    await_stream(settings, stop)
    (settings.home / "platform.json").unlink()
    await_stream(settings, stop)
    assert stop.waits == 0


def test_it_waits_no_longer_than_it_is_to_run(settings):
    stop = Stop(settings, os.getppid())
    stop.set()
    await_stream(settings, stop)
    assert stop.waits == 0
