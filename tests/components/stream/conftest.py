import contextlib

import pytest

from components.contracts.settings import Settings
from components.stream import open_broker
from components.stream.memory import MemoryBroker
from tests.ports import free_port


@pytest.fixture
def port():
    return free_port()


class Closing:
    def __init__(self, broker, opened):
        self._broker, self._opened = broker, opened
        self.ensure_topics, self.partitions = broker.ensure_topics, broker.partitions

    def producer(self):
        return self._opened.enter_context(contextlib.closing(self._broker.producer()))

    def transactional_producer(self, transactional_id):
        return self._opened.enter_context(contextlib.closing(self._broker.transactional_producer(transactional_id)))

    def consumer(self, *args, **options):
        return self._opened.enter_context(contextlib.closing(self._broker.consumer(*args, **options)))


@pytest.fixture(
    params=[
        "memory",
        pytest.param("embedded", marks=pytest.mark.integration),
        pytest.param("kafka", marks=pytest.mark.integration),
        pytest.param("secured", marks=pytest.mark.integration),
    ]
)
def broker(request):
    """A broker of each kind; what a test opens on it is closed when the test ends."""
    with contextlib.ExitStack() as opened:
        if request.param == "memory":
            yield Closing(MemoryBroker(), opened)
        elif request.param == "secured":
            yield Closing(open_broker(request.getfixturevalue("secured_kafka").settings()), opened)
        else:
            address = request.getfixturevalue(f"{request.param}_address")
            yield Closing(open_broker(Settings(bootstrap_servers=address)), opened)
