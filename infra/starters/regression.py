"""A value from the columns of a table: a teacher of one's own. Put the model that you have in the formula's place."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from components.contracts.records import SoftLabel

BASE, PER_METRE, PER_ROOM, PER_YEAR, SCALE = 200.0, 9.0, 40.0, -1.5, 25.0


class Teacher:
    """A rent, and how sure of it the teacher is: ``scale`` is the standard deviation of its error.

    ``digest`` identifies what decides the answers (a model's weights): labels of another are not learnt from. ``space``
    names the unit with its version.
    """

    name = "formula"
    task = "regression"
    classes = ()

    def __init__(self, space: str) -> None:
        self.space = space
        self.digest = hashlib.sha256(repr((BASE, PER_METRE, PER_ROOM, PER_YEAR, SCALE)).encode()).hexdigest()
        self.size_bytes = 40

    def label(self, payloads: Sequence[Mapping[str, Any]]) -> list[SoftLabel]:
        """One value with its scale for each row, which is a JSON object."""
        return [SoftLabel(task="regression", space=self.space, value=self._one(row), scale=SCALE) for row in payloads]

    def _one(self, row: Mapping[str, Any]) -> float:
        return BASE + float(PER_METRE * row["metres"] + PER_ROOM * row["rooms"] + PER_YEAR * row["age"])
