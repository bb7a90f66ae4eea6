import warnings

import pytest

from components.control.store import ControlStore
from tests.secured_kafka import running

with warnings.catch_warnings():  # its import reads resources in a way that Python 3.11 calls deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.net.inet import KafkaNetSocket


@pytest.fixture(scope="session", autouse=True)
def sockets_given_up_are_closed():
    """Where a client is closed while it connects, kafka-python drops the socket, and CPython warns and closes it.

    The warning is an error here, of whatever test runs when the garbage is collected.
    """
    connect = KafkaNetSocket.sock_connect

    async def closing(self, net, sock, address, timeout_at=None):
        try:
            return await connect(self, net, sock, address, timeout_at=timeout_at)
        except BaseException:
            sock.close()
            raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KafkaNetSocket, "sock_connect", closing)
        yield


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory):
    """A real Kafka with SASL, TLS and ACLs, where there is one to start."""
    with running(tmp_path_factory.mktemp("secured")) as kafka:
        yield kafka


@pytest.fixture
def store(tmp_path):
    """A control database of the test's own, at its newest schema."""
    store = ControlStore(f"sqlite:///{tmp_path}/control.db")
    store.migrate()
    yield store
    store.close()
