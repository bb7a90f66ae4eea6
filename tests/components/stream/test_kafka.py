import contextlib
import gc
import logging
import subprocess
import sys
import time
import uuid
import warnings

import pytest
from pydantic import SecretStr

from components.contracts.settings import Settings
from components.stream import open_broker
from components.stream.contract import TopicPartition, read_to_end
from components.stream.kafka import client_config
from components.stream.kafka_consumer import KafkaConsumer
from infra.broker import EmbeddedBroker
from tests.components.stream.conftest import free_port


def test_settings_become_client_options(tmp_path):
    config = client_config(
        Settings(
            bootstrap_servers="a:1,b:2",
            security_protocol="SASL_SSL",
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username="me",
            sasl_password=SecretStr("hush"),
            ssl_cafile=tmp_path / "ca.pem",
        )
    )
    assert config["bootstrap_servers"] == ["a:1", "b:2"] and config["security_protocol"] == "SASL_SSL"
    assert (config["sasl_mechanism"], config["sasl_plain_username"]) == ("SCRAM-SHA-512", "me")
    assert config["sasl_plain_password"] == "hush"  # noqa: S105
    assert config["ssl_cafile"] == str(tmp_path / "ca.pem")
    assert "ssl_certfile" not in config


def test_without_settings_it_is_the_embedded_broker_in_plain_text():
    config = client_config(Settings(broker_port=1234))
    assert config["bootstrap_servers"] == ["127.0.0.1:1234"] and config["security_protocol"] == "PLAINTEXT"
    assert not [k for k in config if k.startswith(("sasl", "ssl"))]


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
def test_a_broker_that_is_away_is_named():
    """In a process of its own: kafka-python leaves its socket open when the first connection fails."""
    address = f"127.0.0.1:{free_port()}"
    done = subprocess.run([sys.executable, "-c", AWAY, address], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [f"{address} True"] * 3


@pytest.mark.integration
def test_a_broker_that_lost_its_records_is_read_again_from_the_earliest(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("components.stream.kafka_consumer.LOOK_SECONDS", 0.2)
    port, place = free_port(), TopicPartition("t", 0)
    broker = open_broker(Settings(broker_port=port))
    with EmbeddedBroker(port, tmp_path / "first.log"):
        broker.ensure_topics(["t"])
        with contextlib.closing(broker.producer()) as producer:
            for _ in range(20):
                producer.send("t", "k", b"old")
        consumer = broker.consumer(["t"], group="g")
        assert len(list(read_to_end(consumer))) == 20
        consumer.commit()
    with EmbeddedBroker(port, tmp_path / "second.log"), contextlib.closing(consumer), caplog.at_level(logging.WARNING):
        broker.ensure_topics(["t"])
        with contextlib.closing(broker.producer()) as producer:
            producer.send("t", "k", b"new")
        seen, deadline = [], time.monotonic() + 15
        while not seen and time.monotonic() < deadline:
            seen = consumer.poll(timeout=0.2)
        assert [r.value for r in seen] == [b"new"] and consumer.positions() == {place: 1}
        assert isinstance(consumer, KafkaConsumer) and consumer.resets == 1
        assert "did the broker lose its records" in caplog.text
    with warnings.catch_warnings():  # kafka-python leaves the sockets of broken connections open
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.integration
def test_what_a_transaction_aborted_is_not_seen_and_ends_are_reached(kafka_address):
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
        started = time.monotonic()
        assert [r.value for r in read_to_end(consumer)] == [b"kept"]
        assert consumer.positions() == consumer.ends() == {TopicPartition(topic, 0): 4}
        assert consumer.lag() == 0 and time.monotonic() - started < 1.5
        writer.begin_transaction()
        writer.send(topic, b"open")
        writer.flush()
        assert consumer.ends() == {TopicPartition(topic, 0): 4}, "an open transaction is not there yet"
        writer.abort_transaction()
