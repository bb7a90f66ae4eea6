"""A federation as a teacher: the recorded mixture of what several sites answered to public inputs.

Its digest is that of the record (:mod:`components.federation.rounds`), so that every label names, by its teacher, the
answers that it was mixed from, the weight of each site in it, and each site's student.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.contracts.errors import ArtifactError, ConfigError, RecordError
from components.contracts.records import SoftLabel, Task
from components.contracts.storage import get_bytes
from components.federation.exchange import check_federation, row_id
from components.federation.rounds import Part, read
from components.teachers.contract import Outcome, soft_labels

UNMIXED = "not_in_mixture"
"""Why an input is a dead letter: too few sites answered it, or it is none of the public ones, which all have an id."""


class Federation:
    """The mixture at a path or URI, that ``cohobate federate mix`` wrote.

    ``digest``: SHA-256 that it must have, so that the spec itself says which round it is; empty: whatever is there.
    ``federation``: the name of the one that it must be of; empty: any.

    Raises:
        ArtifactError: there is none, it is another, or it is another federation's.

    """

    name = "federation"
    task: Task = "classification"
    size_bytes = 0

    def __init__(self, mixture: str, digest: str = "", federation: str = "") -> None:
        try:
            record = read(get_bytes(mixture, digest or None), mixture)
        except IsADirectoryError as error:
            raise ArtifactError(mixture, "is a folder: name the file that 'cohobate federate mix' wrote") from error
        if federation:
            check_federation(mixture, record.header.federation, federation)
        self.digest = record.digest
        self.space, self.classes = record.header.space, record.header.classes
        self.round = record.header.round
        self._rows = record.rows
        self._sites = record.header.sites

    @property
    def sites(self) -> dict[str, Part]:
        """The sites' parts in it."""
        return dict(self._sites)

    def outcomes(self, payloads: Sequence[Any]) -> list[Outcome]:
        """What became of each payload: the mixture's answer, or a dead letter of an input that it has none to."""
        return [self._outcome(p) for p in payloads]

    def label(self, payloads: Sequence[Any]) -> list[SoftLabel]:
        """Soft labels of public inputs.

        Raises:
            TeacherError: one of them is not in the mixture.

        """
        return soft_labels(self.name, self.outcomes(payloads))

    def _outcome(self, payload: Any) -> Outcome:
        try:
            row = self._rows.get(row_id(payload))
        except ConfigError as error:
            return RecordError(UNMIXED, f"it has no id: {error}")
        if row is None:
            return RecordError(UNMIXED, f"round {self.round} has no answer to it")
        shares = [row.distribution.get(name, 0.0) for name in self.classes]
        return SoftLabel.of(self.space, self.classes, shares)
