"""What may be labelled: the checks that an input passes before the teacher sees it, and the letter of one that fails.

Reasons, in the order of the checks:

==================== ==============================================================================================
``empty``            the record is a tombstone, or it, or later the payload, has no bytes
``undecodable``      the record is not MessagePack, or the payload is not what ``payload.decoder`` decodes
``unknown_schema``   the record has a major version that this reader does not know
``not_finite``       the event time, or a number in the payload, is NaN or infinite (``admission.finite``)
``key_missing``      the input names no entity
``invalid``          a field is missing, of the wrong type or out of range
``wrong_workload``   the input belongs to another workload
``future_time``      the event time is further ahead than ``admission.max_future_seconds``
``ancient_time``     the event time is further back than ``admission.max_age_seconds``
``consent_missing``  ``consent.required``, and the input names no terms
``consent_refused``  the terms are not among ``consent.allowed``
``oversize``         the payload is larger than ``payload.max_bytes``
``decoder_failed``   the workload's own decoder raised something that is not a RecordError
``mask_failed``      personal data could not be looked for in it (``masking``): the payload is not kept
==================== ==============================================================================================

After the checks: ``label_oversize`` (its label does not fit into a record), ``teacher_refused``, ``outside_classes``
and ``unreadable_answer`` (a teacher's own refusals), ``teacher_failed`` (:mod:`components.label.isolate`).

A decoder of the workload's own may raise RecordErrors with reasons of its own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

from components.contracts.errors import RecordError
from components.contracts.payload import decoder
from components.contracts.records import DeadLetter, Input, decode
from components.contracts.spec import Admission, Consent, Spec
from components.contracts.stream_record import Headers, Record

LETTER_BYTES = 768 * 1024
"""How much of a record's value goes into its dead letter: with it a letter is below every broker's usual limit of one
megabyte. The letter names the place of the whole record."""

SIDE_BYTES = 64 * 1024
"""How many bytes of headers go into a letter, and how many of the key."""

DETAIL_CHARS = 2_000
"""How much of an error's text goes into a letter: decoders like to quote the payload that they failed on."""

ATTEMPTS_HEADER = "cohobate-attempts"
"""How often a record was delivered, this delivery included, as decimal digits; absent on the first."""


def admit(record: Record, spec: Spec, now: float) -> tuple[Input, Any]:
    """The input in a record and its decoded payload, if it may be labelled at ``now`` (Unix seconds).

    Raises:
        RecordError: it may not; the reason is one of the table above.
        ConfigError: the spec's decoder does not exist.

    """
    entry = input_in(record.value)
    if entry.workload != spec.name:
        raise RecordError("wrong_workload", f"input of {entry.workload!r} on the topic of {spec.name!r}")
    check_time(entry.time, now, spec.admission)
    if entry.synthetic is None:
        check_consent(entry.consent, spec.consent)
    payload = decoder(spec.payload, spec.source)(entry.payload)
    if spec.admission.finite and not is_finite(payload):
        raise RecordError("not_finite", "the payload has a NaN or an infinity in it; admission.finite refuses that")
    return entry, payload


def input_in(value: bytes | None) -> Input:
    """The input in a record's value.

    Raises:
        RecordError: there is none, or it names no entity.

    """
    if value is not None and not value:
        raise RecordError("empty", "the record has no bytes")
    try:
        entry = decode(Input, value)
    except RecordError as error:
        if "missing required field `key`" in error.detail:
            raise RecordError("key_missing", error.detail) from error
        raise
    if not entry.key:
        raise RecordError("key_missing", f"input {entry.id!r} names no entity: its key is empty")
    return entry


def check_time(time: float, now: float, limits: Admission) -> None:
    """Raise RecordError (``future_time``, ``ancient_time``) where an event time is out of the limits at ``now``."""
    if time > now + limits.max_future_seconds:
        detail = f"event time {time:.0f} is {time - now:.0f} s ahead; admission allows {limits.max_future_seconds:g}"
        raise RecordError("future_time", detail)
    if limits.max_age_seconds is not None and time < now - limits.max_age_seconds:
        detail = f"event time {time:.0f} is {now - time:.0f} s old; admission allows {limits.max_age_seconds:g}"
        raise RecordError("ancient_time", detail)


def check_consent(consent: str | None, terms: Consent) -> None:
    """Raise RecordError (``consent_missing``, ``consent_refused``) where the terms do not allow it."""
    if consent is None:
        if terms.required:
            raise RecordError("consent_missing", "the input names no terms of consent, which the workload requires")
    elif terms.allowed and consent not in terms.allowed:
        raise RecordError("consent_refused", f"consent {consent!r} is not one of {', '.join(terms.allowed)}")


def is_finite(value: Any) -> bool:
    """Whether no number in a decoded payload is NaN or infinite: floats, NumPy arrays, and containers of them.

    >>> is_finite({"x": [1.0, 2], "y": "NaN"}), is_finite([{"x": float("nan")}])
    (True, False)
    """
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, float | complex):
            if not (math.isfinite(found.real) and math.isfinite(found.imag)):
                return False
        elif isinstance(found, Mapping):
            waiting.extend(found.values())
        elif isinstance(found, list | tuple | set | frozenset):
            waiting.extend(found)
        elif getattr(getattr(found, "dtype", None), "kind", "") in ("f", "c"):
            import numpy as np

            if not np.isfinite(found).all():
                return False
    return True


def dead_letter(record: Record, error: RecordError, workload: str, now: float, raised: str = "") -> DeadLetter:
    """The letter of a record that was refused with ``error`` at ``now``; it always fits into its topic.

    A header without a value becomes one with an empty value. ``raised``: the class of the exception behind it, where
    ``error`` itself does not tell.
    """
    value, key = record.value or b"", record.key
    headers = _fitting(record.headers)
    cut = len(value) > LETTER_BYTES or len(key or b"") > SIDE_BYTES or len(headers) < len(record.headers)
    size = f" (the first {LETTER_BYTES} of {len(value)} bytes are here)" if len(value) > LETTER_BYTES else ""
    return DeadLetter(
        workload=workload,
        reason=_text(error.reason, 64),
        detail=_text(error.detail, DETAIL_CHARS) + size,
        error=raised or type(error.__cause__ or error).__name__,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=key if key is None else key[:SIDE_BYTES],
        value=value[:LETTER_BYTES],
        headers=headers,
        at=now,
        attempts=attempts(record.headers),
        digest=hashlib.sha256(value).hexdigest(),
        cut=cut,
        tombstone=record.value is None,
    )


def _fitting(headers: Headers) -> dict[str, bytes]:
    """The headers from the first on, as long as they fit into :data:`SIDE_BYTES`."""
    kept: dict[str, bytes] = {}
    room = SIDE_BYTES
    for name, value in headers.items():
        room -= len(name.encode(errors="replace")) + len(value or b"")
        if room < 0:
            break
        kept[name] = value or b""
    return kept


def _text(text: str, length: int) -> str:
    """Text that can be encoded, of a bounded length."""
    return text[:length].encode(errors="backslashreplace").decode()


def attempts(headers: Headers) -> int:
    """How often a record was delivered, by its header; 1 where that is absent or is no count.

    >>> attempts({"cohobate-attempts": b"3"}), attempts({"cohobate-attempts": b"?"}), attempts({})
    (3, 1, 1)
    """
    said = headers.get(ATTEMPTS_HEADER) or b""
    return max(1, int(said)) if said.isdigit() and len(said) < 10 else 1
