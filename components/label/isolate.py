"""A batch that its teacher fails on as a whole: which inputs are to blame.

One input can make a teacher fail however often it is asked: a tokeniser's bug, an answer that is no distribution, a
server that dies of it. Asked in a batch it would hold up everything behind it for good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from components.contracts.errors import RecordError, TeacherError, UnansweredError
from components.label.asking import Answered, Asking
from components.label.intake import Work
from components.teachers.contract import past_breaker

REASON = "teacher_failed"
"""The dead letters' reason."""

FAILURES = (TeacherError, UnansweredError)
"""What one input may bring about; any other outage is the teacher's own."""

UNPROVEN = 3
"""Inputs that fail alone before the teacher is held to be away, where nothing has proven yet that it answers."""


def isolate(asking: Asking, work: Sequence[Work], witnesses: Callable[[], Sequence[Work]] = tuple) -> Answered:
    """Label what the teacher can answer by halving the batch; an input that fails alone, twice, is refused.

    No input is blamed for an outage: the teacher must have answered before its second failure and answer after it
    (:meth:`components.label.asking.Asking.answers`); ``witnesses`` are inputs that wait, for where nothing was answered
    yet. With ``b`` such inputs among ``n`` this costs at most about
    ``2 b log2 n`` calls, and as many proofs; fewer where a teacher says which inputs its server gave no answer to.

    1. Ask, halving what fails, until each failure is one of a single input. A remote teacher sends each request once.
    2. Ask about those again, as often as a remote teacher sends what fails, and refuse what fails again.

    No circuit breaker stops either: whatever it has counted, the proofs tell more of the server.

    Raises:
        TeacherError: the teacher is away, or fails on everything: no input is blamed.
        UnansweredError: likewise, and its server gives no answers.
        UnavailableError: the teacher or the control database does not answer.

    """
    # Step 1
    with past_breaker(asking.teacher, once=True):
        found, alone = _sought(asking, work, witnesses)
    # Step 2
    with past_breaker(asking.teacher):
        for each, proven in alone:
            if not proven and not asking.answers(witnesses):
                raise TeacherError(asking.reference, "fails on an input, and on those that wait")
            try:
                found = found.and_also(asking.label([each]))
            except FAILURES as error:
                if not asking.answers(witnesses):
                    raise
                found.refused.append((each, _blamed(error)))
    return found


def _sought(
    asking: Asking, work: Sequence[Work], witnesses: Callable[[], Sequence[Work]]
) -> tuple[Answered, list[tuple[Work, bool]]]:
    """What was answered, and the inputs that failed alone, with whether the teacher answered after that."""
    found = Answered([], [], 0, 0)
    alone: list[tuple[Work, bool]] = []
    parts = [work]
    while parts:
        part = parts.pop()
        try:
            found = found.and_also(asking.label(part))
        except FAILURES as error:
            answers = asking.answers(witnesses)
            if len(part) == 1:
                alone.append((part[0], answers is True))
            if answers is False or (answers is None and len(alone) >= UNPROVEN):
                raise
            if len(part) > 1:
                parts += _apart(part, error)
    return found, alone


def _apart(part: Sequence[Work], error: Exception) -> list[Sequence[Work]]:
    """The parts to ask for next, the last one first: without the inputs that the error is about, or halves."""
    about = {id(payload) for payload in error.payloads} if isinstance(error, UnansweredError) else set()
    unanswered = [w for w in part if id(w.payload) in about]
    if 0 < len(unanswered) < len(part):
        return [unanswered, [w for w in part if id(w.payload) not in about]]
    middle = len(part) // 2
    return [part[middle:], part[:middle]]


def _blamed(error: Exception) -> RecordError:
    refusal = RecordError(REASON, f"the teacher answers others, and of this one says: {error}")
    refusal.__cause__ = error
    return refusal
