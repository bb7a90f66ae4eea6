"""Answers that the teacher gave through the gateway: which of them are taken for labels.

One that does not verify is ignored and counted, and the teacher is asked as if there were none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from components.contracts.errors import RecordError, TeacherError
from components.contracts.given import Given, given_in
from components.contracts.signing import Verifier
from components.contracts.spec import Spec
from components.label.intake import Work
from components.teachers.contract import Teacher, check

CLOCKS_SECONDS = 60.0
"""How far ahead of ours the clock may be of the machine that answered."""


class Receipts:
    """Reads answers in the records of inputs. ``by`` says whose labels are made now, epoch included.

    Raises:
        ConfigError: ``label.signed_by`` is no key.

    """

    def __init__(self, spec: Spec, teacher: Teacher, by: Callable[[], str], clock: Callable[[], float]) -> None:
        self.spec, self._teacher, self._by, self._clock = spec, teacher, by, clock
        self.counts: Counter[str] = Counter()
        """Answers by what became of them."""
        self._verifier = Verifier(spec.label.signed_by) if spec.label.signed_by is not None else None

    def read(self, work: Work) -> tuple[Given | None, str]:
        """The answer that is this input's label, or None; and what became of it, empty where there is none.

        ``taken``, ``undecodable``, ``unsigned``, ``another_input`` (workload, id or content), ``another_teacher`` (or
        another epoch of it), ``future_time``, ``invalid`` (what no student may learn from).
        """
        try:
            given = given_in(work.record.headers, self._verifier)
        except RecordError as error:
            return None, error.reason
        if given is None:
            return None, ""
        refusal = self._refusal(work, given)
        return (None, refusal) if refusal else (given, "taken")

    def _refusal(self, work: Work, given: Given) -> str:
        if (given.workload, given.input_id, given.content) != (self.spec.name, work.input.id, work.content):
            return "another_input"
        if given.teacher != self._by():
            return "another_teacher"
        if given.answered_at > self._clock() + CLOCKS_SECONDS:
            return "future_time"
        try:
            check(self._teacher, [given.soft])
        except TeacherError:
            return "invalid"
        return ""
