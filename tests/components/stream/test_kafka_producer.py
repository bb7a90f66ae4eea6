import base64
import json
import ssl
import threading
from contextlib import closing

import pytest

from components.contracts.errors import AccessError, RecordError, UnavailableError
from components.contracts.settings import Settings
from components.stream.contract import MAX_RECORD_BYTES, read_to_end
from components.stream.kafka import client_config
from components.stream.kafka_producer import ENVELOPE_BYTES, KafkaProducer, _end_of, connection_options


def options(**fields):
    settings = Settings(**fields)
    return connection_options(settings, client_config(settings))


def test_in_plain_text_there_is_nothing_but_the_address():
    assert options(bootstrap_servers="a:1,b:2") == {"bootstrap.servers": "a:1,b:2", "security.protocol": "PLAINTEXT"}


def test_a_password_over_tls():
    found = options(
        security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="me", sasl_password="pw"  # noqa: S106
    )  # fmt: skip
    system = ssl.get_default_verify_paths()
    assert (found["sasl.mechanism"], found["sasl.username"], found["sasl.password"]) == ("SCRAM-SHA-512", "me", "pw")
    assert found["ssl.endpoint.identification.algorithm"] == "https"
    assert found.get("ssl.ca.location") in (system.cafile, system.capath)
    unchecked = options(security_protocol="SSL", ssl_check_hostname=False)
    assert unchecked["ssl.endpoint.identification.algorithm"] == "none"


def test_a_token_comes_with_its_end():
    body = base64.urlsafe_b64encode(json.dumps({"exp": 1234}).encode()).rstrip(b"=").decode()
    assert _end_of(f"head.{body}.sign", 1.0) == 1234.0
    for opaque in ("no token at all", "a.b.c", f"x.{base64.urlsafe_b64encode(b'{}').decode()}.y"):
        assert _end_of(opaque, 1_000.0) == 1_300.0
    found = options(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_oauth_token=f"head.{body}.sign"
    )
    assert found["oauth_cb"]("") == (f"head.{body}.sign", 1234.0)


@pytest.mark.integration
def test_the_largest_record_is_taken_and_a_larger_one_refused(embedded_address):
    from components.stream import open_broker

    broker = open_broker(Settings(bootstrap_servers=embedded_address))
    broker.ensure_topics(["large"])
    producer = broker.producer()
    most = MAX_RECORD_BYTES - ENVELOPE_BYTES
    with pytest.raises(RecordError, match="oversize"):
        producer.send("large", "k", bytes(most))
    with pytest.raises(RecordError, match="oversize"):
        producer.send("large", None, bytes(most - 10), {"header": bytes(5)})
    producer.send("large", "k", bytes(most - 1))
    producer.flush()
    producer.close()
    producer.close()


@pytest.mark.integration
def test_what_is_not_confirmed_in_time_is_told(tmp_path, port):
    """The broker dies after it was asked for its topics."""
    from components.stream import open_broker
    from infra.broker import EmbeddedBroker

    with EmbeddedBroker(port, tmp_path / "broker.log"):
        broker = open_broker(Settings(broker_port=port))
        broker.ensure_topics(["t"])
        producer = broker.producer()
        producer.send("t", "k", b"before")
        producer.flush()
    producer.send("t", "k", b"after")
    with pytest.raises(UnavailableError, match="1 records were not confirmed within"):
        producer.flush(0.3)
    producer._seconds = 1.0
    ended = threading.Thread(target=producer.close, daemon=True)
    ended.start()
    ended.join(180)
    assert not ended.is_alive()


@pytest.mark.integration
def test_a_producer_whose_id_a_new_broker_gave_to_another_is_replaced(tmp_path, port):
    from components.stream import open_broker
    from infra.broker import EmbeddedBroker

    broker = open_broker(Settings(home=tmp_path, broker_port=port))

    def attempt(value):
        producer.send("t", "k", value)
        producer.flush()

    with EmbeddedBroker(port, tmp_path / "one.log"):
        broker.ensure_topics(["t"])
        producer = broker.producer()
        attempt(b"to one")
    with EmbeddedBroker(port, tmp_path / "two.log"):
        broker.ensure_topics(["t"])
        for _ in range(5):  # each takes the id for itself anew
            with closing(broker.transactional_producer("another")) as another:
                another.begin()
                another.send("t", "k", b"another's")
                another.commit()
        with pytest.raises(UnavailableError, match="PRODUCER_FENCED"):
            attempt(b"refused")
    producer._seconds = 0.5
    for _ in range(2):  # no new client while the broker is away
        with pytest.raises(UnavailableError):
            attempt(b"to nobody")
    producer._seconds = 10.0
    with EmbeddedBroker(port, tmp_path / "three.log"), closing(producer):
        broker.ensure_topics(["t"])
        attempt(b"to three")
        with closing(broker.consumer(["t"])) as consumer:
            assert [r.value for r in read_to_end(consumer)] == [b"to three"]


@pytest.mark.integration
def test_a_broker_that_is_away_is_named_at_once(port):
    with pytest.raises(UnavailableError, match="COHOBATE_BOOTSTRAP_SERVERS"):
        KafkaProducer({"bootstrap.servers": f"127.0.0.1:{port}"}, f"127.0.0.1:{port}", 0.3)


def test_a_fatal_error_that_the_client_told_of_and_then_lost_is_raised():
    """As confluent-kafka does where a delivery report comes right behind the error."""
    from confluent_kafka import KafkaError

    class Client:
        def __len__(self):
            return 1

        def poll(self, seconds):
            if told:
                producer._noticed(KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED, "no PID", fatal=True))
            raise SystemError("<method 'poll'> returned NULL without setting an exception")

    producer = KafkaProducer.__new__(KafkaProducer)
    producer._address, producer._failures, producer._fatal, producer._client = "here", [], None, Client()
    producer._open = True
    told = False
    with pytest.raises(SystemError):
        producer.flush()
    told = True
    with pytest.raises(AccessError, match="CLUSTER_AUTHORIZATION_FAILED"):
        producer.flush()


class Slow:
    """A client whose buffer takes two records, and whose broker answers all of them with ``error``."""

    def __init__(self, error=None):
        self.error, self.waiting = error, []

    def __len__(self):
        return len(self.waiting)

    def produce(self, topic, value, key, on_delivery, headers):
        if len(self) == 2:
            raise BufferError
        self.waiting.append(on_delivery)

    def poll(self, seconds):
        reports, self.waiting = self.waiting, []
        for report in reports:
            report(self.error, None)
        return len(reports)

    def close(self):
        assert not self.waiting


@pytest.fixture
def slow(monkeypatch):
    """A producer whose first client's id a broker gave to another, and whose next ones are as they should be."""
    from confluent_kafka import KafkaError

    clients = iter((Slow(KafkaError(KafkaError.PRODUCER_FENCED)), Slow()))

    def opened(producer):
        producer._open = True
        return next(clients)

    monkeypatch.setattr(KafkaProducer, "_opened", opened)
    producer = KafkaProducer({}, "here")
    producer._known = {"t"}
    return producer


def test_records_that_were_refused_before_any_flush_are_told_of_by_the_next(slow):
    for value in (b"one", b"two", b"three"):  # the third waits for room, and so learns of the first two
        slow.send("t", "k", value)
    with pytest.raises(UnavailableError, match="PRODUCER_FENCED"):
        slow.flush()
    slow.send("t", "k", b"four")
    slow.flush()


def test_a_flush_tells_of_a_refused_record_once(slow):
    slow.send("t", "k", b"one")
    with pytest.raises(UnavailableError, match="PRODUCER_FENCED"):
        slow.flush()
    slow.send("t", "k", b"two")
    slow.flush()


def test_while_no_new_client_comes_about_an_unknown_topic_is_no_other_error(slow, monkeypatch):
    slow.send("t", "k", b"one")
    with pytest.raises(UnavailableError, match="PRODUCER_FENCED"):
        slow.flush()

    def away(producer):
        raise UnavailableError("Kafka", "here", "is the broker up?")

    monkeypatch.setattr(KafkaProducer, "_opened", away)
    for topic in ("t", "t", "unknown"):
        with pytest.raises(UnavailableError, match="is the broker up"):
            slow.send(topic, "k", b"two")
