"""A broker that keeps its records: what is there after it was stopped, or killed, and started again."""

import contextlib
import os
import pkgutil
import signal
import threading

import msgspec
import pytest

from components.contracts.errors import UnavailableError
from components.contracts.records import Input, Label, SoftLabel, decode, encode
from components.contracts.settings import Settings
from components.contracts.spec import Factory, Payload, Spec
from components.contracts.spec import Label as LabelSection
from components.label.labeler import Labeler
from components.snapshot.reading import read_new
from components.stream import open_broker
from components.stream.contract import TopicPartition, read_to_end
from components.stream.restored import note
from infra.broker import EmbeddedBroker
from infra.broker_copy import BrokerCopy
from infra.broker_log import LOST_ROOM, BrokerLog
from tests.ports import free_port
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

TOPICS = {"t": 2, "l": 1}


class Home:
    """A folder for the records, and the settings of a broker that keeps them there."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.settings = Settings(home=folder, broker_port=self.port)
        self.stream = open_broker(self.settings)

    def broker(self):
        return EmbeddedBroker(self.port, self.folder / "broker.log", self.folder / "broker")

    def read(self, *topics):
        """All that readers of committed records get, and the ends."""
        with contextlib.closing(self.stream.consumer(topics or list(TOPICS))) as consumer:
            return sorted(read_to_end(consumer)), consumer.ends()

    def send(self, topic, *values):
        with contextlib.closing(self.stream.producer()) as producer:
            for value in values:
                producer.send(topic, f"k{value}", str(value).encode(), {"h": b"x"})
            producer.flush()

    def await_copied(self):
        """Wait until the copy has what the broker has now, and has noted it."""
        ends = self.read()[1]

        def copied():
            found = BrokerLog(self.folder / "broker")
            return found.groups and all(found.end(place) >= end for place, end in ends.items())

        wait_for(copied)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def filled(home):
    """Records of all kinds: plain ones, transactions committed and aborted, positions of groups."""
    for topic, partitions in TOPICS.items():
        home.stream.ensure_topics([topic], partitions=partitions)
    home.send("t", *range(300))
    with contextlib.closing(home.stream.transactional_producer("worker")) as transactions:
        for number in range(3):
            transactions.begin()
            transactions.send("l", "a", f"label {number}".encode())
            transactions.send_offsets("labeler", {TopicPartition("t", 0): number + 1})
            transactions.commit() if number != 1 else transactions.abort()
    with contextlib.closing(home.stream.consumer(["t"], group="reader")) as consumer:
        consumer.commit({TopicPartition("t", 1): 11})
    records, ends = home.read()
    return [r for r in records if r.value != b"label 1"], ends  # this broker shows what was aborted, until a restart


def positions(home, group):
    with contextlib.closing(home.stream.consumer(["t"], group=group)) as consumer:
        assert consumer.resets == 0
        return {p.partition: offset for p, offset in consumer.positions().items()}


def test_a_stop_and_a_start_lose_no_record_no_offset_and_no_position(home):
    with home.broker():
        before = filled(home)
        assert len(before[0]) == 302
    for _ in range(2):
        with home.broker():
            assert home.read() == before
            assert positions(home, "labeler") == {0: 3, 1: 0}
            assert positions(home, "reader") == {0: 0, 1: 11}
    with home.broker():
        home.send("l", "new")
        records, ends = home.read("l")
        assert records[-1].value == b"new" and records[-1].offset == before[1][TopicPartition("l", 0)]
        assert ends[TopicPartition("l", 0)] == records[-1].offset + 1


def test_a_killed_broker_comes_back_with_its_records_and_nobody_reads_a_new_one_as_old(home):
    with home.broker() as broker:
        before = filled(home)
        old = home.stream.producer()
        old.send("t", "k", b"by one that stays")
        old.flush()
        with contextlib.closing(home.stream.consumer(["l"], group="follower")) as follower:
            assert list(read_to_end(follower))[-1].value == b"label 2"
            home.await_copied()
            killed = broker.pid
            os.kill(killed, signal.SIGKILL)
            wait_for(lambda: broker.tend() or broker.pid not in (killed, None))  # its threads end one after another
            records, ends = home.read()
            assert [r for r in records if r.value != b"by one that stays"] == before[0] and len(records) == 303
            assert ends[TopicPartition("l", 0)] == before[1][TopicPartition("l", 0)] + LOST_ROOM
            assert positions(home, "labeler") == {0: 3, 1: 0}

            # A producer that was there learns it at once, and goes on when it is asked again.
            old.send("t", "k", b"refused")
            with pytest.raises(UnavailableError, match=r"OUT_OF_ORDER_SEQUENCE_NUMBER|_FATAL"):
                old.flush()
            old.send("l", "k", b"taken")
            old.flush()
            old.close()
            found = []
            while not found:
                found = follower.poll()
            assert [r.value for r in found] == [b"taken"] and follower.resets == 0


def test_what_someone_wrote_before_the_records_were_back_is_refused(home):
    with home.broker():
        filled(home)
    with EmbeddedBroker(home.port, home.folder / "broker.log") as empty:
        home.stream.ensure_topics(["t"], partitions=2)
        home.send("t", "too early")
        with pytest.raises(UnavailableError, match="embedded broker's records"):
            BrokerCopy(BrokerLog(home.folder / "broker"), empty.address).restore()
    with EmbeddedBroker(home.port, home.folder / "broker.log") as empty:
        home.stream.ensure_topics(["t"], partitions=5)
        home.send("t", "too early")
        with pytest.raises(UnavailableError, match=r"someone else made topics of \{'t': 2\}"):
            BrokerCopy(BrokerLog(home.folder / "broker"), empty.address).restore()


def test_a_topic_that_a_client_was_faster_to_ask_for_is_made_as_it_was(home):
    with home.broker():
        before = filled(home)
    with EmbeddedBroker(home.port, home.folder / "broker.log") as empty:
        home.stream.ensure_topics(["t"], partitions=5)
        BrokerCopy(BrokerLog(home.folder / "broker"), empty.address).restore()
        assert len(home.stream.partitions("t")) == 2 and home.read() == before


@pytest.fixture
def looks_at_once(monkeypatch):
    monkeypatch.setattr("components.stream.kafka_consumer.LOOK_SECONDS", 0.0)


@pytest.mark.usefixtures("looks_at_once")
def test_whoever_reads_while_the_records_come_back_reads_none_twice_and_misses_none(home):
    keep = home.folder / "broker"
    with home.broker():
        filled(home)
        follower = home.stream.consumer(["t"], group="follower")
        assert len(list(read_to_end(follower))) == 300
        at = follower.positions()
    with contextlib.closing(follower), EmbeddedBroker(home.port, home.folder / "broker.log") as empty:
        note(keep, restored=False)
        open_broker(Settings(bootstrap_servers=empty.address)).ensure_topics(["t"], partitions=2)
        for _ in range(20):
            assert follower.poll(timeout=0.1) == []
        assert follower.positions() == at and follower.resets == 0
        opening = [lambda: home.stream.consumer(["t"], group="follower"), home.stream.producer]
        opening.append(lambda: home.stream.transactional_producer("worker"))
        topics = [lambda: home.stream.partitions("t"), lambda: home.stream.ensure_topics(["new"])]
        for asks in (follower.ends, follower.lag, follower.commit, *opening, *topics):
            with pytest.raises(UnavailableError, match="given its records back"):
                asks()
        BrokerCopy(BrokerLog(keep), empty.address).restore()
        note(keep, restored=True)
        home.send("t", "new")
        found = []
        while not found:
            found = follower.poll()
        assert [r.value for r in found] == [b"new"] and follower.resets == 0


ASKED = {
    "ends": ("components.stream.kafka_consumer.KafkaConsumer._ends", lambda _, reader: reader.ends()),
    "lag": ("kafka.KafkaConsumer.end_offsets", lambda _, reader: reader.lag()),
    "commit": ("kafka.KafkaConsumer.commit", lambda _, reader: reader.commit()),
    "opening": ("kafka.KafkaConsumer.partitions_for_topic", lambda home, _: home.stream.consumer(["t"]).close()),
    "partitions": ("kafka.KafkaAdminClient.describe_topics", lambda home, _: home.stream.partitions("t")),
    "topics": ("kafka.KafkaAdminClient.list_topics", lambda home, _: home.stream.ensure_topics(["t"])),
}
"""What is asked of a broker, and what asks it."""


def test_a_broker_that_is_started_anew_while_it_is_asked_is_not_believed(home, monkeypatch):
    with home.broker():
        filled(home)
        with contextlib.closing(home.stream.consumer(["t"], group="reader")) as reader:
            for where, ask in ASKED.values():
                asked, found = ask(home, reader), pkgutil.resolve_name(where)

                def meanwhile(*args, found=found, **options):
                    note(home.folder / "broker", restored=True)
                    return found(*args, **options)

                monkeypatch.setattr(where, meanwhile)
                with pytest.raises(UnavailableError, match="started anew meanwhile"):
                    ask(home, reader)
                monkeypatch.undo()
                assert ask(home, reader) == asked


class Teacher:
    """Says what a text's first letter is; counts what it was asked."""

    name, digest, task, space = "first", "d" * 64, "classification", "first@1"
    classes, size_bytes = ("a", "b"), 1

    def __init__(self):
        self.asked = 0

    def label(self, payloads):
        self.asked += len(payloads)
        return [SoftLabel.of(self.space, self.classes, [0.9, 0.1]) for _ in payloads]


@contextlib.contextmanager
def labelling(home, spec, teacher):
    stop = threading.Event()
    labeler = Labeler(spec, teacher, home.stream)
    thread = threading.Thread(target=labeler.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def labels(home, spec):
    return [decode(Label, r.value) for r in home.read(spec.topic("labels"))[0]]


def await_labels(home, spec, count):
    wait_for(lambda: len(labels(home, spec)) >= count, 240)


def test_labels_that_no_window_has_yet_and_inputs_without_one_outlast_a_restart(home):
    spec = Spec(
        name="w",
        teacher=Factory(factory="t:T"),
        features=Factory(factory="f:F"),
        payload=Payload(decoder="text", max_bytes=100),
        label=LabelSection(batch=64, linger_seconds=0.0),
    )

    def send(numbers):
        with contextlib.closing(home.stream.producer()) as producer:
            for n in numbers:
                entry = Input(workload="w", id=f"i{n}", key="k", time=1_700_000_000.0 + n, payload=f"text {n}".encode())
                producer.send(spec.topic("inputs"), entry.id, encode(entry))
            producer.flush()

    first, second = Teacher(), Teacher()
    with home.broker():
        home.stream.ensure_topics(spec.topics)
        send(range(500))
        with labelling(home, spec, first):
            await_labels(home, spec, 500)
        send(range(500, 520))
        window = read_new(home.stream, [spec.topic("labels")], {})
    with home.broker():
        again = read_new(home.stream, [spec.topic("labels")], {})
        assert again == window and len(again.records) == 500
        with labelling(home, spec, second):
            await_labels(home, spec, 520)
        made = labels(home, spec)
        later = read_new(home.stream, [spec.topic("labels")], window.anchors)
        assert len(later.records) == 20 and not later.replaced
    assert first.asked == 500 and second.asked == 20
    assert len({label.key for label in made}) == len(made) == 520
    assert msgspec.json.encode(sorted(label.input.id for label in made)) == msgspec.json.encode(
        sorted(f"i{n}" for n in range(520))
    )


def test_more_than_a_megabyte_at_once_is_copied(home):
    with home.broker():
        home.stream.ensure_topics(["t"])
        home.send("t", *(f"{n:06}" + "x" * 1000 for n in range(8000)))
        before = home.read("t")
    with home.broker():
        assert home.read("t") == before and len(before[0]) == 8000
