"""What the students that serve say of inputs that wait for a label: the policies' scores."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from components.contracts.errors import ArtifactError, CohobateError
from components.contracts.records import SoftLabel
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes
from components.control.intent import Intent, ModelRef
from components.control.store import ControlStore
from components.query.policies import UNCERTAINTY, Scores
from components.student.runtime import Student

log = logging.getLogger(__name__)

REFRESH_SECONDS = 5.0
"""How often the intent is looked at; a policy that asks the champion before last for so long draws no worse."""


class StudentScores:
    """Soft labels by the champion or, for the policy ``committee``, by champion, candidate and previous.

    It follows the durable intent. For policies that ask no student it loads none.
    """

    def __init__(self, spec: Spec, store: ControlStore, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self.spec, self._store, self._refresh = spec, store, refresh_seconds
        self._due = -1.0
        self._refs: list[ModelRef] = []
        self._students: dict[str, Student] = {}

    def __call__(self, payloads: Sequence[Any]) -> Scores | None:
        """Soft labels of decoded payloads, by student, the champion first; None where there is no champion."""
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

    def _novelty(self, payloads: Sequence[Any]) -> Scores | None:
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
        self._refs = self._members(self._store.intent(self.spec.name)[1])
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
