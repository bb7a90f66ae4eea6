import contextlib
import subprocess
import sys
import uuid

import pytest

from components.contracts.settings import Settings
from components.stream import open_broker
from components.stream.contract import TopicPartition, read_to_end
from components.stream.kafka import client_config
from tests.waiting import wait_for


def test_without_settings_it_is_the_embedded_broker_in_plain_text():
    config = client_config(Settings(broker_port=1234))
    assert config["bootstrap_servers"] == ["127.0.0.1:1234"] and config["security_protocol"] == "PLAINTEXT"
    assert not [k for k in config if k.startswith(("sasl", "ssl"))]
    assert client_config(Settings(bootstrap_servers="a:1,b:2"))["bootstrap_servers"] == ["a:1", "b:2"]


AWAY = """
import sys
from components.contracts.errors import UnavailableError
from components.contracts.settings import Settings
from components.stream.kafka import KafkaBroker

broker = KafkaBroker(Settings(bootstrap_servers=sys.argv[1]))
broker.config["bootstrap_timeout_ms"] = 300
for act in (lambda: broker.ensure_topics(["t"]), broker.producer, lambda: broker.consumer(["t"])):
    try:
        act()
    except UnavailableError as error:
        print(error.address, "COHOBATE_BOOTSTRAP_SERVERS" in error.remedy)
"""


@pytest.mark.integration
def test_a_broker_that_is_away_is_named(port):
    """In a process of its own: kafka-python leaves its socket open when the first connection fails."""
    address = f"127.0.0.1:{port}"
    done = subprocess.run(
        [sys.executable, "-c", AWAY, address], capture_output=True, text=True, check=True, timeout=240
    )
    assert done.stdout.splitlines() == [f"{address} True"] * 3


LOST = """
import sys, time
from contextlib import closing
from pathlib import Path
from components.contracts.settings import Settings
from components.stream import kafka_consumer, open_broker
from components.stream.contract import read_to_end
from infra.broker import EmbeddedBroker

kafka_consumer.LOOK_SECONDS = 0.2
port, logs = int(sys.argv[1]), Path(sys.argv[2])
broker = open_broker(Settings(broker_port=port))

def put(values):
    broker.ensure_topics(["t"])
    with closing(broker.producer()) as producer:
        for value in values:
            producer.send("t", "k", value)

with EmbeddedBroker(port, logs / "first.log"):
    put([b"old"] * 20)
    consumer = broker.consumer(["t"], group="g")
    print(len(list(read_to_end(consumer))))
    consumer.commit()
with EmbeddedBroker(port, logs / "second.log"), closing(consumer):
    put([b"new"])
    seen, deadline = [], time.monotonic() + 180
    while not seen and time.monotonic() < deadline:
        seen = consumer.poll(timeout=0.2)
    print([r.value for r in seen], list(consumer.positions().values()), consumer.resets)
"""


@pytest.mark.integration
def test_a_broker_that_lost_its_records_is_read_again_from_the_earliest(tmp_path, port):
    """In a process of its own: kafka-python leaves the sockets of broken connections open."""
    done = subprocess.run(
        [sys.executable, "-c", LOST, str(port), str(tmp_path)],
        capture_output=True, text=True, check=True, timeout=240,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["20", "[b'new'] [1] 1"]
    assert "did the broker lose its records" in done.stderr


@pytest.mark.integration
def test_what_a_transaction_aborted_is_not_seen_and_ends_are_reached(kafka_address, monkeypatch):
    """The markers that end a transaction have offsets of their own: a reader must come past them."""
    from kafka import KafkaProducer

    settings = Settings(bootstrap_servers=kafka_address)
    broker, topic = open_broker(settings), f"tx-{uuid.uuid4().hex[:8]}"
    broker.ensure_topics([topic])
    writer = KafkaProducer(**client_config(settings), transactional_id=topic)
    with contextlib.closing(writer), contextlib.closing(broker.consumer([topic])) as consumer:
        writer.init_transactions()
        for value, end in ((b"kept", writer.commit_transaction), (b"dropped", writer.abort_transaction)):
            writer.begin_transaction()
            writer.send(topic, value)
            writer.flush()
            end()
        wait_for(lambda: consumer.ends() == {TopicPartition(topic, 0): 4})  # the marks come after the answer
        # With this patience the test would time out if an end were waited for that is not reached.
        monkeypatch.setattr("components.stream.kafka_consumer.PROBE_SECONDS", 1e5)
        assert [r.value for r in read_to_end(consumer)] == [b"kept"]
        assert consumer.positions() == consumer.ends() == {TopicPartition(topic, 0): 4}
        assert consumer.lag() == 0
        writer.begin_transaction()
        writer.send(topic, b"open")
        writer.flush()
        assert consumer.ends() == {TopicPartition(topic, 0): 4}, "an open transaction is not there yet"
        writer.abort_transaction()
