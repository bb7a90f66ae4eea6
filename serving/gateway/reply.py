"""What somebody who was asked behind the gateway says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from components.contracts.records import SoftLabel


class Reply(NamedTuple):
    """An answer, or why there is none now (``soft`` None): a stable ``code``, and ``why`` in words.

    ``headers`` go with the input's record to the stream: they carry the teacher's answer to the labeler
    (:mod:`components.contracts.given`). ``near``: where there is no answer, what the teacher said of the nearest input
    (:mod:`serving.neighbours`).
    """

    soft: SoftLabel | None
    code: str = "answered"
    why: str = ""
    headers: Mapping[str, bytes] = {}
    near: SoftLabel | None = None


PACED = "paced"
"""The code of a reply that the budget's pace does not allow for: nobody need ask again about the input."""
