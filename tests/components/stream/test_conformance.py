"""What every stream must do: in memory, on the embedded broker, and on a real Kafka where one is named,
in plain text and by SCRAM over TLS."""

import logging
import threading
import time
import uuid

import pytest

from components.contracts.errors import NotFoundError, RecordError
from components.stream.contract import TopicPartition, read_to_end


@pytest.fixture
def topic(broker):
    name = f"t-{uuid.uuid4().hex[:8]}.inputs"
    broker.ensure_topics([name], partitions=1)
    return name


def put(broker, topic, values, key="k"):
    producer = broker.producer()
    for value in values:
        producer.send(topic, key, value)
    producer.flush()
    producer.close()


PATIENCE = 180.0
"""Seconds for what takes some milliseconds on a machine that has nothing else to do."""


def take(consumer, n, seconds=PATIENCE):
    """``n`` values, or fewer when they do not come in time."""
    taken, deadline = [], time.monotonic() + seconds
    while len(taken) < n and time.monotonic() < deadline:
        taken += consumer.poll(max_records=n - len(taken), timeout=0.2)
    return taken


def values(records):
    return [r.value for r in records]


def test_a_record_comes_back_as_it_was_sent(broker, topic):
    producer, before = broker.producer(), time.time()
    producer.send(topic, "schlüssel", b"\x00\xff value", {"h": b"1", "empty": b""})
    producer.send(topic, None, b"no key")
    producer.flush()
    first, second = take(broker.consumer([topic]), 2)
    assert (first.topic, first.partition, first.offset) == (topic, 0, 0)
    assert (first.key, first.value, first.headers) == (
        "schlüssel".encode(),
        b"\x00\xff value",
        {"h": b"1", "empty": b""},
    )
    assert before - 1 <= first.timestamp <= time.time() + 1
    assert (second.key, second.value, second.headers, second.offset) == (None, b"no key", {}, 1)


def test_a_tombstone_is_no_empty_value(broker, topic):
    producer = broker.producer()
    producer.send(topic, "taken back", None, {"why": None, "who": b""})
    producer.send(topic, "no bytes", b"")
    producer.send(topic, None, None)
    producer.flush()
    records = take(broker.consumer([topic]), 3)
    assert values(records) == [None, b"", None]
    assert [r.key for r in records] == [b"taken back", b"no bytes", None]
    assert records[0].headers == {"why": None, "who": b""}


def test_equal_keys_keep_their_order_over_partitions(broker):
    topic = f"t-{uuid.uuid4().hex[:8]}"
    broker.ensure_topics([topic], partitions=3)
    producer = broker.producer()
    for i in range(60):
        producer.send(topic, f"key-{i % 6}", str(i).encode())
    producer.flush()
    records = take(broker.consumer([topic]), 60)
    assert {r.partition for r in records} <= {0, 1, 2} and len({r.partition for r in records}) > 1
    for n in range(6):
        mine = [int(r.value) for r in records if r.key == f"key-{n}".encode()]
        assert mine == list(range(n, 60, 6)), "every record of a key, in the order it was sent"


def test_creating_topics_twice_changes_nothing(broker, topic):
    put(broker, topic, [b"a"])
    broker.ensure_topics([topic, topic + ".dlq"], partitions=4)
    broker.ensure_topics([topic + ".dlq"])
    assert values(take(broker.consumer([topic]), 1)) == [b"a"]
    assert len(broker.consumer([topic]).positions()) == 1
    assert len(broker.consumer([topic + ".dlq"]).positions()) == 4


def test_a_group_goes_on_where_it_committed(broker, topic):
    put(broker, topic, [b"0", b"1", b"2", b"3"])
    reader = broker.consumer([topic], group=f"{topic}.g")
    assert values(take(reader, 2)) == [b"0", b"1"]
    reader.commit()
    assert values(take(reader, 1)) == [b"2"], "read, but not committed"
    reader.close()
    again = broker.consumer([topic], group=f"{topic}.g", start="latest")
    assert values(take(again, 2)) == [b"2", b"3"], "what was not committed comes again, whatever 'start' says"
    other = broker.consumer([topic], group=f"{topic}.other")
    assert other.positions() == {TopicPartition(topic, 0): 0}, "groups do not see each other"


def test_positions_can_be_committed_by_hand(broker, topic):
    put(broker, topic, [b"0", b"1", b"2"])
    reader = broker.consumer([topic], group=f"{topic}.g")
    take(reader, 3)
    reader.commit({TopicPartition(topic, 0): 1})
    reader.close()
    assert values(take(broker.consumer([topic], group=f"{topic}.g"), 2)) == [b"1", b"2"]


def test_no_group_no_commit(broker, topic):
    with pytest.raises(ValueError, match="group"):
        broker.consumer([topic]).commit()


@pytest.mark.parametrize("batch", [1, 7])
def test_start_positions(broker, topic, batch):
    for n in range(0, 14, batch):
        put(broker, topic, [str(i).encode() for i in range(n, n + batch)])
    place = TopicPartition(topic, 0)
    assert broker.consumer([topic]).positions() == {place: 0}
    assert broker.consumer([topic], start="latest").positions() == {place: 14}
    assert values(take(broker.consumer([topic], start={place: 12}), 2)) == [b"12", b"13"]
    assert broker.consumer([topic], start={place: 14}).positions() == {place: 14}
    assert broker.consumer([topic], start={}).positions() == {place: 0}, "a partition not named starts at the first"


def test_only_the_partitions_asked_for(broker):
    topic = f"t-{uuid.uuid4().hex[:8]}"
    broker.ensure_topics([topic], partitions=3)
    consumer = broker.consumer([topic], partitions=[TopicPartition(topic, 1)])
    assert consumer.positions() == {TopicPartition(topic, 1): 0}


def test_ends_and_lag(broker, topic):
    place = TopicPartition(topic, 0)
    consumer = broker.consumer([topic])
    assert consumer.ends() == {place: 0} and consumer.lag() == 0
    put(broker, topic, [b"a", b"b", b"c"])
    assert consumer.ends() == {place: 3} and consumer.lag() >= 1
    assert consumer.positions() == {place: 0}, "asking for ends reads nothing"
    assert len(take(consumer, 2)) == 2 and consumer.lag() == 1
    assert len(take(consumer, 1)) == 1 and consumer.lag() == 0


def test_read_to_end_stops_at_the_end(broker, topic):
    put(broker, topic, [b"a", b"b"])
    put(broker, topic, [b"c"])
    consumer = broker.consumer([topic])
    assert values(read_to_end(consumer)) == [b"a", b"b", b"c"]
    assert list(read_to_end(consumer)) == []
    put(broker, topic, [b"d"])
    assert values(read_to_end(consumer)) == [b"d"]


def test_poll_waits_for_the_first_record_and_no_longer(broker, topic):
    consumer, late = broker.consumer([topic]), broker.producer()
    started = time.monotonic()
    assert consumer.poll(timeout=0.2) == []
    assert time.monotonic() - started > 0.1

    def send() -> None:
        late.send(topic, "k", b"late")
        late.flush()

    timer = threading.Timer(0.2, send)
    timer.start()
    # With this patience the test would time out if it waited any longer.
    assert values(consumer.poll(timeout=1e5)) == [b"late"]
    timer.join()


def test_poll_gives_no_more_than_asked_and_skips_none(broker, topic):
    put(broker, topic, [bytes([i]) for i in range(50)])
    consumer, sizes, seen = broker.consumer([topic]), [], []
    while len(seen) < 50:
        batch = consumer.poll(max_records=8, timeout=1.0)
        sizes.append(len(batch))
        seen += values(batch)
    assert max(sizes) <= 8 and seen == [bytes([i]) for i in range(50)]


def test_a_committed_position_that_is_lost_is_read_from_the_earliest_with_a_warning(broker, topic, caplog):
    put(broker, topic, [b"a", b"b"])
    broken = broker.consumer([topic], group=f"{topic}.g")
    broken.commit({TopicPartition(topic, 0): 900})
    broken.close()
    with caplog.at_level(logging.WARNING):
        consumer = broker.consumer([topic], group=f"{topic}.g")
    assert consumer.resets == 1 and "900" in caplog.text
    assert values(take(consumer, 2)) == [b"a", b"b"]


def test_a_start_position_that_is_lost_is_counted_too(broker, topic):
    put(broker, topic, [b"a"])
    consumer = broker.consumer([topic], start={TopicPartition(topic, 0): 5})
    assert consumer.resets == 1 and consumer.positions() == {TopicPartition(topic, 0): 0}


def test_a_missing_topic_is_named(broker, monkeypatch):
    monkeypatch.setattr("components.stream.kafka_consumer.METADATA_SECONDS", 0.3)
    monkeypatch.setattr("components.stream.kafka.METADATA_SECONDS", 1.0)
    with pytest.raises(NotFoundError, match="nowhere"):
        broker.consumer(["nowhere.inputs"])
    with pytest.raises(NotFoundError, match="nowhere"):
        broker.producer().send("nowhere.inputs", "k", b"v")


def test_two_threads_share_a_producer(broker, topic):
    producer = broker.producer()

    def send(name: str) -> None:
        for i in range(50):
            producer.send(topic, name, str(i).encode())

    threads = [threading.Thread(target=send, args=(n,)) for n in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    producer.flush()
    records = take(broker.consumer([topic]), 100)
    for name in (b"a", b"b"):
        assert [int(r.value) for r in records if r.key == name] == list(range(50))


def test_a_record_too_large_is_refused_when_it_is_sent(broker, topic):
    big = b"x" * (4 * 1024 * 1024 + 1)
    producer = broker.producer()
    with pytest.raises(RecordError, match="oversize"):
        producer.send(topic, "k", big)
    producer.send(topic, "k", b"x" * 3_000_000)
    producer.flush()
    assert [len(r.value) for r in take(broker.consumer([topic]), 1)] == [3_000_000]
