"""A batch that its teacher fails on as a whole: which inputs are to blame.

One input can make a teacher fail however often it is asked: a tokeniser's bug, an answer that is no distribution, a
server that dies of it. Asked in a batch it would hold up everything behind it for good.
"""

from __future__ import annotations

from collections.abc import Sequence

from components.contracts.errors import RecordError, TeacherError
from components.label.asking import Answered, Asking
from components.label.intake import Work

REASON = "teacher_failed"
"""The dead letters' reason."""

UNPROVEN = 3
"""Inputs that fail alone before the teacher is held to be away, where nothing has proven yet that it answers."""


def isolate(asking: Asking, work: Sequence[Work]) -> Answered:
    """Label what the teacher can answer by halving the batch; an input that fails alone is refused.

    No input is blamed for an outage: after each failure the teacher must answer its last success again
    (:meth:`components.label.asking.Asking.answers`), and where it never had one, another input of the batch. With
    ``b`` such inputs among ``n`` this costs at most about ``2 b log2 n`` calls, and as many repetitions.

    Raises:
        TeacherError: the teacher is away, or fails on everything: no input is blamed.
        UnavailableError: the teacher or the control database does not answer.

    """
    found = Answered([], [], 0, 0)
    alone: list[tuple[Work, TeacherError]] = []
    parts = [work]
    while parts:
        part = parts.pop()
        try:
            found = found.and_also(asking.label(part))
        except TeacherError as error:
            answers = asking.answers()
            if len(part) == 1:
                alone.append((part[0], error))
            if answers is False or (answers is None and len(alone) >= UNPROVEN):
                raise
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
    if alone and asking.answers() is None:
        raise alone[0][1]
    return found._replace(refused=[*found.refused, *((w, _blamed(error)) for w, error in alone)])


def _blamed(error: TeacherError) -> RecordError:
    refusal = RecordError(REASON, f"the teacher answers others, and of this one says: {error}")
    refusal.__cause__ = error
    return refusal
