"""A real Apache Kafka that asks who one is: SASL over TLS on one port, TLS with client certificates on another."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from components.contracts.settings import Settings
from tests.java import ENVIRONMENT
from tests.ports import free_ports

PASSWORD = "correct-horse-battery"  # noqa: S105
LOGIN = "org.apache.kafka.common.security"

CONF = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=MTLS://127.0.0.1:{mtls},INTERNAL://127.0.0.1:{internal},CONTROLLER://127.0.0.1:{controller},SECURED://{address}:{secured}
advertised.listeners=MTLS://localhost:{mtls},SECURED://{name}:{secured},INTERNAL://127.0.0.1:{internal}
listener.security.protocol.map=MTLS:SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
log.dirs={folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.mtls.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.secured.connections.max.reauth.ms=600000
listener.name.secured.scram-sha-256.sasl.jaas.config={login}.scram.ScramLoginModule required;
listener.name.secured.scram-sha-512.sasl.jaas.config={login}.scram.ScramLoginModule required;
listener.name.secured.plain.sasl.jaas.config={login}.plain.PlainLoginModule required user_plain="{password}";
listener.name.secured.oauthbearer.sasl.jaas.config={login}.oauthbearer.OAuthBearerLoginModule required \\
  unsecuredLoginStringClaim_sub="broker";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;{supers}User:scram;User:plain;User:oauth;User:CN=worker
ssl.principal.mapping.rules=RULE:^.*CN=([^,]+).*$/CN=$1/,DEFAULT
"""


@dataclass(frozen=True)
class SecuredKafka:
    """Where it is, and how each kind of client gets in. Users: scram, plain, oauth, and ``stranger``, with no ACL."""

    folder: Path
    secured: int
    mtls: int
    internal: int
    name: str = "localhost"

    @property
    def cafile(self) -> Path:
        return self.folder / "ca.pem"

    def settings(self, **changed) -> Settings:
        """SCRAM over TLS as a super user, but for what is changed."""
        given = {
            "bootstrap_servers": f"{self.name}:{self.secured}",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": "scram",
            "sasl_password": PASSWORD,
            "ssl_cafile": self.cafile,
        }
        return Settings(**given | changed)

    def oauth(self, **changed) -> Settings:
        return self.settings(sasl_mechanism="OAUTHBEARER", sasl_username=None, sasl_password=None, **changed)

    def certified(self, **changed) -> Settings:
        """TLS with a client certificate."""
        given = {
            "bootstrap_servers": f"localhost:{self.mtls}",
            "security_protocol": "SSL",
            "ssl_cafile": self.cafile,
            "ssl_certfile": self.folder / "client.pem",
            "ssl_keyfile": self.folder / "client.key",
            "ssl_password": PASSWORD,
        }
        return Settings(**given | changed)


def unsigned_token(subject: str, life: float) -> str:
    """A token that Kafka's validator for tests takes: a JWS with no signature."""
    now = time.time()

    def part(of: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(of).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part({'sub': subject, 'iat': now, 'exp': now + life})}."


def write_certificates(folder: Path, names: Sequence[str] = ("localhost",)) -> None:
    """The authority, the broker's certificate for ``names`` only, and a client's with an encrypted key."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    other = trustme.CA()
    other.cert_pem.write_to_path(str(folder / "other-ca.pem"))
    other.issue_cert("worker@test", common_name="worker").private_key_and_cert_chain_pem.write_to_path(
        str(folder / "other-client.pem")
    )
    server, client = authority.issue_cert(*names), authority.issue_cert("worker@test", common_name="worker")
    chain = b"".join(blob.bytes() for blob in server.cert_chain_pems)
    (folder / "server.pem").write_bytes(_key(server, serialization.NoEncryption()) + chain)
    (folder / "client.pem").write_bytes(b"".join(blob.bytes() for blob in client.cert_chain_pems))
    locked = serialization.BestAvailableEncryption(PASSWORD.encode())
    (folder / "client.key").write_bytes(_key(client, locked))
    (folder / "endpoint.pem").write_bytes(_key(server, serialization.NoEncryption()) + chain)


def _key(leaf: trustme.LeafCert, encryption: serialization.KeySerializationEncryption) -> bytes:
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@contextlib.contextmanager
def running(folder: Path, **options):
    """A running :class:`SecuredKafka`, with the options of :func:`start`."""
    started = start(folder, **options)
    try:
        yield started
    finally:
        stop(folder)


def start(
    folder: Path,
    *,
    address: str = "127.0.0.1",
    names: Sequence[str] = ("localhost",),
    port: int | None = None,
    users: Sequence[str] = (),
) -> SecuredKafka:
    """Start one; skips where there is no Kafka to start, or no Java to run it with.

    Of its ports the one with SASL listens at ``address``; by the first of its ``names`` it tells clients where it is.
    ``users`` may do everything, as ``scram`` may.
    """
    home = Path(os.environ.get("COHOBATE_TEST_KAFKA", "none"))
    script = home / "kafka"
    if not script.is_file():
        pytest.skip("COHOBATE_TEST_KAFKA names no folder with a script 'kafka': no broker that asks for SASL and TLS")
    if shutil.which("java") is None:
        pytest.skip("COHOBATE_TEST_KAFKA names a folder, but there is no java to run Kafka with")
    write_certificates(folder, names)
    secured, mtls, internal, controller = free_ports(4)
    secured = port or secured
    conf = folder / "server.properties"
    conf.write_text(
        CONF.format(secured=secured, mtls=mtls, internal=internal, controller=controller, folder=folder,
                    login=LOGIN, password=PASSWORD, address=address, name=names[0],
                    supers="".join(f"User:{user};" for user in users))
    )  # fmt: skip
    users = [
        f"{mechanism}=[name={name},password={PASSWORD}]"
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        for name in ("scram", "stranger", *users)
    ]
    java = ["java", "-Xmx128m", f"-Dlog4j2.configurationFile={home}/log4j2.properties", "-cp", f"{home}/lib/*"]
    cluster = base64.urlsafe_b64encode(b"K" + os.urandom(15)).decode().rstrip("=")  # a leading dash is an option
    env = {**ENVIRONMENT, **os.environ}
    subprocess.run(
        [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(conf),
         *(part for user in users for part in ("--add-scram", user))],
        check=True, capture_output=True, timeout=150, env=env,
    )  # fmt: skip
    subprocess.run([script, "start", str(folder)], env=env, stdout=subprocess.DEVNULL, check=True, timeout=150)
    return SecuredKafka(folder, secured, mtls, internal, names[0])


def stop(folder: Path) -> None:
    """End one, whose data is thrown away."""
    subprocess.run([Path(os.environ["COHOBATE_TEST_KAFKA"]) / "kafka", "kill", str(folder)], check=True, timeout=150)
