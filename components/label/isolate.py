"""A batch that its teacher fails on as a whole: which inputs are to blame.

One input can make a teacher fail however often it is asked: a tokeniser's bug, an answer that is no distribution, a
server that dies of it. Asked in a batch it would hold up everything behind it for good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from components.contracts.errors import RecordError, TeacherError
from components.label.asking import Answered, Asking
from components.label.intake import Work

REASON = "teacher_failed"
"""The dead letters' reason."""

UNPROVEN = 3
"""Inputs that fail alone before the teacher is held to be away, where nothing has proven yet that it answers."""


def isolate(asking: Asking, work: Sequence[Work], witnesses: Callable[[], Sequence[Work]] = tuple) -> Answered:
    """Label what the teacher can answer by halving the batch; an input that fails alone, twice, is refused.

    No input is blamed for an outage: the teacher must have answered before its second failure and answer after it
    (:meth:`components.label.asking.Asking.answers`); ``witnesses`` are inputs that wait, for where nothing was answered
    yet. With ``b`` such inputs among ``n`` this costs at most about
    ``2 b log2 n`` calls, and as many proofs.

    1. Ask, halving what fails, until each failure is one of a single input.
    2. Ask about those again, and refuse what fails again.

    Raises:
        TeacherError: the teacher is away, or fails on everything: no input is blamed.
        UnavailableError: the teacher or the control database does not answer.

    """
    found = Answered([], [], 0, 0)
    # Step 1
    alone: list[tuple[Work, bool]] = []
    parts = [work]
    while parts:
        part = parts.pop()
        try:
            found = found.and_also(asking.label(part))
        except TeacherError:
            answers = asking.answers(witnesses)
            if len(part) == 1:
                alone.append((part[0], answers is True))
            if answers is False or (answers is None and len(alone) >= UNPROVEN):
                raise
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
    # Step 2
    for each, proven in alone:
        if not proven and not asking.answers(witnesses):
            raise TeacherError(asking.reference, "fails on an input, and on those that wait")
        try:
            found = found.and_also(asking.label([each]))
        except TeacherError as error:
            if not asking.answers(witnesses):
                raise
            found.refused.append((each, _blamed(error)))
    return found


def _blamed(error: TeacherError) -> RecordError:
    refusal = RecordError(REASON, f"the teacher answers others, and of this one says: {error}")
    refusal.__cause__ = error
    return refusal
