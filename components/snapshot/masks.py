"""Personal data in labels as they are frozen: of before masking was turned on, or of a labeler that does not mask.

What the labeler masked is searched again and stays as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from components.contracts.errors import RecordError
from components.contracts.masking import masker, placeholders, searched
from components.contracts.records import Label, decode, encode
from components.contracts.spec import Spec

if TYPE_CHECKING:
    from components.snapshot.provenance import Refusal


class Masks:
    """Masks the labels of one window, and counts. A label keeps its key: the labeler knows it by that."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._found: Counter[str] = Counter()
        self._columns: set[str] = set()

    def of(self, label: Label) -> Label:
        """A label with its payload masked.

        Raises:
            RecordError: it could not be searched.
            FinderError: the finder fails on other texts, too.

        """
        mask = masker(self._spec)
        if mask is None:
            return label
        masked = searched(self._spec, partial(mask, label.input.payload))
        self._columns |= masked.columns
        self._found.update(masked.found)
        if masked.payload == label.input.payload:
            return label
        return msgspec.structs.replace(label, input=msgspec.structs.replace(label.input, payload=masked.payload))

    def refusal(self, refusal: Refusal) -> Refusal:
        """A refused record as it may be kept: masked, and without its bytes where that cannot be."""
        record, error = refusal
        if self._spec.masking is None or not record.value:
            return refusal
        if error.reason == "mask_failed":  # it was searched already
            return record._replace(value=b""), error
        try:
            label = decode(Label, record.value)
            found = self.of(label)
        except RecordError:
            return record._replace(value=b""), error
        return (record if found is label else record._replace(value=encode(found))), error

    def manifest(self, payloads: Iterable[bytes]) -> dict[str, Any]:
        """What a window's manifest tells; nothing where the spec asks for no masking.

        ``masked``: placeholders in its rows, whoever wrote them; ``masked_at_freeze``: pieces that only this found;
        ``masking_columns_absent``: declared columns that none of its labels has, so that nothing protects what is
        there under another name.
        """
        if self._spec.masking is None:
            return {}
        told: dict[str, Any] = {
            "masked": placeholders(self._spec, payloads), "masked_at_freeze": dict(sorted(self._found.items())),
        }  # fmt: skip
        if wanted := self._spec.masking.columns:
            told["masking_columns_absent"] = sorted(set(wanted) - self._columns)
        return told
