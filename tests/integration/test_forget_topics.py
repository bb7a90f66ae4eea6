"""Records that are erased from a broker: they are gone for every reader and from its disk, and nothing else moves."""

import contextlib
import threading

import pytest

from components.contracts.records import Input, encode
from components.contracts.settings import Settings
from components.stream import open_broker
from components.stream.contract import TopicPartition, read_to_end
from infra.broker import EmbeddedBroker, ask_to_erase
from tests.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(170)]

TOPIC = "files.inputs"


def test_the_embedded_broker_is_given_its_records_without_those_that_are_erased(tmp_path):
    port, keep = free_port(), tmp_path / "broker"
    stream = open_broker(Settings(home=tmp_path, broker_port=port))
    with EmbeddedBroker(port, tmp_path / "broker.log", keep) as broker:
        stream.ensure_topics([TOPIC], 2)
        with contextlib.closing(stream.producer()) as producer:
            for i in range(60):
                key = "person-7731" if i % 7 == 0 else f"entity-{i % 5}"
                said = f"{key} said {i}".encode()
                given = Input(workload="files", id=f"{key}/{i}", key=key, time=1.0 + i, payload=said)
                producer.send(TOPIC, key, encode(given))
            producer.flush()
        with contextlib.closing(stream.transactional_producer("t")) as transactions:
            transactions.begin()
            transactions.send(TOPIC, "entity-1", b"committed")
            transactions.commit()
        before, group = read(stream), positions(stream)
        gone = [r for r in before if r.key == b"person-7731"]
        places = {}
        for record in gone:
            places.setdefault(record.place, []).append(record.offset)
        # the broker ends with the thread that started it: another one asks
        asking = threading.Thread(target=ask_to_erase, args=(keep, places, lambda: True))
        asking.start()
        while asking.is_alive():
            broker.tend()
        asking.join()
        after = read(stream)
        assert after == [r for r in before if r.key != b"person-7731"], "all others, each at its offset"
        assert positions(stream) == group
        with contextlib.closing(stream.producer()) as producer:
            producer.send(TOPIC, "entity-1", b"later")
            producer.flush()
        assert len(read(stream)) == len(after) + 1
    assert not any(b"person-7731" in path.read_bytes() for path in keep.rglob("*") if path.is_file())
    with EmbeddedBroker(port, tmp_path / "broker.log", keep):
        again = read(stream)
        assert [r for r in again if r.value != b"later"] == after and len(again) == len(after) + 1


def read(stream):
    with contextlib.closing(stream.consumer([TOPIC])) as consumer:
        return sorted(read_to_end(consumer))


def positions(stream):
    """Of a group that stands in the middle of what there is."""
    middle = {TopicPartition(TOPIC, 0): 5, TopicPartition(TOPIC, 1): 5}
    with contextlib.closing(stream.consumer([TOPIC], group="g")) as consumer:
        if all(at == 0 for at in consumer.positions().values()):
            consumer.commit(middle)
            return middle
        return consumer.positions()
