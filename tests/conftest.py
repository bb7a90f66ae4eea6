import pytest

from tests.secured_kafka import running


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory):
    """A real Kafka with SASL, TLS and ACLs, where there is one to start."""
    with running(tmp_path_factory.mktemp("secured")) as kafka:
        yield kafka
