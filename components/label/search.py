"""The search for personal data in the records of a share: which are masked, and who is to blame where it fails.

A finder (``masking.finder``) may fail on everything, as a service that is away does, or on one text. Of the former
nothing is lost and nothing is stored: the records are held until it works. The latter must not hold up everything
behind it for good: it is refused once the finder has failed on it often enough, and has worked each time after
(:func:`components.contracts.masking.blamed`). What is refused is not searched again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from components.contracts.errors import FinderError, RecordError
from components.contracts.masking import blamed, masked_record
from components.contracts.spec import Spec
from components.contracts.stream_record import Record

Place = tuple[str, int, int]


class Searched(NamedTuple):
    """A record after the search; ``unmasked``: why it has no bytes, None where it was masked."""

    record: Record
    unmasked: RecordError | None


class Search:
    """Masks records where the spec asks for it."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._masked: Record | None = None
        self._failures: dict[Place, int] = {}
        self._refused: dict[Place, RecordError] = {}

    def of(self, records: Sequence[Record]) -> list[Searched]:
        """The records, masked, in their order.

        1. Search each that is not refused.
        2. What the finder fails on has failed once more if the finder works right after; refuse what did so too often.

        Raises:
            FinderError: the finder fails; the same records are to be given again, later.

        """
        found, failed = [], None
        for record in records:
            place = (record.topic, record.partition, record.offset)
            # Step 1
            if place not in self._refused:
                try:
                    found.append(Searched(*masked_record(self._spec, record)))
                    self._failures.pop(place, None)
                    if self._spec.masking is not None and found[-1].unmasked is None:
                        self._masked = record
                    continue
                except FinderError as error:
                    # Step 2
                    self._count(place, error)
                    failed = failed or error
            if place in self._refused:
                found.append(Searched(record._replace(value=b""), self._refused[place]))
        if len(found) < len(records) and failed is not None:
            raise failed
        self._failures.clear()
        self._refused.clear()
        return found

    def _count(self, place: Place, error: FinderError) -> None:
        """Count a failure, and refuse what has failed too often; see first that the finder works on what it did last.

        Raises:
            FinderError: it does not.

        """
        failures = self._failures.get(place, 0) + 1
        refusal = blamed(self._spec, error, failures)
        if self._masked is not None:
            masked_record(self._spec, self._masked)
        self._failures[place] = failures
        if refusal is not None:
            self._refused[place] = refusal
