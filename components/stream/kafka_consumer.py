"""The consumer on Kafka's protocol.

Partitions are assigned by hand and positions committed under a group name: a group join takes 15 to 45 s on the
embedded broker and gives nothing to a single consumer.

Positions that the broker does not have (it lost its memory, or retention passed them) are never skipped in silence:
reading starts again from the earliest record, with a logged warning and a count in :attr:`KafkaConsumer.resets`, or
stops with an error, as ``on_lost`` says. Whoever reads on must therefore bear records twice. A broker that lost its
records and got *more* new ones than before cannot be told by its offsets: :mod:`components.snapshot.reading` compares
contents for that. What an embedded broker says while it is given its records back is not believed
(:mod:`components.stream.restored`): it counts as one that does not answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal

from components.contracts.errors import LostPositionsError, NotFoundError, UnavailableError
from components.stream.answering import CREATE, METADATA_SECONDS, answering
from components.stream.contract import MAX_RECORD_BYTES, OnLost, Positions, Record, TopicPartition
from components.stream.restored import Found, Restored, of_whole

log = logging.getLogger(__name__)

PROBE_SECONDS = 30.0
"""How long :meth:`KafkaConsumer.ends` waits for the broker's answer about the last batches: it comes in 100 ms, unless
one of the two stands still. An end that is too low would pass for lost positions, or leave records unread."""

STEP_MS = 50
"""How long it waits before it looks whether the answer is there."""

WAIT_SECONDS = 0.1
"""How long a consumer waits, at most, before it asks again a broker that is being given its records back."""

LOOK_SECONDS = 5.0
"""How often an idle consumer checks that the broker still has its positions: the embedded broker answers a fetch
beyond the end with nothing, for ever, instead of an error."""


class KafkaConsumer:
    """A consumer of partitions assigned by hand, reading committed records only."""

    def __init__(
        self,
        config: Mapping[str, Any],
        address: str,
        topics: list[str],
        group: str | None,
        start: Literal["earliest", "latest"] | Positions,
        partitions: Iterable[TopicPartition] | None,
        on_lost: OnLost = "earliest",
        *,
        restored: Restored,
    ) -> None:
        from kafka import TopicPartition as Partition

        self._config, self._address, self.group = config, address, group
        self._on_lost, self._restored = on_lost, restored
        self.resets = 0
        self._partition = Partition
        self._looked = time.monotonic()
        self._probe: Any = None
        self._raw: Any = None
        self._assigned: list[Any] = []
        self._client = self._open(group)
        try:
            self._start(topics, partitions, start)
        except BaseException:
            self.close()
            raise

    def _open(self, group: str | None, isolation: str = "read_committed") -> Any:
        from kafka import KafkaConsumer as Client

        return Client(
            **self._config,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=isolation,
            allow_auto_create_topics=False,
            max_partition_fetch_bytes=MAX_RECORD_BYTES,
            fetch_max_wait_ms=100,
        )

    def _partitions_of(self, topics: list[str]) -> list[TopicPartition]:
        found: list[TopicPartition] = []
        deadline = time.monotonic() + METADATA_SECONDS
        for topic in topics:
            while not (numbers := self._client.partitions_for_topic(topic)):
                if time.monotonic() > deadline:
                    raise NotFoundError("topic", topic, f"it has no partitions: {CREATE}")
                time.sleep(0.05)
            found += [TopicPartition(topic, n) for n in sorted(numbers)]
        return found

    def _start(
        self,
        topics: list[str],
        partitions: Iterable[TopicPartition] | None,
        start: Literal["earliest", "latest"] | Positions,
    ) -> None:
        def places() -> dict[Any, tuple[int, int, bool]]:
            chosen = self._partitions_of(topics) if partitions is None else partitions
            self._assigned = [self._partition(*place) for place in chosen]
            self._client.assign(self._assigned)
            return self._places(start)

        for partition, (wanted, first, there) in self._of_whole(places).items():
            if there:
                self._client.seek(partition, wanted)
            else:
                self._reset(partition, wanted, first)

    def _places(self, start: Literal["earliest", "latest"] | Positions) -> dict[Any, tuple[int, int, bool]]:
        """Of each partition the position to begin at, the first one that there is, and whether the broker has it."""
        firsts = self._client.beginning_offsets(self._assigned)
        ends: Positions | None = None
        least = self._client.end_offsets(self._assigned)
        found = {}
        for partition in self._assigned:
            name = TopicPartition(partition.topic, partition.partition)
            wanted = self._client.committed(partition) if self.group else None
            if wanted is None and isinstance(start, Mapping):
                wanted = start.get(name)
            if ends is None and (start == "latest" if wanted is None else wanted > least[partition]):
                ends = self._ends()
            if wanted is None:
                wanted = ends[name] if start == "latest" and ends is not None else firsts[partition]
            lost = wanted < firsts[partition] or (ends is not None and wanted > ends[name])
            found[partition] = (wanted, firsts[partition], not lost)
        return found

    def _of_whole(self, ask: Callable[[], Found]) -> Found:
        return of_whole(self._restored, self._address, ask)

    def _reset(self, partition: Any, wanted: int, earliest: int) -> None:
        if self._on_lost == "stop":
            raise LostPositionsError(partition.topic, partition.partition, wanted, earliest)
        self.resets += 1
        log.warning(
            "%s-%d has no offset %d any more: reading again from the earliest, %d; did the broker lose its records?",
            partition.topic, partition.partition, wanted, earliest,
        )  # fmt: skip
        self._client.seek(partition, earliest)

    def poll(self, max_records: int = 500, timeout: float = 0.5) -> list[Record]:
        """Up to ``max_records`` records, waiting up to ``timeout`` seconds for the first.

        While the broker is away this returns nothing; the connection comes back by itself.
        """
        from kafka.errors import OffsetOutOfRangeError

        with answering(self._address):
            try:
                batches = self._client.poll(timeout_ms=int(timeout * 1000), max_records=max_records)
            except OffsetOutOfRangeError as error:
                self._reset_lost(error.args[0], timeout)
                return []
        if not batches and time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            self._look()
        return [
            Record(r.topic, r.partition, r.offset, r.key, r.value, dict(r.headers or ()), r.timestamp / 1000.0)
            for batch in batches.values()
            for r in batch
        ]

    def _reset_lost(self, doubted: Mapping[Any, int], timeout: float) -> None:
        """Reset positions that a fetch did not find, unless the broker was only being given its records back."""
        try:
            firsts, ends = self._of_whole(lambda: (self._client.beginning_offsets(list(doubted)), self._ends()))
        except UnavailableError:
            time.sleep(min(timeout, WAIT_SECONDS))
            return
        for partition, wanted in doubted.items():
            if firsts[partition] <= wanted <= ends[TopicPartition(partition.topic, partition.partition)]:
                self._client.seek(partition, wanted)
            else:
                self._reset(partition, wanted, firsts[partition])

    def _second(self) -> Any:
        """A second connection: on the first a question waits for the answer to the fetch before it, up to 100 ms."""
        if self._probe is None:
            self._probe = self._open(None)
            self._probe.assign(self._assigned)
        return self._probe

    def _look(self) -> None:
        """Reset partitions whose position lies behind the end; while the broker is away there is nothing to see."""
        from kafka.errors import KafkaError

        with suppress(KafkaError):
            least = self._second().end_offsets(self._assigned, timeout_ms=1000)
            at = {p: self._client.position(p) for p in self._assigned}
            if doubted := {p: o for p, o in at.items() if o > least[p]}:
                self._reset_lost(doubted, 0.0)

    def positions(self) -> dict[TopicPartition, int]:
        """The next offset that ``poll`` would return, by partition."""
        return {TopicPartition(p.topic, p.partition): self._client.position(p) for p in self._assigned}

    def ends(self) -> dict[TopicPartition, int]:
        """The offset after the last committed record, by partition.

        Raises:
            UnavailableError: the broker does not answer.

        """
        with answering(self._address):
            return self._of_whole(self._ends)

    def _ends(self) -> dict[TopicPartition, int]:
        """The embedded broker answers a question for the end with the *first* offset of the last batch plus one.

        So the last batch is fetched on a second connection, and the position behind it is taken where it is higher.
        While a transaction is open it answers 0, whatever was committed: see :meth:`_committed`.
        """
        from kafka.errors import KafkaTimeoutError, OffsetOutOfRangeError

        probe = self._second()
        firsts, least = probe.beginning_offsets(self._assigned), probe.end_offsets(self._assigned)
        if doubtful := [p for p in self._assigned if least[p] <= firsts[p]]:
            least |= self._committed(probe, doubtful, firsts)
        for partition in self._assigned:
            probe.seek(partition, max(least[partition] - 1, firsts[partition]))
        unread = [p for p in self._assigned if least[p] > firsts[p]]
        deadline = time.monotonic() + PROBE_SECONDS
        while unread and time.monotonic() < deadline:
            try:
                probe.poll(timeout_ms=STEP_MS, max_records=1_000_000)
            except OffsetOutOfRangeError as error:  # retention passed it this very moment: the end stands
                unread = [p for p in unread if p not in error.args[0]]
            unread = [p for p in unread if probe.position(p) < least[p]]
        if unread:
            raise KafkaTimeoutError(f"the last batches of {unread} did not come in {PROBE_SECONDS:.0f} s")
        return {TopicPartition(p.topic, p.partition): max(least[p], probe.position(p)) for p in self._assigned}

    def _committed(self, probe: Any, partitions: list[Any], firsts: Mapping[Any, int]) -> dict[Any, int]:
        """An offset no higher than the end of what is committed, and higher than the first where anything is.

        Steps back from the end of what is written, doubling, until a reader of committed records gets something: as
        many steps as the open transaction has doublings of one record.
        """
        if self._raw is None:  # kept: empty partitions are asked for again and again, and a client is slow to open
            self._raw = self._open(None, isolation="read_uncommitted")
        written = self._raw.end_offsets(partitions)
        found = {p: firsts[p] for p in partitions}
        for partition in partitions:
            back, at = 1, written[partition]
            while at > firsts[partition] and found[partition] == firsts[partition]:
                at, back = max(firsts[partition], written[partition] - back), back * 2
                if _holds(probe, partition, at):
                    found[partition] = at + 1
        probe.assign(self._assigned)
        return found

    def commit(self, positions: Positions | None = None) -> None:
        """Make positions durable under the group.

        Raises:
            ValueError: the consumer was opened without a group.
            UnavailableError: the broker did not confirm, or may have forgotten them: it is given its records back.

        """
        from kafka.structs import OffsetAndMetadata

        if self.group is None:
            raise ValueError("this consumer has no group to commit under")
        wanted = self.positions() if positions is None else positions
        with answering(self._address):
            offsets = {self._partition(*p): OffsetAndMetadata(o, "", -1) for p, o in wanted.items()}
            self._of_whole(lambda: self._client.commit(offsets))

    def lag(self) -> int:
        """Records between the present positions and the ends, cheaply.

        Zero only when nothing waits; on the embedded broker it can be less than what waits, see :meth:`ends`.

        Raises:
            UnavailableError: the broker does not answer.

        """
        with answering(self._address):
            ends = self._of_whole(lambda: self._client.end_offsets(self._assigned))
            known = {p: max(ends[p], self._client.highwater(p) or 0) for p in self._assigned}
            return sum(max(0, known[p] - self._client.position(p)) for p in self._assigned)

    def close(self) -> None:
        """Release the connections; does not commit."""
        for client in (self._client, self._probe, self._raw):
            if client is not None:
                client.close(autocommit=False)


def _holds(probe: Any, partition: Any, at: int) -> bool:
    """Whether a reader of committed records gets anything from ``at`` on, once the broker has answered its fetch."""
    from kafka.errors import KafkaTimeoutError

    probe.unsubscribe()  # so that what is known of the partition is from this fetch's answer, not from one before
    probe.assign([partition])
    probe.seek(partition, at)
    deadline = time.monotonic() + PROBE_SECONDS
    while probe.highwater(partition) is None and time.monotonic() < deadline:
        probe.poll(timeout_ms=STEP_MS, max_records=1_000_000)
    if probe.highwater(partition) is None:
        raise KafkaTimeoutError(f"no answer about {partition} in {PROBE_SECONDS:.0f} s")
    return bool(probe.position(partition) > at)
