"""Read-committed readers of the run's topics: one that follows, and one that reads everything for the verdict.

Both are plain kafka-python, so that what is under test does not read for its own judge.
"""

import time
from collections.abc import Iterator, Sequence
from threading import Event, Thread
from typing import Any

from components.contracts.given import ANSWER
from components.contracts.records import DeadLetter, Label, decode
from tests.chaos.feed import Sent, said
from tests.chaos.replica import is_own, text_of
from tests.chaos.teacher import answer
from tests.chaos.verdict import Labelled, Letter, Produced

READ_SECONDS = 120.0


def reader(address: str, topics: Sequence[str]) -> Any:
    """A read-committed consumer of all partitions of ``topics``, from their beginnings."""
    from kafka import KafkaConsumer, TopicPartition

    client = KafkaConsumer(
        bootstrap_servers=address,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        retry_backoff_ms=50,
        reconnect_backoff_max_ms=500,
        allow_auto_create_topics=False,
    )
    deadline = time.monotonic() + READ_SECONDS
    while not all(client.partitions_for_topic(t) for t in topics):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the broker at {address} does not know the topics {list(topics)}")
        time.sleep(0.1)
    client.assign([TopicPartition(t, p) for t in topics for p in sorted(client.partitions_for_topic(t))])
    return client


class Follower(Thread):
    """Counts labels and dead letters as they are committed."""

    def __init__(self, address: str, names: list[str]) -> None:
        super().__init__(name="follower", daemon=True)
        self.count = 0
        self._client = reader(address, names)
        self._stop_now = Event()

    def run(self) -> None:
        from kafka.errors import KafkaError

        while not self._stop_now.is_set():
            try:
                self.count += sum(len(r) for r in self._client.poll(timeout_ms=200).values())
            except KafkaError:
                time.sleep(0.1)
        self._client.close(autocommit=False)

    def stop(self) -> None:
        self._stop_now.set()
        self.join()


def read_all(address: str, topic: str) -> Iterator[Any]:
    """Every committed record of a topic, from its beginning to its end as it is now."""
    client = reader(address, [topic])
    try:
        client.seek_to_beginning()
        ends = client.end_offsets(client.assignment())
        deadline = time.monotonic() + READ_SECONDS
        while any(client.position(p) < end for p, end in ends.items()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic} could not be read to its end in {READ_SECONDS:.0f} s")
            for records in client.poll(timeout_ms=500, max_records=2_000).values():
                yield from records
    finally:
        client.close(autocommit=False)


def produced(address: str, topics: Sequence[str], sent: Sequence[Sent]) -> tuple[list[Produced], list[str]]:
    """The inputs as the broker has them, and the ids of those that it confirmed and does not have.

    Those of replicas are known from here alone: nobody else has heard of what they published.
    """
    answers = {s.id: s.answer for s in sent}
    found = []
    for record in (record for topic in topics for record in read_all(address, topic)):
        id_ = dict(record.headers)["id"].decode()
        expected = said(answer(text_of(id_))) if is_own(id_) else answers[id_]
        found.append(Produced(id_, record.topic, record.partition, record.offset, expected))
    present = {p.id for p in found}
    return found, [s.id for s in sent if s.future.succeeded() and s.id not in present]


def published(address: str, topics: Sequence[str]) -> tuple[int, int]:
    """How many inputs replicas have published, each counted once, and how many of them with the teacher's answer."""
    found: dict[str, bool] = {}
    for record in (record for topic in topics for record in read_all(address, topic)):
        headers = dict(record.headers)
        if is_own(id_ := headers["id"].decode()):
            found[id_] = ANSWER in headers
    return len(found), sum(found.values())


def labels(address: str, topic: str, teacher: str) -> list[Labelled]:
    """The labels in the topic; one of another teacher than ``teacher`` says so in its answer."""
    found = []
    for record in read_all(address, topic):
        label = decode(Label, record.value)
        by = "" if label.teacher == teacher else f"by {label.teacher}: "
        found.append(Labelled(label.input.id, by + said(label.soft)))
    return found


def letters(address: str, topic: str) -> list[Letter]:
    """The dead letters in the topic."""
    found = (decode(DeadLetter, record.value) for record in read_all(address, topic))
    return [Letter(letter.topic, letter.partition, letter.offset) for letter in found]
