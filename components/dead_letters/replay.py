"""Replaying and dropping dead letters, so that a kill at any line neither loses nor doubles one.

The steps of :func:`replay`, for a few letters at a time:

1. Make the records whole: letters that were cut are read again from their records' own places. Where the workload's
   inputs are masked by now, mask them.
2. Learn the ledger's decisions. A letter that is decided is refused; one that is claimed by another replay is refused
   while that claim's lease lasts, and afterwards its replay counts as interrupted.
3. Look for what interrupted replays published, and note where the records' topic ends.
4. Claim the letters: one ledger entry, added only if no decision about them came since step 2.
5. Publish the records' bytes under the original key with the original headers, :data:`REPLAY_HEADER`,
   :data:`CLAIM_HEADER` and the count of attempts, and wait until the broker has them; what was found in step 3 is not
   published again.
6. Close the claim: another entry.

A kill before step 4 leaves nothing; one after it leaves a claim that the next replay of the same letter takes over when
its lease is over, and steps 3 and 5 then publish exactly what is missing. What the producer of the killed process still
had on its way was with the broker long before the lease ended.

Should a record come twice all the same (``--again``, or a broker that lost its records), the labeler's memory of label
keys gives it one label.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Literal, NamedTuple

from components.contracts.admission import ATTEMPTS_HEADER
from components.contracts.errors import NotFoundError, RecordError, UnavailableError
from components.contracts.failpoint import failpoint
from components.contracts.masking import masked_record, searched
from components.contracts.spec import Spec
from components.control.store import ControlStore
from components.control.tables import LedgerRow
from components.control.workloads import spec_in_force
from components.dead_letters.letters import Letter, original
from components.dead_letters.verdicts import CLAIM, CLOSE, DROP, LEASE_SECONDS, Verdict, Verdicts
from components.ledger import append, append_if, entries
from components.stream.contract import Broker, Producer, Record, TopicPartition, named, read_to_end

REPLAY_HEADER = "cohobate-replay-of"
"""The place of the record that a replayed one repeats: ``topic-partition@offset``."""

CLAIM_HEADER = "cohobate-replay-claim"
"""The ledger entry under which a replayed record was first to be published, as decimal digits."""

CHUNK = 50
"""Letters in one claim: at most 50 records of a few megabytes are in memory, and are published in seconds."""

FLUSH_SECONDS = 15.0
"""Longest wait for the broker's confirmation; with the sending before it and the closing after it, within a lease."""


class Outcome(NamedTuple):
    """What came of one letter. ``detail`` says by whom and why it was refused, or what failed."""

    letter: Letter
    result: Literal["replayed", "dropped", "refused", "failed"]
    detail: str


def verdicts(store: ControlStore, workload: str) -> Verdicts:
    """All decisions about a workload's letters so far."""
    known = Verdicts()
    known.learn(entries(store, workload))
    return known


def replay(
    store: ControlStore,
    broker: Broker,
    workload: str,
    letters: Iterable[Letter],
    *,
    actor: str,
    why: str,
    again: bool = False,
    rate: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Outcome]:
    """Publish the records of ``letters`` once more, at most ``rate`` a second; yields what came of each.

    ``again`` replays letters that were decided before, too.

    Raises:
        UnavailableError: the broker or the database does not answer; what was claimed is finished by another replay
            of the same letters, when the claim's lease is over.

    """
    size = CHUNK if rate is None else max(1, min(CHUNK, int(rate)))
    with contextlib.closing(broker.producer()) as producer:
        work = _Replay(
            store=store, broker=broker, producer=producer, workload=workload, actor=actor, why=why, again=again,
            spec=spec_in_force(store, workload),
        )  # fmt: skip
        for chunk in _chunks(letters, size):
            started = time.monotonic()
            yield from work.replay(chunk)
            if rate is not None:
                sleep(max(0.0, len(chunk) / rate - (time.monotonic() - started)))


def _chunks(letters: Iterable[Letter], size: int) -> Iterator[list[Letter]]:
    waiting = iter(letters)
    while chunk := list(islice(waiting, size)):
        yield chunk


@dataclass(kw_only=True)
class _Replay:
    """What all claims of a replay share; ``known`` is what has been learnt of the ledger."""

    store: ControlStore
    broker: Broker
    producer: Producer
    workload: str
    actor: str
    why: str
    again: bool
    spec: Spec | None
    known: Verdicts = field(default_factory=Verdicts)

    def replay(self, letters: Sequence[Letter]) -> Iterator[Outcome]:
        """The six steps; see the module."""
        # Step 1
        failpoint("dlq.1")
        records, failed = self._whole(letters)
        yield from failed
        # Step 2
        failpoint("dlq.2")
        self.known.learn(entries(self.store, self.workload, after=self.known.seq))
        claimable, refused = self._claimable([letter for letter in letters if letter.key in records])
        yield from refused
        if not claimable:
            return
        # Step 3
        failpoint("dlq.3")
        there, ends = self._published(claimable)
        # Step 4
        failpoint("dlq.4")
        claim = self._claim(claimable, ends)
        if claim is None:
            yield from (Outcome(x, "refused", "another replay was faster; look again") for x in claimable)
            return
        # Step 5
        failpoint("dlq.5")
        problems = self._publish(claim, [(x, records[x.key]) for x in claimable if x.key not in there])
        # Step 6
        failpoint("dlq.6")
        append(self.store, self.workload, self.actor, CLOSE, {"claim": claim.seq, "failed": sorted(problems)})
        failpoint("dlq.7")
        for letter in claimable:
            if letter.key in problems:
                yield Outcome(letter, "failed", problems[letter.key])
            else:
                found = "an interrupted replay had published it" if letter.key in there else ""
                yield Outcome(letter, "replayed", found)

    def _whole(self, letters: Sequence[Letter]) -> tuple[dict[str, Record], list[Outcome]]:
        records: dict[str, Record] = {}
        failed = []
        for letter in letters:
            try:
                records[letter.key] = self._masked(original(letter, self.broker))
            except (NotFoundError, RecordError) as error:
                failed.append(Outcome(letter, "failed", str(error)))
        return records, failed

    def _masked(self, record: Record) -> Record:
        """A record of an input as the workload lets it in by now: it may have been refused before inputs were masked.

        Raises:
            RecordError: it cannot be searched for what is to be masked.

        """
        if self.spec is None or self.spec.kinds.get(record.topic) not in ("inputs", "inputs.urgent"):
            return record
        found, error = searched(self.spec, partial(masked_record, self.spec, record))
        if error is not None:
            raise error
        return found

    def _claimable(self, letters: Sequence[Letter]) -> tuple[list[Letter], list[Outcome]]:
        now = self.store.clock()
        refusals = [(x, refusal(self.known.get(x.key), now, self.again)) for x in letters]
        return [x for x, why in refusals if not why], [Outcome(x, "refused", why) for x, why in refusals if why]

    def _interrupted(self, letters: Sequence[Letter]) -> dict[str, Verdict]:
        found = {letter.key: self.known.get(letter.key) for letter in letters}
        return {key: v for key, v in found.items() if v is not None and v.status == "replaying"}

    def _published(self, letters: Sequence[Letter]) -> tuple[set[str], dict[TopicPartition, int]]:
        """The keys that interrupted replays have published, and the positions behind which copies lie."""
        topics = sorted({letter.dead.topic for letter in letters})
        with contextlib.closing(self.broker.consumer(topics)) as consumer:
            ends = consumer.ends()
        interrupted = self._interrupted(letters)
        if not interrupted:
            return set(), ends
        for verdict in interrupted.values():
            ends |= {p: min(offset, ends[p]) for p, offset in verdict.ends.items() if p in ends}
        with contextlib.closing(self.broker.consumer(topics, start=ends)) as consumer:
            marks = {(r.headers.get(REPLAY_HEADER), r.headers.get(CLAIM_HEADER)) for r in read_to_end(consumer)}
        sought = {
            x.key: (x.name.encode(), str(interrupted[x.key].first).encode()) for x in letters if x.key in interrupted
        }
        return {key for key, mark in sought.items() if mark in marks}, ends

    def _claim(self, letters: Sequence[Letter], ends: dict[TopicPartition, int]) -> LedgerRow | None:
        keys = [letter.key for letter in letters]
        takes_over = {key: v.first for key, v in self._interrupted(letters).items()}

        def decide(rows: Sequence[LedgerRow]) -> dict[str, Any] | None:
            decided = {key for row in rows if row.action in (CLAIM, DROP) for key in row.detail["letters"]}
            closed = any(row.action == CLOSE and self._closes(row, keys) for row in rows)
            if closed or decided & set(keys):
                return None
            return {"letters": keys, "why": self.why, "ends": named(ends), "takes_over": takes_over}

        return append_if(self.store, self.workload, self.actor, CLAIM, decide, after=self.known.seq)

    def _closes(self, row: LedgerRow, keys: Sequence[str]) -> bool:
        """Whether a claim that counted as interrupted was closed after all."""
        return any((v := self.known.get(key)) and v.seq == row.detail["claim"] for key in keys)

    def _publish(self, claim: LedgerRow, records: Sequence[tuple[Letter, Record]]) -> dict[str, str]:
        """Publish, and return what the stream does not take, by letter key."""
        problems: dict[str, str] = {}
        for letter, record in records:
            self._hold(claim)
            marks = {
                REPLAY_HEADER: letter.name.encode(),
                CLAIM_HEADER: str(claim.detail["takes_over"].get(letter.key, claim.seq)).encode(),
                ATTEMPTS_HEADER: str(letter.dead.attempts + 1).encode(),
            }
            try:
                self.producer.send(record.topic, record.key, record.value, {**record.headers, **marks})
            except RecordError as error:
                problems[letter.key] = str(error)
        self.producer.flush(FLUSH_SECONDS)
        return problems

    def _hold(self, claim: LedgerRow) -> None:
        """Stop where so much of the lease is over that another replay could take the letters before all is sent."""
        if (held := self.store.clock() - claim.at) > LEASE_SECONDS / 3:
            remedy = f"it stood still for {held:.0f} s; replay the same letters again in {LEASE_SECONDS:.0f} s"
            raise UnavailableError("replay", self.workload, remedy)


def refusal(verdict: Verdict | None, now: float, again: bool) -> str:
    """Why a letter with this verdict is not replayed; empty when it may be."""
    if verdict is None:
        return ""
    if verdict.holds(now):
        wait = verdict.at + LEASE_SECONDS - now
        return f"{verdict}: it is at work, or was interrupted; try again in {wait:.0f} s"
    if verdict.status in ("replayed", "dropped") and not again:
        return f"{verdict}; --again replays it all the same"
    return ""


def drop(store: ControlStore, workload: str, letters: Iterable[Letter], *, actor: str, why: str) -> Iterator[Outcome]:
    """Decide that letters are not replayed; a ledger entry records who dropped which, and ``why``.

    The letters stay where they are until the topic's retention passes them.

    Raises:
        UnavailableError: the database does not answer.

    """
    known = Verdicts()
    for chunk in _chunks(letters, CHUNK):

        def decide(rows: Sequence[LedgerRow], chunk: Sequence[Letter] = chunk) -> dict[str, Any] | None:
            known.learn(rows)
            keys = [letter.key for letter in chunk if known.get(letter.key) is None]
            return {"letters": keys, "why": why} if keys else None

        row = append_if(store, workload, actor, DROP, decide, after=known.seq)
        dropped = set(row.detail["letters"]) if row else set()
        for letter in chunk:
            if letter.key in dropped:
                yield Outcome(letter, "dropped", why)
            else:
                yield Outcome(letter, "refused", str(known.get(letter.key)))
