"""Reading a rollout's evidence from the stream.

Predictions are read from where the rollout's state stands, the teacher's labels from the beginning: an input whose
content was labelled long ago is audited at once. Truths are read from the beginning too, and are joined with answers
that are held in memory (:mod:`serving.rollout.truths`).

A controller that goes on with a rollout fills that memory again before it goes on:

1. It reads the predictions from the oldest one that was held. Those before the state's position counted already, and
   are only held.
2. It reads the truths from the beginning. Those before the state's position counted already for the answers of step 1.

Nothing is durable in between that would not be true if it stopped there.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from components.contracts.errors import CohobateError, RecordError
from components.contracts.records import Prediction, decode, label_of
from components.contracts.spec import Kind, Spec
from components.snapshot.provenance import usable_truth
from components.stream.contract import Broker, Consumer, Record, named, unnamed
from serving.rollout.evidence import Answered, Audited, Observation, Pending, Teachings, join, observe
from serving.rollout.state import Reading, RolloutState
from serving.rollout.truths import Answer, Held, Match, TruthCounts, counts, judge

log = logging.getLogger(__name__)

KEYS = 1_000_000
"""Keys that are remembered as seen, for the sample ratio; beyond them (and after a restart) a key counts again."""

TEACHINGS = 100_000
"""The teacher's labels that are kept for audits, by content: about 30 MB."""

LABELS = 2_000
TRUTHS = 2_000
PREDICTIONS = 2_000
"""Records read in one look: a busy minute's worth; what is more waits for the next look."""


class Look(NamedTuple):
    """What one look saw, and how far it read."""

    evidence: tuple[Observation, ...]
    reading: Reading


class _Floor:
    """The positions up to which a stream was read before the restart, until it has been read to there again."""

    def __init__(self, positions: dict[str, int]) -> None:
        self.positions = positions

    @classmethod
    def of(cls, positions: dict[str, int], consumer: Consumer) -> _Floor:
        """The floor at these positions; none where the broker has lost the records before them: all are new then."""
        lost = any(end < positions.get(name, 0) for name, end in named(consumer.ends()).items())
        return cls({} if lost else dict(positions))

    def reached(self, consumer: Consumer) -> bool:
        """Whether the stream was read to there."""
        if self.positions and all(at >= self.positions.get(n, 0) for n, at in named(consumer.positions()).items()):
            self.positions = {}
        return not self.positions

    def before(self, record: Record) -> bool:
        """Whether a record was read before the restart."""
        return record.offset < self.positions.get(record.place.name, 0)

    def over(self, consumer: Consumer) -> dict[str, int]:
        """The positions that are durable: never behind those from before the restart."""
        return {name: max(at, self.positions.get(name, 0)) for name, at in named(consumer.positions()).items()}


class EvidenceReader:
    """The streams of one workload's rollouts.

    ``passed_over``: records since the start that say nothing, by their topic's kind (``labels``, ``predictions``); what
    becomes of truths is in :class:`~serving.rollout.truths.TruthCounts`.
    """

    def __init__(self, spec: Spec, broker: Broker) -> None:
        self.spec, self.broker = spec, broker
        self.teachings, self.held = Teachings(TEACHINGS), Held()
        self.passed_over: Counter[str] = Counter()
        broker.ensure_topics(spec.topics, spec.partitions)  # on a new broker we may be first, and a gateway makes none
        self._labels = broker.consumer([spec.topic("labels")])
        self._truths = broker.consumer([spec.topic("truth")])
        self._predictions: Consumer | None = None
        self._keys: set[int] = set()
        self._matches: list[Match] = []
        self._read, self._learnt = _Floor({}), _Floor({})
        self._there = _Floor(named(self._labels.ends()))

    def learn(self) -> int:
        """Take in the labels and the truths that are new; truths only once the answers are held that they are of.

        Returns how many came.
        """
        labels = self._labels.poll(LABELS, timeout=0.0)
        for record in labels:
            try:
                self.teachings.learn(label_of(self.spec.task, record.value))
            except RecordError as error:
                self._pass_over("labels", record, error)
        if not self.teachings.complete:  # a stream that begins anew has nothing of what was there
            self.teachings.complete = self._there.reached(self._labels) or self._labels.resets > 0
        if self._predictions is not None and not self._read.reached(self._predictions):
            return len(labels)
        self._learnt.reached(self._truths)
        truths = self._truths.poll(TRUTHS, timeout=0.0)
        for record in truths:
            self._learn_truth(record)
        return len(labels) + len(truths)

    def _learn_truth(self, record: Record) -> None:
        before = self._learnt.before(record)
        try:
            self._matches += self.held.learn(usable_truth(self.spec, record), before)
        except RecordError as error:
            log.debug("%s: a truth is unusable: %s", self.spec.name, error)  # the next snapshot counts and keeps it
            if not before:
                self.held.counted = self.held.counted.plus("refused")

    def _pass_over(self, kind: Kind, record: Record, error: RecordError) -> None:
        self.passed_over[kind] += 1
        log.warning("%s-%d@%d says nothing: %s", record.topic, record.partition, record.offset, error)

    def begin(self, at: float) -> Reading:
        """Stand at the end of the predictions, for a rollout that begins ``at`` (Unix seconds)."""
        self.end()
        self._predictions = self.broker.consumer([self.spec.topic("predictions")], start="latest")
        self.held.anew(at, TruthCounts(), 0.0)
        return Reading(positions=named(self._predictions.positions()), truths=self._learnt.over(self._truths))

    def go_on(self, state: RolloutState) -> None:
        """Stand where a rollout's state stands, or at the oldest answer that waits for its truth."""
        self.end()
        reading = state.reading
        places = unnamed({**reading.positions, **reading.since})
        self._predictions = self.broker.consumer([self.spec.topic("predictions")], start=places)
        self._read = _Floor.of(reading.positions, self._predictions)
        self._learnt = _Floor.of(reading.truths, self._truths)
        self.held.anew(state.created_at, reading.truth, reading.given_up_until)

    def end(self) -> None:
        """Put the predictions aside."""
        self._keys.clear()
        self._matches.clear()
        self._read = _Floor({})
        self.held.anew(0.0, TruthCounts(), 0.0)
        if self._predictions is not None:
            self._predictions.close()
            self._predictions = None

    def close(self) -> None:
        """Release the connections."""
        self.end()
        self._labels.close()
        self._truths.close()

    def look(self, state: RolloutState) -> Look:
        """The evidence that is new to ``state``, and its reading after it.

        Raises:
            CohobateError: neither :meth:`begin` nor :meth:`go_on` was called.

        """
        if self._predictions is None:
            raise CohobateError(f"rollout {state.id} has no open stream of predictions")
        pending = list(state.reading.pending)
        answered, waits = self._observed(self._predictions, state)
        audits, waiting = join([*pending, *waits], self.teachings, state.candidate.teacher)
        truths = self._judged(state.candidate.teacher)
        positions = self._read.over(self._predictions)
        since = state.reading.since if self._read.positions else self.held.since()
        reading = Reading(
            positions=positions,
            pending=waiting,
            journal=state.reading.journal,
            truths=self._learnt.over(self._truths),
            since=positions if since is None else since,
            given_up_until=self.held.given_up_until,
            truth=self.held.counted,
        )
        return Look((*answered, *audits, *truths), reading)

    def _observed(self, consumer: Consumer, state: RolloutState) -> tuple[list[Answered], list[Pending]]:
        """What is new in the predictions, and what of it waits for the teacher; what may be true of it is held."""
        self._read.reached(consumer)
        seen: list[Answered] = []
        waits: list[Pending] = []
        answers: list[Answer] = []
        since = named(consumer.positions())
        for record in consumer.poll(PREDICTIONS, timeout=0.0):
            try:
                prediction = decode(Prediction, record.value)
            except RecordError as error:
                self._pass_over("predictions", record, error)
                continue
            before, weight = self._read.before(record), state.weight_of(prediction.time)
            repeat = bool(weight) and self._repeats(prediction.key)
            answered, given = observe(
                prediction, state.champion.version, state.candidate.version, weight, repeat
            )  # fmt: skip
            if given is not None and counts(given):
                answers.append(Answer(prediction.input_id, prediction.time, given, before))
            if answered is None or before:
                continue
            seen.append(answered)
            if given is not None and prediction.audited:
                waits.append(given)
        self._matches += self.held.hold(since, answers)
        return seen, waits

    def _judged(self, teacher: str) -> Sequence[Audited]:
        """What the truth says of the answers that it came to."""
        found: list[Audited] = []
        for match in self._matches:
            audited = judge(match, self.teachings.of(match.given.content, teacher))
            self.held.counted = self.held.counted.plus("unjudged" if audited is None else "counted")
            if audited is not None:
                found.append(audited)
        self._matches.clear()
        return found

    def _repeats(self, key: str) -> bool:
        """Whether a key had a request before while this rollout split the traffic."""
        known = hash(key)
        if known in self._keys:
            return True
        if len(self._keys) < KEYS:
            self._keys.add(known)
        return False
