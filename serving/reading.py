"""Reading a rollout's evidence from the stream.

Predictions are read from where the rollout's state stands, the teacher's labels from the beginning: an input whose
content was labelled long ago is audited at once.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from components.contracts.errors import CohobateError, RecordError
from components.contracts.records import Label, Prediction, decode
from components.contracts.spec import Spec
from components.stream.contract import Broker, Consumer, named, unnamed
from serving.rollout.evidence import Observation, Pending, Teachings, join, observe
from serving.rollout.state import Reading, RolloutState

log = logging.getLogger(__name__)

KEYS = 1_000_000
"""Keys that are remembered as seen, for the sample ratio; beyond them (and after a restart) a key counts again."""

TEACHINGS = 100_000
"""The teacher's labels that are kept for audits, by content: about 30 MB."""

LABELS = 2_000
PREDICTIONS = 2_000
"""Records read in one look: a busy minute's worth; what is more waits for the next look."""


class Look(NamedTuple):
    """What one look saw, and how far it read."""

    evidence: tuple[Observation, ...]
    reading: Reading


class EvidenceReader:
    """The streams of one workload's rollouts."""

    def __init__(self, spec: Spec, broker: Broker) -> None:
        self.spec, self.broker = spec, broker
        self.teachings = Teachings(TEACHINGS)
        self._labels = broker.consumer([spec.topic("labels")])
        self._predictions: Consumer | None = None
        self._keys: set[int] = set()

    def learn(self) -> None:
        """Take in the labels that are new."""
        for record in self._labels.poll(LABELS, timeout=0.0):
            try:
                self.teachings.learn(decode(Label, record.value))
            except RecordError as error:
                log.warning("%s: a label teaches nothing: %s", self.spec.name, error)

    def begin(self) -> Reading:
        """Stand at the end of the predictions, for a rollout that begins."""
        self.end()
        self._predictions = self.broker.consumer([self.spec.topic("predictions")], start="latest")
        return Reading(positions=named(self._predictions.positions()))

    def go_on(self, reading: Reading) -> None:
        """Stand where a rollout's state stands."""
        self.end()
        places = unnamed(reading.positions)
        self._predictions = self.broker.consumer([self.spec.topic("predictions")], start=places)

    def end(self) -> None:
        """Put the predictions aside."""
        self._keys.clear()
        if self._predictions is not None:
            self._predictions.close()
            self._predictions = None

    def close(self) -> None:
        """Release the connections."""
        self.end()
        self._labels.close()

    def look(self, state: RolloutState) -> Look:
        """The evidence that is new to ``state``, and its reading after it.

        Raises:
            CohobateError: neither :meth:`begin` nor :meth:`go_on` was called.

        """
        if self._predictions is None:
            raise CohobateError(f"rollout {state.id} has no open stream of predictions")
        answered: list[Observation] = []
        pending = list(state.reading.pending)
        for one, waits in self._observed(self._predictions, state):
            answered.append(one)
            if waits is not None:
                pending.append(waits)
        audits, waiting = join(pending, self.teachings, state.candidate.teacher)
        reading = Reading(
            positions=named(self._predictions.positions()), pending=waiting, journal=state.reading.journal
        )
        return Look((*answered, *audits), reading)

    def _observed(self, consumer: Consumer, state: RolloutState) -> list[tuple[Observation, Pending | None]]:
        seen: list[tuple[Observation, Pending | None]] = []
        for record in consumer.poll(PREDICTIONS, timeout=0.0):
            try:
                prediction = decode(Prediction, record.value)
            except RecordError as error:
                log.warning("%s: a prediction is no evidence: %s", self.spec.name, error)
                continue
            weight = state.weight_of(prediction.time)
            repeat = bool(weight) and self._repeats(prediction.key)
            answered, pending = observe(
                prediction, state.champion.version, state.candidate.version, weight, repeat
            )  # fmt: skip
            if answered is not None:
                seen.append((answered, pending))
        return seen

    def _repeats(self, key: str) -> bool:
        """Whether a key had a request before while this rollout split the traffic."""
        known = hash(key)
        if known in self._keys:
            return True
        if len(self._keys) < KEYS:
            self._keys.add(known)
        return False
