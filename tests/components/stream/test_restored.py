import socket

import pytest

from components.contracts.errors import UnavailableError
from components.contracts.settings import Settings
from components.stream import open_broker
from components.stream.restored import copy_of, note


def test_a_broker_that_ended_before_it_had_its_records_back_is_not_waited_for(tmp_path, port):
    settings = Settings(home=tmp_path, broker_port=port)
    broker = open_broker(settings)
    note(copy_of(settings), restored=False)
    for opening in (broker.producer, lambda: broker.transactional_producer("worker")):
        with socket.create_server(("127.0.0.1", port)), pytest.raises(UnavailableError, match="in a moment"):
            opening()
        with pytest.raises(UnavailableError, match=r"is the broker up\?.*'cohobate up'"):
            opening()
