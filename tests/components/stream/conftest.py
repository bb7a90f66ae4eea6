import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from components.contracts.settings import Settings
from components.stream import open_broker
from components.stream.memory import MemoryBroker
from infra.broker import EmbeddedBroker


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def port():
    return free_port()


class Closing:
    def __init__(self, broker, opened):
        self._broker, self._opened = broker, opened
        self.ensure_topics, self.partitions = broker.ensure_topics, broker.partitions

    def producer(self):
        return self._opened.enter_context(contextlib.closing(self._broker.producer()))

    def transactional_producer(self, transactional_id):
        return self._opened.enter_context(contextlib.closing(self._broker.transactional_producer(transactional_id)))

    def consumer(self, *args, **options):
        return self._opened.enter_context(contextlib.closing(self._broker.consumer(*args, **options)))


@pytest.fixture(scope="session")
def embedded_address(tmp_path_factory):
    with EmbeddedBroker(free_port(), tmp_path_factory.mktemp("broker") / "broker.log") as broker:
        yield broker.address


@pytest.fixture(scope="session")
def kafka_address(tmp_path_factory):
    """A real Kafka's address: the variable holds one, or the folder of a script ``kafka`` that starts one."""
    where = os.environ.get("COHOBATE_TEST_KAFKA", "")
    if not where:
        pytest.skip("COHOBATE_TEST_KAFKA names no Kafka (an address, or a folder with the script 'kafka')")
    script = Path(where) / "kafka"
    if not script.is_file():
        yield where
        return
    if shutil.which("java") is None:
        pytest.skip("COHOBATE_TEST_KAFKA names a folder, but there is no java to run Kafka with")
    folder, port = str(tmp_path_factory.mktemp("kafka")), free_port()
    env = {"KAFKA_HEAP": "256m", **os.environ}
    subprocess.run([script, "start", folder, str(port)], env=env, stdout=subprocess.DEVNULL, check=True, timeout=60)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run([script, "stop", folder], check=True, timeout=60)


@pytest.fixture(
    params=[
        "memory",
        pytest.param("embedded", marks=pytest.mark.integration),
        pytest.param("kafka", marks=pytest.mark.integration),
        pytest.param("secured", marks=pytest.mark.integration),
    ]
)
def broker(request):
    """A broker of each kind; what a test opens on it is closed when the test ends."""
    with contextlib.ExitStack() as opened:
        if request.param == "memory":
            yield Closing(MemoryBroker(), opened)
        elif request.param == "secured":
            yield Closing(open_broker(request.getfixturevalue("secured_kafka").settings()), opened)
        else:
            address = request.getfixturevalue(f"{request.param}_address")
            yield Closing(open_broker(Settings(bootstrap_servers=address)), opened)
