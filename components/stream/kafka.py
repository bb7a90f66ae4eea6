"""The stream on Kafka's protocol: connections. The clients are in the modules whose names begin with this one's.

:mod:`.kafka_producer` is over librdkafka. Only this module, :mod:`.kafka_consumer`, :mod:`.kafka_transactions`, and
:mod:`.access` and :mod:`.tokens`, which prove who we are, touch kafka-python.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from components.contracts.chatter import hush
from components.contracts.errors import RefusedError, UnavailableError
from components.contracts.settings import Settings
from components.stream.access import refuse, require_access
from components.stream.answering import METADATA_SECONDS, answering
from components.stream.contract import MAX_RECORD_BYTES, OnLost, Positions, TopicPartition
from components.stream.restored import of_whole, require, restored_of
from components.stream.security import security_options

if TYPE_CHECKING:
    from components.stream.kafka_consumer import KafkaConsumer
    from components.stream.kafka_producer import KafkaProducer
    from components.stream.kafka_transactions import KafkaTransactions

RETENTION = "retention.ms"
"""The configuration of a topic that says for how long its records are kept."""

REQUEST_MS = 20_000
"""How long one request may take before the broker counts as unavailable."""


class KafkaBroker:
    """Connections to the Kafka that the settings name, with their SASL and TLS settings."""

    def __init__(self, settings: Settings) -> None:
        hush("kafka", settings.log_level)  # some twenty lines a connection
        self.address, self._settings = settings.kafka, settings
        self.config, self._restored = client_config(settings), restored_of(settings)
        self._admitted = settings.security_protocol == "PLAINTEXT"

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Open a client; the first one only after the broker was asked whether it lets us in."""
        self._admitted = self._admitted or require_access(self.address, self.config)
        with answering(self.address):
            yield

    @contextmanager
    def _administering(self) -> Iterator[Any]:
        from kafka import KafkaAdminClient

        with self._opening():
            admin = KafkaAdminClient(**self.config)
            try:
                yield admin
            finally:
                admin.close()

    def ensure_topics(self, topics: Iterable[str], partitions: int = 1) -> None:
        """Create the topics that do not exist yet, and wait until the broker knows them.

        Raises:
            AccessError: the broker refuses us.
            UnavailableError: the broker does not answer, does not come to know them, or is being given its records
                back: it then gets its topics, too.

        """
        from kafka.admin import NewTopic
        from kafka.errors import TopicAlreadyExistsError

        wanted = set(topics)
        limits = {"max.message.bytes": str(MAX_RECORD_BYTES)}

        def make() -> None:
            missing = sorted(wanted - set(admin.list_topics()))
            new = [NewTopic(n, num_partitions=partitions, replication_factor=-1, topic_configs=limits) for n in missing]
            try:
                if new:
                    admin.create_topics(new)
            except TopicAlreadyExistsError:
                pass  # another process was faster; the others of the request were created
            self._await_topics(admin, wanted)

        with self._administering() as admin:
            of_whole(self._restored, self.address, make)

    def _await_topics(self, admin: Any, wanted: set[str]) -> None:
        deadline = time.monotonic() + METADATA_SECONDS
        while missing := wanted - set(admin.list_topics()):
            if time.monotonic() > deadline:
                raise UnavailableError("Kafka", self.address, f"it does not list the new topics {sorted(missing)}")
            time.sleep(0.05)

    def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic in order; none where it does not exist.

        Raises:
            UnavailableError: the broker does not answer, or is being given its records back.

        """
        from kafka import KafkaAdminClient

        def described() -> Any:
            return admin.describe_topics([topic])[0]["partitions"] if topic in admin.list_topics() else []

        with answering(self.address):
            admin = KafkaAdminClient(**self.config)
            try:
                found = of_whole(self._restored, self.address, described)
            finally:
                admin.close()
        return [TopicPartition(topic, n) for n in sorted(p.get("partition_index", p.get("partition")) for p in found)]

    def delete_through(self, places: Mapping[TopicPartition, Iterable[int]]) -> None:
        """Delete everything up to the last of some records, by their offsets (Kafka's KIP-107).

        The records are gone for every reader at once. The broker deletes the files when their segments are closed
        (``segment.ms``, ``segment.bytes``) and it next looks (``log.retention.check.interval.ms``).

        Raises:
            UnavailableError: the broker does not answer, or not delete.

        """
        from kafka import TopicPartition as Partition

        with self._administering() as admin:
            admin.delete_records({Partition(*p): max(offsets) + 1 for p, offsets in places.items()})

    def kept_longer(self, topics: Iterable[str], seconds: float) -> dict[str, float | None]:
        """The topics whose records are kept for longer than that, and for how long (seconds; None: without end).

        Raises:
            AccessError: the broker refuses to tell.
            UnavailableError: the broker does not answer.

        """
        with self._administering() as admin:
            there = sorted(set(topics) & set(admin.list_topics()))
            asked = [_topic(name, {RETENTION: None}) for name in there]
            told = admin.describe_configs(asked, config_filter="all") if asked else {}
        found: dict[str, float | None] = {}
        for name in there:
            if RETENTION not in told["topic"][name]:  # kafka-python gives a refusal as a topic without configurations
                refuse(self.address, "permission", f"it does not tell how long it keeps {name} (DescribeConfigs)")
            milliseconds = float(told["topic"][name][RETENTION]["value"])
            if milliseconds < 0.0 or milliseconds > round(1e3 * seconds):  # what :meth:`keep` writes
                found[name] = None if milliseconds < 0.0 else milliseconds / 1e3
        return found

    def keep(self, topics: Iterable[str], seconds: float) -> None:
        """Have the broker keep the records of topics for no longer than that.

        Raises:
            AccessError: the broker does not permit it, of one topic at least; the others are shortened.
            RefusedError: its policy is another.
            UnavailableError: the broker does not answer.

        """
        wanted = [_topic(name, {RETENTION: str(round(1e3 * seconds))}) for name in sorted(topics)]
        with self._administering() as admin:
            # whether it knows the configuration it says itself: asking before takes a right of its own
            said = admin.alter_configs(wanted, raise_on_unknown=False).get("topic", {})
        # kafka-python raises nothing for a topic: it gives the error's text.
        refused = [f"{name}: {answer}" for name, answer in sorted(said.items()) if answer != "OK"]
        denied = [text for text in refused if "AuthorizationFailedError" in text]
        if denied:
            refuse(self.address, "permission", f"it does not let us say how long it keeps {denied[0]} (AlterConfigs)")
        if refused:
            raise RefusedError("Kafka", self.address, refused[0], f"may {RETENTION} be set to that there?")

    def transactional_producer(self, transactional_id: str) -> KafkaTransactions:
        """A new transactional producer, which fences every earlier one of this id.

        Raises:
            AccessError: the broker refuses us.
            UnavailableError: the broker does not answer.

        """
        from components.stream.kafka_transactions import KafkaTransactions

        with self._opening():
            require(self._restored, self.address)
            return KafkaTransactions(self.address, self.config, self.partitions, transactional_id)

    def producer(self) -> KafkaProducer:
        """A new producer.

        Raises:
            AccessError: the broker refuses us.
            UnavailableError: the broker does not answer.

        """
        from components.stream.kafka_producer import OPEN_SECONDS, KafkaProducer, connection_options

        with self._opening():
            seconds = self.config.get("bootstrap_timeout_ms", OPEN_SECONDS * 1000) / 1000
            options = connection_options(self._settings, self.config)
            return KafkaProducer(options, self.address, seconds, self._restored)

    def consumer(
        self,
        topics: Iterable[str],
        group: str | None = None,
        start: Literal["earliest", "latest"] | Positions = "earliest",
        partitions: Iterable[TopicPartition] | None = None,
        on_lost: OnLost = "earliest",
    ) -> KafkaConsumer:
        """A new consumer; see :class:`components.stream.contract.Broker`.

        Raises:
            NotFoundError: a topic does not exist.
            AccessError: the broker refuses us.
            LostPositionsError: the broker lacks a position, and ``on_lost`` says to stop then.
            UnavailableError: the broker does not answer.

        """
        from components.stream.kafka_consumer import KafkaConsumer

        with self._opening():
            return KafkaConsumer(
                self.config, self.address, list(topics), group, start, partitions, on_lost, restored=self._restored
            )


def client_config(settings: Settings) -> dict[str, Any]:
    """The options that every kafka-python client gets.

    ``retry_backoff_ms`` is short because retries here mostly wait for a transaction's markers, which take
    milliseconds (measured: 212 ms a transaction with the default of 100). ``reconnect_backoff_max_ms`` is short because
    labels wait for it: with the default of 30 s nothing happened for 29 s after a broker was back.

    Raises:
        ConfigError: the security settings are incomplete, or name files that cannot be used.

    """
    return {
        "bootstrap_servers": settings.kafka.split(","),
        "retry_backoff_ms": 10,
        "reconnect_backoff_max_ms": 1_000,
        "request_timeout_ms": REQUEST_MS,
        **security_options(settings),
    }


def _topic(name: str, configs: Mapping[str, str | None]) -> Any:
    from kafka.admin import ConfigResource, ConfigResourceType

    return ConfigResource(ConfigResourceType.TOPIC, name, dict(configs))
