"""What a broker that asks who one is says to right and wrong answers; on a real Kafka with SASL, TLS and ACLs."""

# ruff: noqa: S106, S107

import contextlib
import ssl
import time
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from components.contracts.errors import AccessError, NotFoundError
from components.stream import open_broker
from components.stream.contract import TopicPartition, read_to_end
from components.stream.kafka import client_config
from tests.secured_kafka import unsigned_token
from tests.servers import serving
from tests.waiting import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A broker that answers is heard however slow it is: what is not found out by asking would be waited for."""
    monkeypatch.setattr("components.stream.access.CONNECT_SECONDS", 1e5)


def round_trip(settings, values=(b"a", b"b")):
    """Create a topic, produce, consume and commit; returns what came back."""
    broker, topic = open_broker(settings), f"t-{uuid.uuid4().hex[:8]}"
    broker.ensure_topics([topic])
    with contextlib.closing(broker.producer()) as producer:
        for value in values:
            producer.send(topic, "k", value)
        producer.flush()
    with contextlib.closing(broker.consumer([topic], group=topic)) as consumer:
        taken, deadline = [], time.monotonic() + 180
        while len(taken) < len(values) and time.monotonic() < deadline:
            taken += [r.value for r in consumer.poll(timeout=0.2)]
        consumer.commit()
    return taken


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"sasl_mechanism": "SCRAM-SHA-256"},
        {"sasl_mechanism": "PLAIN", "sasl_username": "plain"},
    ],
    ids=["scram-512", "scram-256", "plain"],
)
def test_a_password_lets_us_in(secured_kafka, changed):
    assert round_trip(secured_kafka.settings(**changed)) == [b"a", b"b"]


def test_a_certificate_lets_us_in(secured_kafka):
    assert round_trip(secured_kafka.certified()) == [b"a", b"b"]


def test_a_token_from_a_file_lets_us_in(secured_kafka, tmp_path):
    (tmp_path / "token").write_text(unsigned_token("oauth", 600) + "\n")
    assert round_trip(secured_kafka.oauth(sasl_oauth_token_file=tmp_path / "token")) == [b"a", b"b"]


def test_a_transaction_over_scram_and_tls(secured_kafka):
    from kafka import KafkaProducer

    settings, topic = secured_kafka.settings(), f"tx-{uuid.uuid4().hex[:8]}"
    broker = open_broker(settings)
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
        assert [r.value for r in read_to_end(consumer)] == [b"kept"] and consumer.lag() == 0


REFUSED = {
    "wrong password": ("password", "COHOBATE_SASL_PASSWORD", lambda k: k.settings(sasl_password="hunter2")),
    "wrong password of PLAIN": (
        "password",
        "COHOBATE_SASL_PASSWORD",
        lambda k: k.settings(sasl_mechanism="PLAIN", sasl_username="plain", sasl_password="hunter2"),
    ),
    "token that ended": (
        "token",
        "COHOBATE_SASL_OAUTH_TOKEN",
        lambda k: k.oauth(sasl_oauth_token=unsigned_token("oauth", -60)),
    ),
    "wrong CA": ("authority", "COHOBATE_SSL_CAFILE", lambda k: k.settings(ssl_cafile=k.folder / "other-ca.pem")),
    "the system's CAs": ("authority", "COHOBATE_SSL_CAFILE", lambda k: k.settings(ssl_cafile=None)),
    "host that the certificate does not name": (
        "hostname",
        "COHOBATE_BOOTSTRAP_SERVERS",
        lambda k: k.settings(bootstrap_servers=f"127.0.0.1:{k.secured}"),
    ),
    "no certificate of ours": (
        "certificate",
        "COHOBATE_SSL_CERTFILE",
        lambda k: k.certified(ssl_certfile=None, ssl_keyfile=None, ssl_password=None),
    ),
    "certificate of another authority": (
        "certificate",
        "COHOBATE_SSL_CERTFILE",
        lambda k: k.certified(ssl_certfile=k.folder / "other-client.pem", ssl_keyfile=None, ssl_password=None),
    ),
    "TLS without SASL": (
        "protocol",
        "COHOBATE_SECURITY_PROTOCOL",
        lambda k: k.settings(security_protocol="SSL", sasl_mechanism=None),
    ),
    "SASL without TLS": (
        "protocol",
        "COHOBATE_SECURITY_PROTOCOL",
        lambda k: k.settings(security_protocol="SASL_PLAINTEXT"),
    ),
    "TLS where there is none": (
        "protocol",
        "COHOBATE_SECURITY_PROTOCOL",
        lambda k: k.settings(bootstrap_servers=f"localhost:{k.internal}"),
    ),
    "SASL where there is none": (
        "protocol",
        "COHOBATE_SECURITY_PROTOCOL",
        lambda k: k.settings(
            bootstrap_servers=f"localhost:{k.mtls}", ssl_certfile=k.folder / "server.pem", ssl_keyfile=None
        ),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_told_by_its_cause_and_names_its_remedy(secured_kafka, case):
    cause, remedy, settings = REFUSED[case]
    broker = open_broker(settings(secured_kafka))
    for act in (lambda: broker.ensure_topics(["t"]), broker.producer, lambda: broker.consumer(["t"])):
        with pytest.raises(AccessError) as refusal:
            act()
        assert refusal.value.cause == cause and remedy in refusal.value.remedy
        assert "hunter2" not in str(refusal.value)


def test_a_mechanism_that_is_not_enabled_is_told_from_a_wrong_password(secured_kafka, monkeypatch):
    broker = open_broker(secured_kafka.settings())
    broker.config["sasl_mechanism"] = "SCRAM-SHA-1024"
    with pytest.raises(AccessError, match="OAUTHBEARER") as refusal:
        broker.producer()
    assert refusal.value.cause == "mechanism" and "COHOBATE_SASL_MECHANISM" in refusal.value.remedy


def test_a_host_name_may_go_unchecked_on_demand(secured_kafka):
    settings = secured_kafka.settings(bootstrap_servers=f"127.0.0.1:{secured_kafka.secured}", ssl_check_hostname=False)
    assert round_trip(settings) == [b"a", b"b"]


def test_what_an_acl_denies_is_named(secured_kafka):
    from kafka import KafkaAdminClient
    from kafka.admin import ACL, ACLFilter, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

    seen, unseen = f"acl-{uuid.uuid4().hex[:8]}", f"acl-{uuid.uuid4().hex[:8]}"
    open_broker(secured_kafka.settings()).ensure_topics([seen, unseen])
    with contextlib.closing(KafkaAdminClient(**client_config(secured_kafka.settings()))) as admin:
        topic = ResourcePattern(ResourceType.TOPIC, seen)
        admin.create_acls([ACL("User:stranger", "*", ACLOperation.DESCRIBE, ACLPermissionType.ALLOW, topic)])
        asked = ACLFilter("User:stranger", "*", ACLOperation.ANY, ACLPermissionType.ANY, topic)
        wait_for(lambda: admin.describe_acls(asked)[0])  # the broker hears of it from the controller
    broker = open_broker(secured_kafka.settings(sasl_username="stranger"))
    with pytest.raises(AccessError, match="TopicAuthorizationFailedError") as refusal:
        broker.ensure_topics([f"{seen}.new"])
    assert refusal.value.cause == "permission" and "kafka-acls" in refusal.value.remedy
    with contextlib.closing(broker.producer()) as producer:
        with pytest.raises(AccessError, match="permission"):
            producer.send(seen, "k", b"v")
            producer.flush()
        with pytest.raises(NotFoundError, match="ACL to describe"):
            producer.send(unseen, "k", b"v")
    with contextlib.closing(broker.consumer([seen])) as consumer, pytest.raises(AccessError, match="permission"):
        for _ in range(200):
            consumer.poll(timeout=0.2)
    with pytest.raises(AccessError, match="permission"):
        broker.consumer([seen], group="not-mine")


class TokenEndpoint(BaseHTTPRequestHandler):
    """An OIDC token endpoint for one client; a token is good for ten minutes, and said to be for ``life`` seconds."""

    life, secret, issued = 600.0, "client-secret", 0

    def do_POST(self):
        from base64 import b64decode

        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        who = b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
        good = who == f"me:{self.secret}" and "grant_type=client_credentials" in form and "scope=kafka" in form
        cls = type(self)
        cls.issued += good
        token = unsigned_token("oauth", 600.0)
        body = f'{{"access_token":"{token}","token_type":"Bearer","expires_in":{self.life}}}'
        self.send_response(200 if good else 401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write((body if good else '{"error":"invalid_client"}').encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint(secured_kafka):
    class Mine(TokenEndpoint):
        pass

    with HTTPServer(("127.0.0.1", 0), Mine) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(secured_kafka.folder / "endpoint.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with serving(server):
            yield Mine, f"https://localhost:{server.server_port}/token"


def credentials(url, secret="client-secret"):
    return {
        "sasl_oauth_token_url": url,
        "sasl_oauth_client_id": "me",
        "sasl_oauth_client_secret": secret,
        "sasl_oauth_scope": "kafka",
    }


def test_a_token_is_fetched_once_for_all_connections(secured_kafka, endpoint):
    idp, url = endpoint
    assert round_trip(secured_kafka.oauth(**credentials(url))) == [b"a", b"b"]
    assert idp.issued == 1


def test_a_token_is_renewed_before_it_ends(secured_kafka, endpoint, monkeypatch):
    """A producer that works on fetches more by itself. The broker takes them for longer than they are said to be good:
    one that really ended would be refused after a pause of this machine."""
    idp, url = endpoint
    idp.life = 6.0
    monkeypatch.setattr("components.stream.kafka_producer._end_of", lambda _, now: now + 6.0)
    broker, topic = open_broker(secured_kafka.oauth(**credentials(url))), f"t-{uuid.uuid4().hex[:8]}"
    broker.ensure_topics([topic])
    with contextlib.closing(broker.producer()) as producer:
        deadline = time.monotonic() + 240
        while idp.issued < 3:
            assert time.monotonic() < deadline
            producer.send(topic, "k", b"v")
            producer.flush()
            time.sleep(0.1)
        producer.send(topic, "k", b"v")
        producer.flush()


def test_an_endpoint_that_refuses_is_named_without_the_secret(secured_kafka, endpoint):
    _, url = endpoint
    with pytest.raises(AccessError, match="COHOBATE_SASL_OAUTH_CLIENT_ID") as refusal:
        open_broker(secured_kafka.oauth(**credentials(url, secret="hunter2"))).producer()
    assert refusal.value.cause == "token" and "hunter2" not in str(refusal.value)
