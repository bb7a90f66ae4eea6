"""Records that are erased from a broker: they are gone for every reader and from its disk, and nothing else moves."""

import contextlib
import threading
import uuid

import pytest

from components.contracts.errors import OrderError
from components.contracts.records import Input, encode
from components.contracts.settings import Settings
from components.contracts.spec import Factory, Spec
from components.control.tables import WindowRow
from components.forget.kafka import delete
from components.stream import open_broker
from components.stream.contract import TopicPartition, read_to_end
from components.stream.kafka import KafkaBroker
from infra.broker import EmbeddedBroker, ask_to_erase
from tests.ports import free_port

pytestmark = pytest.mark.integration

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


@pytest.fixture
def kafka(kafka_address, tmp_path):
    """A workload of its own on a real Kafka."""
    name = f"w{uuid.uuid4().hex[:12]}"
    spec = Spec(name=name, teacher=Factory(factory="t:T"), features=Factory(factory="f:F"))
    stream = KafkaBroker(Settings(bootstrap_servers=kafka_address))
    stream.ensure_topics(spec.topics, 1)
    return spec, stream


def sent(spec, stream, kind, n=6, own=(1, 3)):
    """Records of which some are the entity's; their places."""
    place = TopicPartition(spec.topic(kind), 0)
    with contextlib.closing(stream.producer()) as producer:
        for i in range(n):
            key = "person-7731" if i in own else f"entity-{i}"
            producer.send(place.topic, key, f"{key} said {i}".encode())
        producer.flush()
    return {place: list(own)}


def left(spec, stream, kind):
    with contextlib.closing(stream.consumer([spec.topic(kind)])) as consumer:
        return [(r.key.decode(), r.value.decode()) for r in read_to_end(consumer)]


def test_kafka_deletes_inputs_when_the_labelers_have_read_them(kafka, store):
    spec, stream = kafka
    places = sent(spec, stream, "inputs")
    with pytest.raises(OrderError, match="labelers have not read it yet"):
        delete(spec, store, stream, places)
    assert len(left(spec, stream, "inputs")) == 6
    (place,) = places
    with contextlib.closing(stream.consumer([place.topic], group=f"{spec.name}.labeler")) as consumer:
        consumer.commit({place: 4})
    delete(spec, store, stream, places)
    assert left(spec, stream, "inputs") == [(f"entity-{i}", f"entity-{i} said {i}") for i in (4, 5)]
    delete(spec, store, stream, places)  # again changes nothing


def test_kafka_deletes_labels_when_a_window_has_frozen_them(kafka, store):
    spec, stream = kafka
    places = sent(spec, stream, "labels")
    with pytest.raises(OrderError, match="run the pipeline 'continual'"):
        delete(spec, store, stream, places)
    (place,) = places
    anchors = {place.name: [5, "digest"]}
    row = WindowRow(
        digest="d", workload=spec.name, number=1, uri="u", rows=1, created_at=1.0, manifest={"anchors": anchors}
    )
    store.add_window(row)
    delete(spec, store, stream, places)
    assert [value for _, value in left(spec, stream, "labels")] == ["entity-4 said 4", "entity-5 said 5"]


def test_kafka_keeps_the_letters_of_others(kafka, store):
    spec, stream = kafka
    delete(spec, store, stream, sent(spec, stream, "inputs.dlq"))
    found = left(spec, stream, "inputs.dlq")
    assert sorted(found) == [(f"entity-{i}", f"entity-{i} said {i}") for i in (0, 2, 4, 5)]
