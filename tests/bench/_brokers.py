"""The brokers that a benchmark runs on: the embedded one and, where COHOBATE_TEST_KAFKA names its folder, Apache's."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from components.contracts.settings import Settings
from components.stream import open_broker
from components.stream.contract import Broker
from infra.broker import EmbeddedBroker
from tests.ports import free_ports


def kinds() -> list[str]:
    if os.environ.get("COHOBATE_TEST_KAFKA"):
        return ["embedded", "kafka"]
    print("(Apache Kafka is left out: COHOBATE_TEST_KAFKA does not name the folder of its script)")
    return ["embedded"]


@contextlib.contextmanager
def running(kind: str) -> Iterator[tuple[str, Broker]]:
    """A fresh broker of a kind: its address and a connection factory."""
    port = free_ports(2)[0]
    with tempfile.TemporaryDirectory() as folder:
        if kind == "embedded":
            with EmbeddedBroker(port, Path(folder) / "broker.log") as broker:
                yield broker.address, open_broker(Settings(bootstrap_servers=broker.address))
            return
        script = str(Path(os.environ["COHOBATE_TEST_KAFKA"]) / "kafka")
        env = {"KAFKA_HEAP": "512m", **os.environ}
        where = str(Path(folder) / "kafka")
        subprocess.run([script, "start", where, str(port)], env=env, stdout=subprocess.DEVNULL, check=True, timeout=90)
        try:
            address = f"127.0.0.1:{port}"
            yield address, open_broker(Settings(bootstrap_servers=address))
        finally:
            subprocess.run([script, "stop", where], check=True, timeout=90, stdout=subprocess.DEVNULL)
