"""The first answer of a student is slow (imports, caches): it is given before the first request comes."""

from __future__ import annotations

from collections.abc import Sequence

from components.contracts.errors import RecordError
from components.student.features import made_up
from components.student.runtime import Student

MADE_UP = (b"warm-up", b"{}", b"[]")
"""Payloads to try where no real one is at hand: bytes and text, and the empty JSON values."""


def warm_up(student: Student, payloads: Sequence[bytes] = ()) -> bool:
    """Run the model once, then let the student answer until one payload works; returns whether one did.

    A made-up payload that is not of the workload's kind says nothing about the student, so what the workload's own
    decoder or featuriser raises for it is not an error here.

    Raises:
        ArtifactError: the model itself does not run.

    """
    student.exercise(made_up(student.card.inputs, 1, 1))
    for payload in (*payloads, *MADE_UP):
        try:
            student.predict([payload])
        except (RecordError, LookupError, TypeError, ValueError, AttributeError):
            continue
        return True
    return False
