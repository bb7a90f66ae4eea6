"""What a producer does with answers that neither broker gives at a test's wish: the clients here are made up."""

import contextlib
import threading

import pytest
from kafka.errors import NoError, UnknownMemberIdError
from kafka.structs import OffsetAndMetadata

from components.contracts.errors import UnavailableError
from components.stream import kafka_transactions
from components.stream.contract import TopicPartition
from components.stream.kafka_transactions import EMBEDDED_CLUSTER, KafkaTransactions

PLACE = TopicPartition("t", 0)


class Client:
    """The producer's client, which takes everything."""

    def __getattr__(self, verb):
        return lambda *args, **options: None


class Groups:
    """The administrator's client: a broker that has forgotten the positions that it is asked for."""

    def __init__(self, cluster=EMBEDDED_CLUSTER, answer=NoError):
        self.cluster, self.answer, self.asked, self.set = cluster, answer, 0, []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def describe_cluster(self):
        self.asked += 1
        return {"cluster_id": self.cluster}

    def list_group_offsets(self, groups):
        self.may_answer.wait(60.0)
        return {group: {place: OffsetAndMetadata(-1, "", -1) for place in places} for group, places in groups.items()}

    def alter_group_offsets(self, group, offsets):
        self.set.append((group, {place: known.offset for place, known in offsets.items()}))
        return dict.fromkeys(offsets, self.answer)

    def close(self):
        pass


@pytest.fixture
def made(monkeypatch):
    """Makes a producer whose clients are made up, with a transaction that has positions and no record."""
    with contextlib.ExitStack() as opened:

        def make(groups):
            monkeypatch.setattr("kafka.KafkaProducer", lambda **_: Client())
            monkeypatch.setattr("kafka.KafkaAdminClient", lambda **_: groups)
            producer = KafkaTransactions("kafka:9092", {}, lambda _: [PLACE], "x")
            opened.enter_context(contextlib.closing(producer))
            producer.begin()
            producer.send_offsets("g", {PLACE: 5})
            return producer

        yield make


def test_a_position_that_the_embedded_broker_forgot_is_set(made):
    groups = Groups()
    made(groups).commit()
    assert groups.set == [("g", {PLACE: 5})]


def test_a_position_that_the_broker_refuses_is_not_taken_for_committed(made):
    with pytest.raises(UnavailableError, match=r"UnknownMemberIdError.*position of g in"):
        made(Groups(answer=UnknownMemberIdError)).commit()


def test_no_position_is_set_by_itself_on_another_broker_which_is_asked_once_which_it_is(made):
    groups = Groups(cluster="MkU3OEVBNTcwNTJENDM2Qk")
    producer = made(groups)
    producer.commit()
    producer.begin()
    producer.send_offsets("g", {PLACE: 6})
    producer.commit()
    assert groups.set == [] and groups.asked == 1


def test_nothing_is_set_once_whoever_commits_has_given_up(made, monkeypatch):
    groups = Groups()
    producer = made(groups)
    monkeypatch.setattr(kafka_transactions, "VERB_SECONDS", 0.01)
    groups.may_answer.clear()
    with pytest.raises(UnavailableError, match="took longer"):
        producer.commit()
    (left,) = (t for t in threading.enumerate() if t.name == "transaction-x")
    groups.may_answer.set()
    left.join(60.0)
    assert not left.is_alive() and groups.set == []
