"""Inputs as a client sends them."""

from __future__ import annotations

import base64
import uuid
from typing import Any

from msgspec import UNSET, UnsetType

from serving.gateway.wire import Item


def given(
    *,
    text: str | UnsetType = UNSET,
    json: Any = UNSET,
    payload: bytes | UnsetType = UNSET,
    id: str | None = None,
    key: str | None = None,
    time: float | None = None,
    consent: str | None = None,
) -> Item:
    """One input: exactly one of ``text``, ``json`` (any value) and ``payload`` (bytes).

    ``id`` is its identity: made here where there is none, so that an input that is sent again is the same input.
    ``key``, ``time`` (Unix seconds) and ``consent`` are as for :class:`~serving.gateway.wire.Item`.

    Raises:
        ValueError: none, or more than one, of the three is given.

    """
    data = payload if isinstance(payload, UnsetType) else base64.b64encode(payload).decode()
    made = Item(
        id=id or uuid.uuid4().hex, key=key, time=time, consent=consent, text=text, json=json, payload=data
    )  # fmt: skip
    if made.forms() != 1:
        raise ValueError(f"give exactly one of text, json and payload, not {made.forms()}")
    return made
