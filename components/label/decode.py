"""From the bytes of an input to what the teacher and the featuriser take."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from components.contracts.errors import RecordError
from components.contracts.spec import Payload, resolve

Decode = Callable[[bytes], Any]


def decoder(spec: Payload, source: str = "") -> Decode:
    """The function that decodes this workload's payloads; it raises RecordError for poison.

    Reasons: ``empty``, ``oversize``, ``undecodable``, and whatever a decoder of the user's own raises.
    """
    known: dict[str, Decode] = {"raw": bytes, "text": _text, "json": _json}
    own = known[spec.decoder] if spec.decoder in known else resolve(spec.decoder, source)

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
        return json.loads(payload, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise RecordError("undecodable", f"not JSON: {error}") from error


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
