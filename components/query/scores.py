"""What is known of inputs that wait for a label: the policies' scores, and which are of a new regime."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from typing import Any

from components.contracts.errors import ArtifactError, CohobateError
from components.contracts.records import Input, SoftLabel
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes
from components.control.alarm_kinds import MONITORED
from components.control.intent import Intent, ModelRef
from components.control.store import ControlStore
from components.query.coverage import Coverage
from components.query.policies import UNCERTAINTY, Scores
from components.student.features import featuriser
from components.student.runtime import Reply, Student
from drift.novelty_detector import TAIL

log = logging.getLogger(__name__)

REFRESH_SECONDS = 5.0
"""How often the intent is looked at; a policy that asks the champion before last for so long draws no worse."""


class StudentScores:
    """Soft labels by the champion or, for the policy ``committee``, by champion, candidate and previous.

    It follows the durable intent. For policies that ask no student it loads none, unless an alarm is open and the
    budget is not enough for all. For ``coverage`` it remembers what was labelled.
    """

    def __init__(self, spec: Spec, store: ControlStore, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self.spec, self._store, self._refresh = spec, store, refresh_seconds
        self._due = -1.0
        self._refs: list[ModelRef] = []
        self._students: dict[str, Student] = {}
        self._alarmed_at: float | None = None
        self._coverage: Coverage | None = None
        if spec.label.policy.kind == "coverage":
            self._coverage = Coverage(featuriser(spec.features, spec.source), spec.seed)

    def __call__(self, payloads: Sequence[Any]) -> Scores | None:
        """Soft labels of decoded payloads, by student, the champion first; None where there is no champion.

        For ``coverage`` how rare it is to be as far from all that is labelled.
        """
        if self._coverage is not None:
            return [self._coverage.rarities(payloads)]
        if self.spec.label.policy.kind not in UNCERTAINTY:
            return None
        self._follow()
        if self.spec.label.policy.kind == "novelty":
            return self._novelty(payloads)
        members: list[list[SoftLabel]] = []
        for ref in self._refs:
            student = self._students.get(ref.digest)
            if student is None:
                continue
            try:
                members.append(student.predict_decoded(payloads))
            except ArtifactError as error:
                log.warning("%s: version %s gives no scores: %s", self.spec.name, ref.version, error)
        return members or None

    def labelled(self, places: Collection[int]) -> None:
        """Take which of the payloads that were asked about last are labelled, by their places."""
        if self._coverage is not None:
            self._coverage.labelled(places)

    def of_new_regime(self, inputs: Sequence[Input], payloads: Sequence[Any]) -> set[int]:
        """Places of the inputs that an open alarm about the champion tells of; none while there is no alarm.

        They came after it, and are novel to the champion: their p-value is at most :data:`.TAIL`. Of a champion that
        tells of no novelty all that came after the alarm are.
        """
        label = self.spec.label
        scarce = label.policy.kind in UNCERTAINTY or (label.budget.per_hour, label.budget.per_day) != (None, None)
        if not scarce:
            return set()
        self._follow()
        after = self._alarmed_at
        if after is None:
            return set()
        late = [i for i, entry in enumerate(inputs) if entry.time >= after]
        told = self._novelty([payloads[i] for i in late]) if late else None
        if told is None:
            return set(late)
        novelty = [said.novelty for said in told[0]]
        return {i for i, p in zip(late, novelty, strict=True) if p is not None and p <= TAIL}

    def _novelty(self, payloads: Sequence[Any]) -> list[list[Reply]] | None:
        """The champion's soft labels and what is novel to it; None where it tells of no novelty, or nothing serves."""
        student = self._students.get(self._refs[0].digest) if self._refs else None
        if student is None or not student.tells_novelty:
            return None
        try:
            return [student.reply_decoded(payloads)]
        except ArtifactError as error:
            log.warning("%s: version %s gives no scores: %s", self.spec.name, self._refs[0].version, error)
            return None

    def _follow(self) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._refresh
        intent = self._store.intent(self.spec.name)[1]
        alarms = self._store.open_alarms(self.spec.name, intent.champion.version) if intent.champion else []
        self._alarmed_at = min((a.at for a in alarms if a.kind in MONITORED), default=None)
        self._refs = self._members(intent)
        wanted = {ref.digest: ref for ref in self._refs}
        self._students = {d: s for d, s in self._students.items() if d in wanted}
        for digest, ref in wanted.items():
            if digest in self._students:
                continue
            try:
                self._students[digest] = Student.load(get_bytes(ref.uri, ref.digest), source=self.spec.source)
            except CohobateError as error:  # labelling goes on without its scores, and it is tried again when next due
                log.warning("%s: version %s cannot give scores: %s", self.spec.name, ref.version, error)

    def _members(self, intent: Intent) -> list[ModelRef]:
        if intent.champion is None:
            return []
        if self.spec.label.policy.kind != "committee":
            return [intent.champion]
        found = [intent.champion, intent.candidate, intent.previous]
        return list({ref.digest: ref for ref in found if ref is not None}.values())
