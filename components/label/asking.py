"""Asking the teacher: the answers are checked, and kept for content that comes again."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from components.contracts.errors import ConfigError, TeacherError
from components.contracts.records import Label, SoftLabel
from components.contracts.spec import Spec
from components.label.intake import Work
from components.label.teacher import Teacher, reference


class Asking:
    """Turns work into labels. One thread asks at a time: teachers need not be thread-safe.

    Raises:
        ConfigError: the teacher is not the one that the spec declares, or its task is another.

    """

    def __init__(self, spec: Spec, teacher: Teacher, clock: Callable[[], float] = time.time) -> None:
        self.spec, self.teacher, self._clock = spec, teacher, clock
        self.reference = reference(teacher)
        if spec.teacher_digest not in (None, self.reference):
            raise ConfigError("teacher_digest", spec.teacher_digest, f"the teacher that was loaded is {self.reference}")
        if teacher.task != spec.task:
            raise ConfigError("task", spec.task, f"the teacher's task is {teacher.task}")
        self._answers: OrderedDict[str, SoftLabel] = OrderedDict()

    def label(self, work: Sequence[Work]) -> list[Label]:
        """A label for each input, in order; content whose answer is known (or asked in this batch) costs no call.

        Raises:
            TeacherError: the teacher failed, or answered something that no student may learn from.

        """
        if not self.spec.label.reuse:
            return self._labels(work, self._ask([w.payload for w in work]))
        known = {w.content: self._answers[w.content] for w in work if w.content in self._answers}
        asked = {w.content: w.payload for w in work if w.content not in known}
        if asked:
            known |= dict(zip(asked, self._ask(list(asked.values())), strict=True))
        labels = self._labels(work, [known[w.content] for w in work])
        for content in dict.fromkeys(w.content for w in work):
            self._answers[content] = known[content]
            self._answers.move_to_end(content)
            if len(self._answers) > self.spec.label.reuse:
                self._answers.popitem(last=False)
        return labels

    def _labels(self, work: Sequence[Work], soft: Sequence[SoftLabel]) -> list[Label]:
        now = self._clock()
        return [
            Label(key=w.key, teacher=self.reference, soft=s, input=w.input, labelled_at=now)
            for w, s in zip(work, soft, strict=True)
        ]

    def _ask(self, payloads: list[object]) -> list[SoftLabel]:
        if not payloads:
            return []
        try:
            soft = self.teacher.label(payloads)
        except ValueError as error:
            raise TeacherError(self.reference, f"answered something that is not a soft label: {error}") from error
        self._check(soft, len(payloads))
        return soft

    def _check(self, soft: Sequence[SoftLabel], asked: int) -> None:
        """Stop at an answer that no student may learn from: it would be the teacher's fault, not the input's."""
        if len(soft) != asked:
            raise TeacherError(self.reference, f"gave {len(soft)} labels for {asked} inputs")
        known = set(self.teacher.classes)
        for label in soft:
            if not isinstance(label, SoftLabel) or label.task != self.spec.task:
                raise TeacherError(self.reference, f"answered {label!r:.200}: not a soft label for {self.spec.task}")
            if label.space != self.teacher.space:
                raise TeacherError(self.reference, f"answered in space {label.space!r}, not {self.teacher.space!r}")
            if unknown := label.distribution.keys() - known:
                raise TeacherError(self.reference, f"answered classes that it did not declare: {sorted(unknown)}")
