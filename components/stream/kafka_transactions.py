"""Transactions on Kafka's protocol: the producer of :class:`components.stream.contract.TransactionalProducer`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from components.contracts.errors import CohobateError, FencedError, NotFoundError, RecordError, UnavailableError
from components.stream.contract import MAX_RECORD_BYTES, Positions, TopicPartition

OPEN_MS = 20_000
"""How long taking a transactional id may take: the broker first ends what the predecessor left open."""

TRANSACTION_MS = 60_000
"""How long the broker leaves a transaction open whose producer is gone and has no successor; readers wait so long."""

CLOSE_SECONDS = 2.0
"""How long a producer that has nothing left to say may take to hang up."""

EMBEDDED_CLUSTER = "tansu_cluster"
"""The id of the embedded broker's cluster, which it is started with; Kafka makes one by chance."""

VERB_SECONDS = 30.0
"""How long adding positions may take."""


class KafkaTransactions:
    """A transactional producer with ``acks=all``.

    kafka-python waits for a transaction's end without a limit (and the embedded broker hangs up on a fenced producer
    that commits, which kafka-python takes for a reason to try again for ever), so what may block is called on a
    thread of its own that is left behind when its time is over.

    The embedded broker forgets positions that it was given in a transaction without a record (``findings``:
    ``tansu_positions_alone.sh``), as a batch of which nothing becomes a label has none: whether it has them is looked
    at, and where it has not they are set by themselves. No transaction fences that: a successor that moves on between
    the look and the write is set back, and reads inputs again whose labels have the same keys. Apache Kafka, which
    keeps such positions, is not asked.
    """

    def __init__(
        self,
        address: str,
        config: Mapping[str, Any],
        partitions: Callable[[str], list[TopicPartition]],
        transactional_id: str,
    ) -> None:
        from kafka import KafkaProducer as Client

        self._address, self._partitions_of, self.transactional_id = address, partitions, transactional_id
        self._failures: list[Exception] = []
        self._config, self._sent = config, 0
        self._moved: dict[str, Positions] = {}
        self._groups: Any = None
        self._forgets: bool | None = None
        self._over = threading.Event()
        self._partitions: dict[str, set[int]] = {}
        with self._translated():
            self._client: Any = Client(
                **config,
                transactional_id=transactional_id,
                transaction_timeout_ms=TRANSACTION_MS,
                acks="all",
                enable_idempotence=True,
                linger_ms=2,
                batch_size=256 * 1024,
                max_request_size=MAX_RECORD_BYTES,
                max_block_ms=OPEN_MS,
                allow_auto_create_topics=False,
            )
            try:
                self._client.init_transactions()
            except BaseException:
                self.close()
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn kafka-python's errors into this project's; a fenced producer's come in several disguises."""
        from kafka.errors import KafkaError, MessageSizeTooLargeError

        try:
            yield
        except MessageSizeTooLargeError as error:
            raise RecordError("oversize", f"a record may have {MAX_RECORD_BYTES} bytes: {error}") from error
        except KafkaError as error:
            raise self._meaning(error) from error

    def _meaning(self, error: BaseException) -> CohobateError:
        from kafka.errors import InvalidProducerEpochError, ProducerFencedError

        seen = repr(error)
        if any(kind.__name__ in seen for kind in (ProducerFencedError, InvalidProducerEpochError)):
            return FencedError(f"transactional id {self.transactional_id}", "a newer producer has it, or the broker "
                               "ended a transaction that took too long")  # fmt: skip
        return UnavailableError("Kafka", self._address, f"a transaction was not taken or confirmed ({seen:.200})")

    def begin(self) -> None:
        """Begin a transaction."""
        self._failures.clear()
        self._moved, self._sent = {}, 0
        with self._translated():
            self._client.begin_transaction()

    def send(
        self,
        topic: str,
        key: str | bytes | None,
        value: bytes,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
    ) -> None:
        """Queue a record; a failure to deliver it is raised by :meth:`commit`.

        Raises:
            NotFoundError: the topic or the partition does not exist.
            RecordError: ``oversize``, the record is larger than :data:`MAX_RECORD_BYTES`.

        """
        self._require(topic, partition)
        name = key.encode() if isinstance(key, str) else key
        with self._translated():
            sent = self._client.send(
                topic, key=name, value=value, headers=list((headers or {}).items()), partition=partition
            )
        self._sent += 1
        sent.add_errback(self._failures.append)

    def _require(self, topic: str, partition: int | None) -> None:
        """Refuse what does not exist at once; the client would wait for it, and the embedded broker create it."""
        if topic not in self._partitions:
            self._partitions[topic] = {p.partition for p in self._partitions_of(topic)}
        if not self._partitions[topic]:
            del self._partitions[topic]
            raise NotFoundError("topic", topic, "create it with ensure_topics or Kafka's tools")
        if partition is not None and partition not in self._partitions[topic]:
            raise NotFoundError("partition", f"{topic}-{partition}", f"it has {len(self._partitions[topic])}")

    def send_offsets(self, group: str, positions: Positions) -> None:
        """Add a group's positions to the transaction."""
        from kafka import TopicPartition as Partition
        from kafka.structs import OffsetAndMetadata

        offsets = {Partition(*p): OffsetAndMetadata(o, "", -1) for p, o in positions.items()}
        self._bounded(lambda: self._client.send_offsets_to_transaction(offsets, group), VERB_SECONDS)
        self._moved = {**self._moved, group: {**self._moved.get(group, {}), **positions}}

    def commit(self, timeout: float = 30.0) -> None:
        """Make all of it visible; returns when it is durable.

        Raises:
            FencedError: a newer producer has this transactional id.
            UnavailableError: it was not confirmed in time; whether it counts, the committed positions tell.

        """
        self._bounded(self._client.flush, timeout)
        if self._failures:
            raise self._meaning(self._failures[0]) from self._failures[0]
        self._bounded(self._client.commit_transaction, timeout)
        if self._moved and not self._sent and self._forgets is not False:
            self._bounded(self._keep_positions, VERB_SECONDS)

    def _keep_positions(self) -> None:
        """Set the positions of a transaction without a record that the broker does not have: see the class."""
        from kafka import KafkaAdminClient
        from kafka import TopicPartition as Partition
        from kafka.errors import NoError
        from kafka.structs import OffsetAndMetadata

        if self._groups is None:
            self._groups = KafkaAdminClient(**self._config)
        if self._forgets is None:
            self._forgets = self._groups.describe_cluster()["cluster_id"] == EMBEDDED_CLUSTER
        if not self._forgets:
            return
        found = self._groups.list_group_offsets(
            {group: [Partition(*p) for p in at] for group, at in self._moved.items()}
        )
        for group, positions in self._moved.items():
            has = {p: found.get(group, {}).get(Partition(*p)) for p in positions}
            lost = {p: o for p, o in positions.items() if (known := has[p]) is None or known.offset < o}
            if not lost or self._over.is_set():  # whoever called is gone, and a successor may have moved on
                continue
            offsets = {Partition(*p): OffsetAndMetadata(o, "", -1) for p, o in lost.items()}
            # kafka-python raises nothing for a partition: it gives the error's class
            for place, answer in self._groups.alter_group_offsets(group, offsets).items():
                if answer is not NoError:
                    raise answer(f"the position of {group} in {place} was not taken")

    def abort(self, timeout: float = 30.0) -> None:
        """Drop all of it."""
        self._bounded(self._client.abort_transaction, timeout)

    def _bounded(self, verb: Callable[[], Any], timeout: float) -> None:
        failure: list[BaseException] = []

        def call() -> None:
            try:
                verb()
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=call, name=f"transaction-{self.transactional_id}", daemon=True)
        thread.start()
        thread.join(timeout)
        if thread.is_alive():
            self._over.set()
            detail = f"a transaction of {self.transactional_id} took longer than {timeout:.0f} s"
            raise UnavailableError("Kafka", self._address, detail)
        with self._translated():
            if failure:
                raise failure[0]

    def close(self) -> None:
        """Release the connection; the broker drops an open transaction when the id is taken anew."""
        from kafka.errors import KafkaError

        with suppress(KafkaError):
            if self._groups is not None:
                self._groups.close()
            self._client.close(timeout=CLOSE_SECONDS)
