"""The search for personal data in the records of a share: which are masked, and who is to blame where it fails.

A finder (``masking.finder``) may fail on everything, as a service that is away does, or on one text. Of the former
nothing is lost and nothing is stored: the records are held until it works. The latter must not hold up everything
behind it for good: it is refused once the finder has failed on it :data:`TRIES` times, and has worked each time after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from components.contracts.errors import FinderError, RecordError
from components.contracts.masking import masked_record, probe
from components.contracts.spec import Spec
from components.contracts.stream_record import Record

TRIES = 3
"""How often the finder has to fail on an input, and to work on another right after: it may be out of order briefly."""


class Searched(NamedTuple):
    """A record after the search; ``unmasked``: why it has no bytes, None where it was masked."""

    record: Record
    unmasked: RecordError | None


class Search:
    """Masks records where the spec asks for it."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._masked: Record | None = None
        self._failures: dict[tuple[str, int, int], int] = {}

    def of(self, records: Sequence[Record]) -> list[Searched]:
        """The records, masked, in their order.

        1. Search each. What the finder fails on has failed once more if the finder works right after.
        2. Refuse what has failed too often.

        Raises:
            FinderError: the finder fails; the same records are to be given again, later.

        """
        found, failed = [], None
        for record in records:
            place = (record.topic, record.partition, record.offset)
            # Step 1
            try:
                found.append(Searched(*masked_record(self._spec, record)))
                self._failures.pop(place, None)
                if self._spec.masking is not None and found[-1].unmasked is None:
                    self._masked = record
            except FinderError as error:
                self._prove()
                self._failures[place] = self._failures.get(place, 0) + 1
                # Step 2
                if self._failures[place] < TRIES:
                    failed = failed or error
                detail = f"the finder works on others, and of this one: {error.remedy}"
                found.append(Searched(record._replace(value=b""), RecordError("mask_failed", detail)))
        if failed is not None:
            raise failed
        for searched in found:
            self._failures.pop((searched.record.topic, searched.record.partition, searched.record.offset), None)
        return found

    def _prove(self) -> None:
        """See that the finder works: on what it searched last, and on a text that is nobody's.

        Raises:
            FinderError: it does not.

        """
        probe(self._spec)
        if self._masked is not None:
            masked_record(self._spec, self._masked)
