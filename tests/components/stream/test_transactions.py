"""What transactions must do on every stream: in memory, on the embedded broker, and on a real Kafka.

Kafka answers a question for a group's positions only when no transaction holds new ones, so tests ask afterwards.

The embedded broker shows what was aborted, by hand or by a successor, to readers of committed records; positions it
drops as it should. Whoever takes over there must therefore look at what is visible, as the labeler does.
"""

import contextlib
import time
import uuid

import pytest

from components.contracts.errors import CohobateError, FencedError, LostPositionsError, NotFoundError, RecordError
from components.contracts.records import Input, encode
from components.contracts.spec import Factory, Label, Spec
from components.label.labeler import Labeler
from components.stream.contract import TopicPartition, read_to_end
from tests.bench._teachers import Trivial


@pytest.fixture
def topics(broker):
    """An input topic of one partition and an output topic of two."""
    name = f"x-{uuid.uuid4().hex[:8]}"
    broker.ensure_topics([f"{name}.in"])
    broker.ensure_topics([f"{name}.out"], partitions=2)
    return f"{name}.in", f"{name}.out"


def seen(broker, topic):
    return [r.value for r in read_to_end(broker.consumer([topic]))]


@pytest.fixture
def shows_leftovers(request):
    """Whether this broker shows what was aborted."""
    return request.node.callspec.params["broker"] == "embedded"


def standing(broker, topic, group):
    return broker.consumer([topic], group=group).positions()[TopicPartition(topic, 0)]


def put(broker, topic, n):
    producer = broker.producer()
    for i in range(n):
        producer.send(topic, "k", str(i).encode())
    producer.flush()
    return TopicPartition(topic, 0)


def test_records_and_positions_become_visible_together(broker, topics):
    source, out = topics
    place, group = put(broker, source, 5), f"{source}.g"
    writer = broker.transactional_producer(f"{source}.t")
    writer.begin()
    writer.send(out, "k", b"a", {"h": b"1"}, partition=1)
    writer.send_offsets(group, {place: 3})
    assert seen(broker, out) == []
    writer.commit()
    (record,) = read_to_end(broker.consumer([out]))
    assert (record.partition, record.key, record.value, record.headers) == (1, b"k", b"a", {"h": b"1"})
    assert standing(broker, source, group) == 3


def test_positions_count_without_a_record(broker, topics):
    source, out = topics
    place, group = put(broker, source, 9), f"{source}.g"
    writer = broker.transactional_producer(f"{source}.t")
    for position, records in ((1, 0), (2, 0), (3, 1), (4, 0), (5, 0)):
        writer.begin()
        for _ in range(records):
            writer.send(out, "k", b"a")
        writer.send_offsets(group, {place: position})
        writer.commit()
        assert standing(broker, source, group) == position


def test_what_is_aborted_never_was(broker, topics, shows_leftovers):
    source, out = topics
    place, group = put(broker, source, 5), f"{source}.g"
    writer = broker.transactional_producer(f"{source}.t")
    for end, position, value in ((writer.commit, 1, b"kept"), (writer.abort, 2, b"dropped"), (writer.commit, 3, b"on")):
        writer.begin()
        writer.send(out, "k", value)
        writer.send_offsets(group, {place: position})
        end()
    shown = [v for v in seen(broker, out) if not (shows_leftovers and v == b"dropped")]
    assert shown == [b"kept", b"on"] and standing(broker, source, group) == 3


def test_many_transactions_follow_each_other(broker, topics):
    _, out = topics
    writer = broker.transactional_producer(f"{out}.t")
    for i in range(25):
        writer.begin()
        writer.send(out, "k", b"%d" % i, partition=0)
        writer.commit()
    assert seen(broker, out) == [b"%d" % i for i in range(25)]


@pytest.mark.parametrize("moment", ["idle", "open", "late"])
def test_a_zombie_is_fenced_and_nothing_of_it_is_seen(broker, topics, moment, shows_leftovers):
    """The successor comes while its predecessor is idle, has a transaction open, or is about to commit one."""
    source, out = topics
    place, group = put(broker, source, 5), f"{source}.g"
    zombie = broker.transactional_producer(f"{source}.t")

    def begin():
        zombie.begin()
        zombie.send(out, "k", b"zombie", partition=0)

    if moment != "idle":
        begin()
    if moment == "late":
        zombie.send_offsets(group, {place: 4})
    successor = broker.transactional_producer(f"{source}.t")
    with pytest.raises(CohobateError) as refused:
        if moment == "idle":
            begin()
        if moment != "late":
            zombie.send_offsets(group, {place: 4})
        zombie.commit(timeout=3.0 if moment == "late" else 90.0)
    with contextlib.suppress(CohobateError):
        zombie.abort(timeout=1.0)
    left = [v for v in seen(broker, out) if shows_leftovers and moment != "idle"]
    assert set(left) <= {b"zombie"} and standing(broker, source, group) == 0
    assert seen(broker, out) == left
    successor.begin()
    successor.send(out, "k", b"successor", partition=0)
    successor.send_offsets(group, {place: 2})
    successor.commit()
    assert seen(broker, out) == [*left, b"successor"] and standing(broker, source, group) == 2
    # The embedded broker hangs up on a commit that comes too late, which looks like a broker that is away.
    assert isinstance(refused.value, FencedError) or moment == "late", refused.value


def test_a_reader_of_a_successor_sees_what_its_predecessor_committed(broker, topics, shows_leftovers):
    source, out = topics
    place, group = put(broker, source, 5), f"{source}.g"
    for i in range(5):
        writer = broker.transactional_producer(f"{source}.t")
        assert standing(broker, source, group) == i
        writer.begin()
        writer.send(out, "k", b"%d" % i, partition=0)
        writer.send_offsets(group, {place: i + 1})
        writer.commit()
        writer.begin()
        writer.send(out, "k", b"left open", partition=0)
        writer.send_offsets(group, {place: 99})
    broker.transactional_producer(f"{source}.t")
    shown = [v for v in seen(broker, out) if not (shows_leftovers and v == b"left open")]
    assert shown == [b"0", b"1", b"2", b"3", b"4"] and standing(broker, source, group) == 5


def test_what_does_not_exist_or_is_too_large_is_refused_when_it_is_sent(broker, topics):
    _, out = topics
    writer = broker.transactional_producer(f"{out}.t")
    writer.begin()
    with pytest.raises(NotFoundError, match="nowhere"):
        writer.send("nowhere.labels", "k", b"v")
    with pytest.raises(NotFoundError, match=f"{out}-7"):
        writer.send(out, "k", b"v", partition=7)
    with pytest.raises(RecordError, match="oversize"):
        writer.send(out, "k", b"x" * (4 * 1024 * 1024 + 1))
    writer.send(out, "k", b"small")
    writer.commit()
    assert seen(broker, out) == [b"small"]


def test_ends_are_those_of_what_is_committed_while_a_transaction_is_open(broker, topics, monkeypatch):
    monkeypatch.setattr("components.stream.kafka_consumer.STEP_MS", 1)  # no answer comes as fast: it is waited for
    _, out = topics
    place = TopicPartition(out, 0)
    reader = broker.consumer([out], partitions=[place])
    writer = broker.transactional_producer(f"{out}.t")
    for i in range(2):
        writer.begin()
        for n in range(5):
            writer.send(out, "k", b"%d %d" % (i, n), partition=0)
        writer.commit()
    assert len(list(read_to_end(reader))) == 10
    writer.begin()
    for n in range(40):
        writer.send(out, "k", b"open %d" % n, partition=0)
    time.sleep(0.3)
    end = reader.positions()[place]
    assert reader.ends() == {place: end} and reader.lag() <= 42
    fresh = broker.consumer([out], partitions=[place])
    assert fresh.ends() == {place: end} and len(list(read_to_end(fresh))) == 10
    assert broker.consumer([out], partitions=[place], start={place: end}).resets == 0
    writer.commit()
    assert len(list(read_to_end(reader))) == len(list(read_to_end(fresh))) == 40


def test_partitions_of_a_topic(broker, topics):
    source, out = topics
    assert broker.partitions(source) == [TopicPartition(source, 0)]
    assert broker.partitions(out) == [TopicPartition(out, 0), TopicPartition(out, 1)]
    assert broker.partitions("nowhere.inputs") == []


def test_a_lost_position_stops_who_asked_for_that(broker, topics):
    source, _ = topics
    place = put(broker, source, 2)
    reader = broker.consumer([source], group=f"{source}.g")
    reader.commit({place: 900})
    with pytest.raises(LostPositionsError, match=f"{source}-0 has no offset 900"):
        broker.consumer([source], group=f"{source}.g", on_lost="stop")


def test_an_open_transaction_holds_up_no_reader_of_other_records(broker, topics):
    source, out = topics
    writer = broker.transactional_producer(f"{source}.t")
    writer.begin()
    writer.send(out, "k", b"open", partition=0)
    producer = broker.producer()
    producer.send(source, "k", b"other")
    producer.flush()
    assert seen(broker, source) == [b"other"]
    writer.commit()  # it was open all the while: else the broker would have ended it
    assert seen(broker, out) == [b"open"]


def test_nothing_lags_behind_the_mark_of_a_transaction(broker, topics):
    source, _ = topics
    writer = broker.transactional_producer(f"{source}.t")
    for i in range(3):
        writer.begin()
        writer.send(source, "k", b"%d" % i, partition=0)
        writer.commit()
    reader = broker.consumer([source], group=source)
    records = list(read_to_end(reader))
    assert len(records) == 3 and reader.positions() == reader.ends() and reader.lag() == 0
    place = TopicPartition(source, 0)
    reader.commit({place: records[-1].offset + 1})
    again = broker.consumer([source], group=source)
    assert list(read_to_end(again)) == [] and again.positions() == again.ends() and again.lag() == 0


def test_a_labeler_of_inputs_that_were_written_in_transactions_has_no_lag_when_all_is_labelled(broker):
    spec = Spec(name=f"w{uuid.uuid4().hex[:8]}", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"),
                label=Label(batch=2, linger_seconds=0.0))  # fmt: skip
    for _ in range(2):
        with contextlib.closing(Labeler(spec, Trivial(), broker)) as labeler:
            writer, at = broker.transactional_producer(f"{spec.name}.t"), time.time()
            for i in range(3):
                writer.begin()
                entry = Input(workload=spec.name, id=f"{at}-{i}", key="k", time=at, payload=b"%d" % i)
                writer.send(spec.topic("inputs"), "k", encode(entry), partition=0)
                writer.commit()
            until(lambda labeler=labeler: labeler.counts["labelled"] == 3, labeler)
            until(lambda labeler=labeler: labeler.lag() == 0, labeler)
    with contextlib.closing(Labeler(spec, Trivial(), broker)) as labeler:
        until(lambda: labeler.gauge()["lag"] == 0, labeler)
        assert labeler.counts["labelled"] == 0


def until(holds, labeler, seconds=180.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, (labeler.counts, labeler.lag())
        labeler.step(0.1)
