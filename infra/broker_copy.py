"""What makes the embedded broker, whose records live in memory, keep them: a copy that follows it, and its way back.

A thread fetches what every partition gets, a long poll that is answered as soon as there is something, and appends it
to a :class:`~infra.broker_log.BrokerLog`. A new broker is given the log before anybody else knows it.

What that guarantees: a broker that is stopped by :meth:`BrokerCopy.finish` comes back with every record, offset and
position. One that is killed, alone or with everything else, lacks at most what it had taken in the instant since the
last fetch was answered (milliseconds), and after a power cut what it had taken in the last :data:`SYNC_SECONDS`;
positions are then those of a moment before, so that records are read twice rather than never.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from components.contracts.errors import UnavailableError
from components.contracts.settings import Settings
from components.stream.contract import TopicPartition
from components.stream.kafka import KafkaBroker, client_config
from infra.broker_log import BrokerLog, Groups

log = logging.getLogger("cohobate")

SYNC_SECONDS = 1.0
"""How often the copy is made to outlast a power cut, positions are noted, and new topics are looked for."""

WAIT_MS = 500
"""How long a fetch waits for records."""

DRAIN_MS = 5
"""The same where all that is there already is wanted. With 0 the broker answers without a single partition."""

FETCH_BYTES = 16 * 1024 * 1024

ANSWER_BYTES = 512 * 1024 * 1024
"""The largest answer that is taken: the broker may go past what was asked for; the client alone would take 1 MB."""

SPARE_PRODUCERS = 100
"""Producers that had an id and had sent nothing yet, at most."""

TOPICS_SECONDS = 30.0
"""How long clients that stayed connected may be faster than we are in making a topic."""

QUIET_MS, QUIET_SECONDS = 50, 10.0
"""For how long nothing must come before a broker in use is stopped, and how long that is waited for."""

DRAIN_SECONDS = 60.0
"""How long the rest may take to copy when the broker is stopped."""


class BrokerCopy:
    """Follows the broker at ``address`` into ``copy``."""

    def __init__(self, copy: BrokerLog, address: str) -> None:
        self.copy, self.address = copy, address
        self._settings = Settings(bootstrap_servers=address)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def _client(self) -> Iterator[Any]:
        from kafka.net.compat import KafkaNetClient

        with closing(KafkaNetClient(**client_config(self._settings), receive_message_max_bytes=ANSWER_BYTES)) as client:
            client.check_version()
            yield client

    @contextmanager
    def _admin(self) -> Iterator[Any]:
        from kafka import KafkaAdminClient

        with closing(KafkaAdminClient(**client_config(self._settings))) as admin:
            yield admin

    def restore(self, erased: Mapping[TopicPartition, Collection[int]] | None = None) -> int:
        """Give a new broker the topics, records and positions of the copy; gives the number of batches.

        ``erased``: the offsets of records that it does not get, and that the copy loses.

        Raises:
            UnavailableError: the broker does not answer, or someone else has written to it meanwhile.
        """
        self._make_topics()
        self.copy.compact(erased)
        with self._client() as client:
            self._know_producers(client)
            count = sum(self._produce(client, place) for place in self.copy.partitions())
        self._commit()
        return count

    def _make_topics(self) -> None:
        """Make the topics of the copy with the partitions that they had.

        The broker makes any topic that a client asks for, with partitions of its own choice: one that a client which
        stayed connected was faster with is taken away and made again, as long as nobody has written to it.
        """
        broker, deadline = KafkaBroker(self._settings), time.monotonic() + TOPICS_SECONDS
        while True:
            for topic, partitions in self.copy.topics.items():
                broker.ensure_topics([topic], partitions=partitions)
            with self._admin() as admin:
                found = self._topics(admin)
                wrong = {name: count for name, count in self.copy.topics.items() if found.get(name) != count}
                if not wrong:
                    return
                with closing(broker.consumer(wrong)) as consumer:
                    written = any(consumer.ends().values())
                if written or time.monotonic() > deadline:
                    remedy = f"someone else made topics of {wrong}"
                    raise UnavailableError("embedded broker's records", self.address, remedy)
                admin.delete_topics([name for name in wrong if name in found])

    def _know_producers(self, client: Any) -> None:
        """Give out the ids that producers have which were connected to the one before.

        Such a producer then learns that its sequence is none of this broker's, and its owner makes a new one. With an
        id that the broker does not know librdkafka tries again for ever.
        """
        from kafka.protocol.producer import InitProducerIdRequest

        for _ in range(self.copy.producer + SPARE_PRODUCERS):
            request = InitProducerIdRequest(
                transactional_id=None, transaction_timeout_ms=60_000, producer_id=-1, producer_epoch=-1, max_version=4
            )
            client.send_and_receive(client.least_loaded_node(bootstrap_fallback=True), request)

    def _produce(self, client: Any, place: TopicPartition) -> int:
        from kafka.protocol.producer import ProduceRequest

        topic_data = ProduceRequest.TopicProduceData
        count = 0
        for batch in self.copy.batches(place):
            partition = topic_data.PartitionProduceData(index=place.partition, records=batch.raw)
            request = ProduceRequest(
                transactional_id=None,
                acks=-1,
                timeout_ms=20_000,
                topic_data=[topic_data(name=place.topic, partition_data=[partition])],
                max_version=8,
            )
            answer = client.send_and_receive(client.least_loaded_node(bootstrap_fallback=True), request)
            (said,) = answer.responses[0].partition_responses
            if said.error_code or said.base_offset != batch.base:
                remedy = (
                    f"{place.topic}-{place.partition} got {said.base_offset} for {batch.base}, error {said.error_code}"
                )
                raise UnavailableError("embedded broker's records", self.address, remedy)
            count += 1
        return count

    def _commit(self) -> None:
        from kafka import TopicPartition as Partition
        from kafka.structs import OffsetAndMetadata

        with self._admin() as admin:
            for group, places in self.copy.groups.items():
                offsets = {Partition(*p): OffsetAndMetadata(o, "", -1) for p, o in places.items()}
                said = admin.alter_group_offsets(group, offsets)
                if refused := {p: e.__name__ for p, e in said.items() if e.errno}:
                    remedy = f"it refused positions of {group}: {refused}"
                    raise UnavailableError("embedded broker's records", self.address, remedy)

    def follow(self) -> None:
        """Copy from now on, in a thread."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="broker-copy", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        from kafka.errors import KafkaError

        while not self._stop.is_set():
            try:
                with self._client() as client, self._admin() as admin:
                    while not self._stop.is_set():
                        self._round(client, admin)
            except KafkaError as error:
                log.warning("copying the embedded broker's records: %s", error)
                self._stop.wait(0.5)

    def _round(self, client: Any, admin: Any) -> None:
        """Copy for a while, in this order, so that positions are never ahead of the records.

        1. Read the topics, and then the groups' positions.
        2. Copy what is there by now.
        3. Make the copy durable, and only then note the positions.
        4. Copy on as records come.
        """
        # Step 1
        self.copy.know(self._topics(admin))
        groups = self._positions(admin)
        # Step 2
        self._drain(client, time.monotonic() + DRAIN_SECONDS)
        # Step 3
        self.copy.sync(groups)
        # Step 4
        until = time.monotonic() + SYNC_SECONDS
        while not self._stop.is_set() and time.monotonic() < until:
            self._fetch(client, WAIT_MS)

    @staticmethod
    def _topics(admin: Any) -> dict[str, int]:
        names = admin.list_topics()
        return {t["name"]: len(t["partitions"]) for t in admin.describe_topics(names)} if names else {}

    @staticmethod
    def _positions(admin: Any) -> Groups:
        names = [group["group_id"] for group in admin.list_groups()]
        found: dict[str, Any] = admin.list_group_offsets({name: None for name in names}) if names else {}
        return {
            group: {TopicPartition(p.topic, p.partition): o.offset for p, o in places.items() if o.offset >= 0}
            for group, places in found.items()
        }

    def _drain(self, client: Any, deadline: float) -> bool:
        """Copy up to the present ends; whether that was done by the deadline."""
        ends: dict[TopicPartition, int] = {}
        while True:
            _, seen = self._fetch(client, DRAIN_MS)
            ends = seen | ends
            if all(place in ends and self.copy.end(place) >= ends[place] for place in self.copy.partitions()):
                return True
            if time.monotonic() > deadline:
                return False

    def _fetch(self, client: Any, wait_ms: int) -> tuple[int, dict[TopicPartition, int]]:
        """One fetch from all partitions: how many batches came, and where the partitions that it told of end."""
        from kafka.protocol.consumer import FetchRequest

        topic, asked = FetchRequest.FetchTopic, []
        for name, count in self.copy.topics.items():
            at = [
                topic.FetchPartition(
                    partition=number,
                    current_leader_epoch=-1,
                    fetch_offset=self.copy.end(TopicPartition(name, number)),
                    partition_max_bytes=FETCH_BYTES,
                )
                for number in range(count)
            ]
            asked.append(topic(topic=name, partitions=at))
        if not asked:
            self._stop.wait(wait_ms / 1000)
            return 0, {}
        request = FetchRequest(
            replica_id=-1, max_wait_ms=wait_ms, min_bytes=1, max_bytes=FETCH_BYTES, isolation_level=0, session_id=0,
            session_epoch=-1, topics=asked, forgotten_topics_data=[], rack_id="", max_version=11,
        )  # fmt: skip
        answer = client.send_and_receive(client.least_loaded_node(bootstrap_fallback=True), request)
        came, ends = 0, {}
        for part in answer.responses:
            for found in part.partitions:
                place = TopicPartition(part.topic, found.partition_index)
                ends[place] = found.high_watermark
                if found.records:
                    came += self.copy.append(place, bytes(found.records))
        return came, ends

    def halt(self) -> None:
        """Copy no more; the copy is not known to be complete."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def settle(self) -> None:
        """Copy until nothing came for :data:`QUIET_MS`, and no more: the moment to stop a broker that is in use."""
        from kafka.errors import KafkaError

        self.halt()
        deadline = time.monotonic() + QUIET_SECONDS
        try:
            with self._client() as client, self._admin() as admin:
                self.copy.know(self._topics(admin))
                groups = self._positions(admin)
                self._drain(client, time.monotonic() + DRAIN_SECONDS)
                self.copy.sync(groups)
                while self._fetch(client, QUIET_MS)[0] and time.monotonic() < deadline:
                    pass
        except KafkaError as error:
            log.warning("the embedded broker's last records were not copied: %s", error)

    def finish(self) -> None:
        """Copy the rest of a broker that nobody writes to any more, and close the copy."""
        from kafka.errors import KafkaError

        self.halt()
        complete = False
        try:
            with self._client() as client, self._admin() as admin:
                self.copy.know(self._topics(admin))
                groups = self._positions(admin)
                complete = self._drain(client, time.monotonic() + DRAIN_SECONDS)
                self.copy.sync(groups)
        except KafkaError as error:
            log.warning("the embedded broker's last records were not copied: %s", error)
        self.copy.close(complete=complete)
