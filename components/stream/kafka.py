"""The stream on Kafka's protocol, by kafka-python: the one module that touches it.

Partitions are assigned by hand and positions committed under a group name: a group join takes 15 to 45 s on the
embedded broker and gives nothing to a single consumer. Positions that the broker no longer has (it lost its memory,
or retention passed them) are reset to the earliest record with a logged warning, counted in :attr:`resets`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from components.contracts.errors import NotFoundError, UnavailableError
from components.contracts.settings import Settings
from components.stream.contract import Positions, Record, TopicPartition

log = logging.getLogger(__name__)

MAX_RECORD_BYTES = 4 * 1024 * 1024
"""Largest record that is sent or read: payload limits of a spec lie below it."""

PROBE_SECONDS = 1.0
"""How long :meth:`KafkaConsumer.ends` waits for a last batch: it may hold nothing but a transaction's marker."""

METADATA_SECONDS = 10.0
"""How long a consumer waits for the partitions of a topic that was just created."""


class KafkaBroker:
    """Connections to the Kafka that the settings name, with their SASL and TLS settings."""

    def __init__(self, settings: Settings) -> None:
        self.address = settings.kafka
        self._config: dict[str, Any] = {
            "bootstrap_servers": self.address.split(","),
            "security_protocol": settings.security_protocol,
            "retry_backoff_ms": 10,
            "request_timeout_ms": 20_000,
        }
        if settings.sasl_mechanism is not None:
            password = settings.sasl_password
            self._config |= {
                "sasl_mechanism": settings.sasl_mechanism,
                "sasl_plain_username": settings.sasl_username,
                "sasl_plain_password": password.get_secret_value() if password else None,
            }
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            if (path := getattr(settings, name)) is not None:
                self._config[name] = str(path)

    def _unavailable(self) -> UnavailableError:
        return UnavailableError(
            "Kafka", self.address, "is the broker up? set COHOBATE_BOOTSTRAP_SERVERS to its address"
        )

    def ensure_topics(self, topics: Iterable[str], partitions: int = 1) -> None:
        """Create the topics that do not exist yet.

        Raises:
            UnavailableError: the broker does not answer.
        """
        from kafka import KafkaAdminClient
        from kafka.admin import NewTopic
        from kafka.errors import KafkaError, TopicAlreadyExistsError

        try:
            admin = KafkaAdminClient(**self._config)
        except KafkaError as error:
            raise self._unavailable() from error
        try:
            missing = sorted(set(topics) - set(admin.list_topics()))
            if missing:
                new = [NewTopic(name, num_partitions=partitions, replication_factor=-1) for name in missing]
                admin.create_topics(new)
        except TopicAlreadyExistsError:
            pass  # another process was faster: the topic exists, which is all that was asked
        except KafkaError as error:
            raise self._unavailable() from error
        finally:
            admin.close()

    def producer(self) -> KafkaProducer:
        """A new producer."""
        from kafka.errors import KafkaError

        try:
            return KafkaProducer(self._config, self.address)
        except KafkaError as error:
            raise self._unavailable() from error

    def consumer(
        self,
        topics: Iterable[str],
        group: str | None = None,
        start: Literal["earliest", "latest"] | Positions = "earliest",
        partitions: Iterable[TopicPartition] | None = None,
    ) -> KafkaConsumer:
        """A new consumer; see :class:`components.stream.contract.Broker`."""
        from kafka.errors import KafkaError

        try:
            return KafkaConsumer(self._config, list(topics), group, start, partitions)
        except KafkaError as error:
            raise self._unavailable() from error


class KafkaProducer:
    """An idempotent producer with ``acks=all``."""

    def __init__(self, config: Mapping[str, Any], address: str) -> None:
        from kafka import KafkaProducer as Client

        self._client: Any = Client(
            **config, acks="all", enable_idempotence=True, linger_ms=5, max_request_size=MAX_RECORD_BYTES
        )
        self._address = address
        self._failures: list[Exception] = []

    def send(
        self, topic: str, key: str | bytes | None, value: bytes, headers: Mapping[str, bytes] | None = None
    ) -> None:
        """Queue a record; a failure to send it is raised by the next :meth:`flush`."""
        name = key.encode() if isinstance(key, str) else key
        sent = self._client.send(topic, key=name, value=value, headers=list((headers or {}).items()))
        sent.add_errback(self._failures.append)

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until everything sent is acknowledged.

        Raises:
            UnavailableError: something was not, within ``timeout`` seconds.
        """
        from kafka.errors import KafkaError

        try:
            self._client.flush(timeout=timeout)
        except KafkaError as error:
            raise UnavailableError("Kafka", self._address, f"records were not confirmed: {error!r}") from error
        if self._failures:
            first, self._failures = self._failures[0], []
            raise UnavailableError("Kafka", self._address, f"records were not confirmed: {first!r}") from first

    def close(self) -> None:
        """Flush and release the connection."""
        self._client.close(timeout=10)


class KafkaConsumer:
    """A consumer of partitions assigned by hand, reading committed records only."""

    def __init__(
        self,
        config: Mapping[str, Any],
        topics: list[str],
        group: str | None,
        start: Literal["earliest", "latest"] | Positions,
        partitions: Iterable[TopicPartition] | None,
    ) -> None:
        from kafka import KafkaConsumer as Client
        from kafka import TopicPartition as Partition

        self._client: Any = Client(
            **config,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_partition_fetch_bytes=MAX_RECORD_BYTES,
            fetch_max_wait_ms=100,
        )
        self._open_probe: Callable[[], Any] = lambda: Client(
            **config, enable_auto_commit=False, auto_offset_reset="none"
        )
        self._probe: Any = None
        self._partition = Partition
        self.group = group
        self.resets = 0
        chosen = list(partitions) if partitions is not None else self._partitions_of(topics)
        self._assigned = [Partition(p.topic, p.partition) for p in chosen]
        self._client.assign(self._assigned)
        self._start(start)

    def _partitions_of(self, topics: list[str]) -> list[TopicPartition]:
        found: list[TopicPartition] = []
        for topic in topics:
            deadline = time.monotonic() + METADATA_SECONDS
            while not (numbers := self._client.partitions_for_topic(topic)):
                if time.monotonic() > deadline:
                    self._client.close()
                    raise NotFoundError(
                        "topic", topic, "it has no partitions: create it with 'cohobate up' or Kafka's tools"
                    )
                time.sleep(0.05)
            found += [TopicPartition(topic, n) for n in sorted(numbers)]
        return found

    def _start(self, start: Literal["earliest", "latest"] | Positions) -> None:
        beginnings, ends = self._client.beginning_offsets(self._assigned), self._client.end_offsets(self._assigned)
        for partition in self._assigned:
            committed = self._client.committed(partition) if self.group else None
            if committed is not None:
                wanted = committed
            elif isinstance(start, Mapping):
                wanted = start.get(TopicPartition(partition.topic, partition.partition), beginnings[partition])
            else:
                wanted = (ends if start == "latest" else beginnings)[partition]
            if wanted < beginnings[partition]:
                wanted = self._reset(partition, wanted, beginnings[partition])
            self._client.seek(partition, wanted)

    def _reset(self, partition: Any, wanted: int, earliest: int) -> int:
        self.resets += 1
        log.warning(
            "%s-%d has no offset %d any more: reading again from the earliest, %d; did the broker lose its records?",
            partition.topic, partition.partition, wanted, earliest,
        )  # fmt: skip
        return earliest

    def poll(self, max_records: int = 500, timeout: float = 0.5) -> list[Record]:
        """Up to ``max_records`` records, waiting up to ``timeout`` seconds for the first."""
        from kafka.errors import OffsetOutOfRangeError

        try:
            batches = self._client.poll(timeout_ms=int(timeout * 1000), max_records=max_records)
        except OffsetOutOfRangeError:
            self._start(self.positions())
            return []
        return [
            Record(r.topic, r.partition, r.offset, r.key, r.value, dict(r.headers or ()), r.timestamp / 1000.0)
            for batch in batches.values()
            for r in batch
        ]

    def positions(self) -> dict[TopicPartition, int]:
        """The next offset that ``poll`` would return, by partition."""
        return {TopicPartition(p.topic, p.partition): self._client.position(p) for p in self._assigned}

    def ends(self) -> dict[TopicPartition, int]:
        """The offset after the last record, by partition.

        The embedded broker answers a question for the end with the *first* offset of the last batch plus one, so
        the last batch is fetched and the position behind it taken.
        """
        if self._probe is None:
            self._probe = self._open_probe()
            self._probe.assign(self._assigned)
        probe = self._probe
        least = probe.end_offsets(self._assigned)
        for partition in self._assigned:
            probe.seek(partition, max(least[partition] - 1, 0))
        unread = {p for p in self._assigned if least[p] > 0}
        deadline = time.monotonic() + PROBE_SECONDS
        while unread and time.monotonic() < deadline:
            unread -= set(probe.poll(timeout_ms=50, max_records=1_000_000))
        return {TopicPartition(p.topic, p.partition): max(least[p], probe.position(p)) for p in self._assigned}

    def commit(self, positions: Positions | None = None) -> None:
        """Make positions durable under the group.

        Raises:
            ValueError: the consumer was opened without a group.
        """
        from kafka.structs import OffsetAndMetadata

        if self.group is None:
            raise ValueError("this consumer has no group to commit under")
        wanted = self.positions() if positions is None else positions
        self._client.commit({self._partition(*p): OffsetAndMetadata(o, "", -1) for p, o in wanted.items()})

    def lag(self) -> int:
        """Records between the present positions and the ends, cheaply: as far as the broker said so far."""
        ends = self._client.end_offsets(self._assigned)
        known = {p: max(ends[p], self._client.highwater(p) or 0) for p in self._assigned}
        return sum(max(0, known[p] - self._client.position(p)) for p in self._assigned)

    def close(self) -> None:
        """Release the connection; does not commit."""
        self._client.close(autocommit=False)
        if self._probe is not None:
            self._probe.close(autocommit=False)
