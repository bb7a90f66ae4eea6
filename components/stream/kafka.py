"""The stream on Kafka's protocol: connections and the producer. The consumer is in :mod:`.kafka_consumer`.

Together with :mod:`.kafka_transactions` they are the only ones that touch kafka-python.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from components.contracts.errors import NotFoundError, RecordError, UnavailableError
from components.contracts.settings import Settings
from components.stream.contract import MAX_RECORD_BYTES, OnLost, Positions, TopicPartition

if TYPE_CHECKING:
    from components.stream.kafka_consumer import KafkaConsumer
    from components.stream.kafka_transactions import KafkaTransactions

METADATA_SECONDS = 10.0
"""How long a topic that was just created may take to be known by every broker."""

REQUEST_MS = 20_000
"""How long one request may take before the broker counts as unavailable."""


@contextmanager
def answering(address: str) -> Iterator[None]:
    """Turn kafka-python's errors into :class:`~components.contracts.errors.UnavailableError`."""
    from kafka.errors import KafkaError

    try:
        yield
    except KafkaError as error:
        remedy = f"is the broker up? set COHOBATE_BOOTSTRAP_SERVERS to its address ({error!r:.200})"
        raise UnavailableError("Kafka", address, remedy) from error


class KafkaBroker:
    """Connections to the Kafka that the settings name, with their SASL and TLS settings."""

    def __init__(self, settings: Settings) -> None:
        self.address = settings.kafka
        self.config = client_config(settings)

    def ensure_topics(self, topics: Iterable[str], partitions: int = 1) -> None:
        """Create the topics that do not exist yet, and wait until the broker knows them.

        Raises:
            UnavailableError: the broker does not answer, or does not come to know them.

        """
        from kafka import KafkaAdminClient
        from kafka.admin import NewTopic
        from kafka.errors import TopicAlreadyExistsError

        wanted = set(topics)
        limits = {"max.message.bytes": str(MAX_RECORD_BYTES)}
        with answering(self.address):
            admin = KafkaAdminClient(**self.config)
            try:
                missing = sorted(wanted - set(admin.list_topics()))
                new = [
                    NewTopic(n, num_partitions=partitions, replication_factor=-1, topic_configs=limits) for n in missing
                ]
                try:
                    if new:
                        admin.create_topics(new)
                except TopicAlreadyExistsError:
                    pass  # another process was faster; the others of the request were created
                self._await_topics(admin, wanted)
            finally:
                admin.close()

    def _await_topics(self, admin: Any, wanted: set[str]) -> None:
        deadline = time.monotonic() + METADATA_SECONDS
        while missing := wanted - set(admin.list_topics()):
            if time.monotonic() > deadline:
                raise UnavailableError("Kafka", self.address, f"it does not list the new topics {sorted(missing)}")
            time.sleep(0.05)

    def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic in order; none where it does not exist.

        Raises:
            UnavailableError: the broker does not answer.

        """
        from kafka import KafkaAdminClient

        with answering(self.address):
            admin = KafkaAdminClient(**self.config)
            try:
                if topic not in admin.list_topics():
                    return []
                (found,) = admin.describe_topics([topic])
            finally:
                admin.close()
        numbers = (p.get("partition_index", p.get("partition")) for p in found["partitions"])
        return [TopicPartition(topic, n) for n in sorted(numbers)]

    def transactional_producer(self, transactional_id: str) -> KafkaTransactions:
        """A new transactional producer, which fences every earlier one of this id.

        Raises:
            UnavailableError: the broker does not answer.

        """
        from components.stream.kafka_transactions import KafkaTransactions

        return KafkaTransactions(self, transactional_id)

    def producer(self) -> KafkaProducer:
        """A new producer.

        Raises:
            UnavailableError: the broker does not answer.

        """
        with answering(self.address):
            return KafkaProducer(self.config, self.address)

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
            LostPositionsError: the broker lacks a position, and ``on_lost`` says to stop then.
            UnavailableError: the broker does not answer.

        """
        from components.stream.kafka_consumer import KafkaConsumer

        with answering(self.address):
            return KafkaConsumer(self.config, self.address, list(topics), group, start, partitions, on_lost)


class KafkaProducer:
    """An idempotent producer with ``acks=all``."""

    def __init__(self, config: Mapping[str, Any], address: str) -> None:
        from kafka import KafkaProducer as Client

        self._client: Any = Client(
            **config,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            max_request_size=MAX_RECORD_BYTES,
            max_block_ms=int(METADATA_SECONDS * 1000),
            allow_auto_create_topics=False,
        )
        self._config, self._address = config, address
        self._failures: list[Exception] = []
        self._known: set[str] = set()

    def send(
        self, topic: str, key: str | bytes | None, value: bytes, headers: Mapping[str, bytes] | None = None
    ) -> None:
        """Queue a record; a failure to deliver it is raised by the next :meth:`flush`.

        Raises:
            NotFoundError: the topic does not exist.
            RecordError: ``oversize``, the record is larger than :data:`MAX_RECORD_BYTES`.
            UnavailableError: the broker does not answer, and the buffer is full.

        """
        from kafka.errors import MessageSizeTooLargeError

        self._require(topic)
        name = key.encode() if isinstance(key, str) else key
        try:
            with answering(self._address):
                sent = self._client.send(topic, key=name, value=value, headers=list((headers or {}).items()))
        except UnavailableError as error:
            if isinstance(error.__cause__, MessageSizeTooLargeError):
                detail = f"{len(value)} bytes for {topic}; a record may have {MAX_RECORD_BYTES}"
                raise RecordError("oversize", detail) from error
            raise
        sent.add_errback(self._failures.append)

    def _require(self, topic: str) -> None:
        """Refuse an unknown topic at once.

        A client's own look-up blocks on a real Kafka, and makes the embedded broker create the topic, with four
        partitions and no word; the list of topics does neither.
        """
        from kafka import KafkaAdminClient

        if topic in self._known:
            return
        with answering(self._address):
            admin = KafkaAdminClient(**self._config)
            try:
                self._known = set(admin.list_topics())
            finally:
                admin.close()
        if topic not in self._known:
            raise NotFoundError("topic", topic, "create it with ensure_topics or Kafka's tools")

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until everything sent is acknowledged.

        Raises:
            UnavailableError: something was not, within ``timeout`` seconds.

        """
        with answering(self._address):
            self._client.flush(timeout=timeout)
        if self._failures:
            first, self._failures = self._failures[0], []
            raise UnavailableError("Kafka", self._address, f"records were not confirmed: {first!r}") from first

    def close(self) -> None:
        """Flush and release the connection."""
        self._client.close(timeout=10)


def client_config(settings: Settings) -> dict[str, Any]:
    """The options that every kafka-python client gets.

    ``retry_backoff_ms`` is short because retries here mostly wait for a transaction's markers, which take
    milliseconds (measured: 212 ms a transaction with the default of 100).
    """
    config: dict[str, Any] = {
        "bootstrap_servers": settings.kafka.split(","),
        "security_protocol": settings.security_protocol,
        "retry_backoff_ms": 10,
        "request_timeout_ms": REQUEST_MS,
    }
    if settings.sasl_mechanism is not None:
        password = settings.sasl_password
        config |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": password.get_secret_value() if password else None,
        }
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        if (path := getattr(settings, name)) is not None:
            config[name] = str(path)
    return config
