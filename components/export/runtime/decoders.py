"""From the bytes of an input to what the featuriser takes."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from .errors import RecordError

Decode = Callable[[bytes], Any]


def decoder(wanted: Mapping[str, Any]) -> Decode:
    """The function that decodes payloads, or raises a RecordError; ``wanted`` is the manifest's ``input``."""
    name, most = wanted["decoder"], wanted["max_bytes"]
    known: dict[str, Decode] = {"raw": bytes, "text": _text, "json": _json}
    own = known.get(name) or _named(name)

    def decode(payload: bytes) -> Any:
        if not payload:
            raise RecordError("empty", "the payload has no bytes")
        if len(payload) > most:
            raise RecordError("oversize", f"{len(payload)} bytes; at most {most}")
        return own(payload)

    return decode


def _named(name: str) -> Decode:
    module, _, function = name.partition(":")
    found: Decode = getattr(importlib.import_module(f".{module}", __package__), function)
    return found


def _text(payload: bytes) -> str:
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError("undecodable", f"not UTF-8: {error}") from error


class _NotFinite(ValueError):
    pass


def _refused(text: str) -> Any:
    raise _NotFinite(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    found = float(text)
    return found if math.isfinite(found) else _refused(text)


def _json(payload: bytes) -> Any:
    try:
        return json.loads(payload.decode("utf-8"), parse_constant=_refused, parse_float=_finite)
    except _NotFinite as error:
        raise RecordError("not_finite", f"not JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError("undecodable", f"not JSON: {error}") from error
