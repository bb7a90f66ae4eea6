import socket

import pytest
from kafka.net.inet import KafkaNetSocket

from components.control.store import ControlStore
from tests.secured_kafka import running


class SelfClosing(socket.socket):
    """Closed without a warning when nothing refers to it any more."""

    def __del__(self):
        self.close()


@pytest.fixture(scope="session", autouse=True)
def sockets_given_up_close_themselves():
    """A client that is closed while it connects or sends drops its socket: kafka-python leaves that to CPython.

    CPython closes it too, but with a warning, which is an error here, of whatever test runs at that moment.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KafkaNetSocket, "socket", lambda _, *kind: SelfClosing(*kind))
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
