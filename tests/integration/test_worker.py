import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.control.store import ControlStore
from components.stream import open_broker
from components.telemetry.endpoint import announced
from infra.broker import EmbeddedBroker
from infra.status import read
from tests.ports import free_port
from tests.stores import migrated
from tests.waiting import wait_for

SPEC = str(Path("infra/workloads/files.yaml").resolve())


@pytest.fixture
def platform(tmp_path):
    """An embedded broker, the workload's topics and the control tables; without any worker."""
    port = free_port()
    settings = Settings(home=tmp_path / "home", broker_port=port)
    settings.home.mkdir()
    store = migrated(settings.control_url)
    store.put_gauge("files", "drift", {"distance": 0.5})
    store.close()
    env = {**os.environ, **settings.environment(), "PYTHONPATH": os.getcwd()}
    with EmbeddedBroker(port, tmp_path / "broker.log"):
        open_broker(settings).ensure_topics(load_spec(SPEC).topics)
        yield settings, env


def get(url):
    """An answer, for which a busy machine may take long."""
    return httpx.get(url, trust_env=False, timeout=90.0)


def await_ready(settings, role):
    def ready():
        for name, address in announced(settings.home).items():
            with contextlib.suppress(httpx.TransportError):
                if name.startswith(f"files-{role}-") and get(f"http://{address}/readyz").status_code == httpx.codes.OK:
                    return f"http://{address}"
        return None

    return wait_for(ready, 240.0)


@pytest.mark.integration
@pytest.mark.parametrize(("role", "shows"), [("labeler", "cohobate_ready 1.0"), ("monitor", 'report="drift"')])
def test_a_worker_is_found_is_ready_and_leaves_nothing_behind(platform, role, shows):
    settings, env = platform
    worker = subprocess.Popen([sys.executable, "-m", "infra.worker", role, SPEC], env=env, stderr=subprocess.DEVNULL)
    try:
        base = await_ready(settings, role)
        text = get(f"{base}/metrics").text
        assert shows in text and "process_cpu_seconds_total" in text
        assert read(settings).metrics == {f"files-{role}-{worker.pid}": base.removeprefix("http://")}
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(90) == 0
    finally:
        worker.kill()
        worker.wait()
    assert announced(settings.home) == {}


@pytest.mark.integration
def test_workloads_share_a_process(platform, tmp_path):
    settings, env = platform
    tickets = str(Path("tests/workloads/tickets/tickets.yaml").resolve())
    open_broker(settings).ensure_topics(load_spec(tickets).topics)
    command = [sys.executable, "-m", "infra.worker"]
    env |= {"COHOBATE_ADMIN_PORT": "0", "COHOBATE_ADMIN_AUTH": "off"}
    workers = [
        subprocess.Popen([*command, role, SPEC, tickets], env=env, stderr=subprocess.DEVNULL)
        for role in ("controllers", "monitors")
    ]
    try:
        for role in ("monitor", "trigger", "controller"):
            await_ready(settings, role)
        store = ControlStore(settings.control_url)
        for workload in ("files", "tickets"):
            done = store.await_order(store.order(workload, "pause", "eve", "is anybody there"), timeout=240)
            assert done.ok is False and "no rollout" in done.outcome
        store.close()
        pids = {role: {int(name.rsplit("-", 1)[1]) for name in announced(settings.home) if role in name}
                for role in ("controller", "monitor", "trigger")}  # fmt: skip
        assert pids == {"controller": {workers[0].pid}, "monitor": {workers[1].pid}, "trigger": {workers[1].pid}}
        wait_for(lambda: (settings.home / "admin.json").exists())
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        assert [worker.wait(90) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert announced(settings.home) == {} and not (settings.home / "admin.json").exists()
