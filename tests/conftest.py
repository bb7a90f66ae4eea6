import pytest

from components.control.store import ControlStore
from tests.secured_kafka import running


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
