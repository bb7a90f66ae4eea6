"""From the bytes of an input to what the teacher and the featuriser take."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from components.contracts.errors import RecordError
from components.contracts.spec import Payload, resolve

Decode = Callable[[bytes], Any]

ALWAYS_FINITE = frozenset({"raw", "text", "json"})
"""Decoders that never give a NaN or an infinity: JSON has none, and what spells one is refused."""


@lru_cache(maxsize=64)
def decoder(spec: Payload, source: str = "") -> Decode:
    """The function that decodes this workload's payloads; it raises RecordError for poison.

    Reasons: ``empty``, ``oversize``, ``undecodable``, ``not_finite`` (JSON with NaN or an infinity), whatever a decoder
    of the user's own raises as a RecordError, and ``decoder_failed`` when it raises anything else: one bad payload must
    not stop the stream. The same arguments give the same function.
    """
    known: dict[str, Decode] = {"raw": bytes, "text": _text, "json": _json}
    own = known[spec.decoder] if spec.decoder in known else _guarded(resolve(spec.decoder, source))

    def decode(payload: bytes) -> Any:
        if not payload:
            raise RecordError("empty", "the payload has no bytes")
        if len(payload) > spec.max_bytes:
            raise RecordError("oversize", f"{len(payload)} bytes; payload.max_bytes allows {spec.max_bytes}")
        return own(payload)

    return decode


def _text(payload: bytes) -> str:
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError("undecodable", f"not UTF-8: {error}") from error


def _json(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "not_finite" if _has_constant(payload) else "undecodable"
        raise RecordError(reason, f"not JSON: {error}") from error


def _has_constant(payload: bytes) -> bool:
    """Whether JSON is only spoilt by ``NaN``, ``Infinity`` or ``1e999``, which many writers emit."""
    seen: list[str] = []

    def number(text: str) -> None:
        if not math.isfinite(float(text)):
            seen.append(text)

    try:
        json.loads(payload, parse_constant=seen.append, parse_float=number)
    except (ValueError, RecursionError):
        return False
    return bool(seen)


def _guarded(own: Decode) -> Decode:
    def decode(payload: bytes) -> Any:
        try:
            return own(payload)
        except RecordError:
            raise
        except Exception as error:
            raise RecordError("decoder_failed", f"{type(error).__name__}: {error}") from error

    return decode
