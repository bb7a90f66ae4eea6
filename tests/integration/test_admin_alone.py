"""The admin API as a process of its own, as a pod runs it: it needs no workload."""

import json
import os
import signal
import subprocess
import sys

import httpx
import pytest

from components.contracts.settings import Settings
from components.control.store import ControlStore
from tests.waiting import wait_for

pytestmark = pytest.mark.integration


def test_it_answers_for_a_platform_without_a_workload_and_ends_as_asked(tmp_path):
    store = ControlStore(Settings(home=tmp_path).control_url)
    store.migrate()
    store.close()
    env = os.environ | {"COHOBATE_HOME": str(tmp_path), "COHOBATE_ADMIN_PORT": "0"}
    process = subprocess.Popen([sys.executable, "-m", "infra.worker", "admin"], env=env)
    try:
        place = tmp_path / "admin.json"
        wait_for(lambda: place.is_file() or process.poll() is not None, 300)
        url = json.loads(place.read_text())["url"]
        assert httpx.get(f"{url}/readyz", timeout=60).json() == {"status": "ok"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()


def test_another_role_needs_one():
    done = subprocess.run([sys.executable, "-m", "infra.worker", "controllers"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: ")
