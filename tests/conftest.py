import warnings

import pytest

from tests.secured_kafka import running


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory):
    """A real Kafka with SASL, TLS and ACLs, where there is one to start."""
    with warnings.catch_warnings():  # its import reads resources in a way that Python 3.11 calls deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        import kafka
    with running(tmp_path_factory.mktemp("secured")) as kafka:
        yield kafka
