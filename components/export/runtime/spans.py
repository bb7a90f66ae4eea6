"""Spans of a text by the tags of its tokens, as Cohobate's gateway reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

OUTSIDE = "O"
"""The tag of a token that is in no span."""


def spans_of(tokens: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The spans of tokens ``{start, end, distribution}``, as conlleval reads their most probable tags.

    One begins at ``B-X``, and at ``I-X`` or a plain ``X`` that no span of ``X`` reaches.
    """
    found: list[dict[str, Any]] = []
    going = False
    for token in tokens:
        shares = token["distribution"]
        tag = min(shares, key=lambda t: (-shares[t], t))
        begins, kind = tag.startswith("B-") and len(tag) > 2, tag[2:] if tag[:2] in ("B-", "I-") and tag[2:] else tag
        if tag != OUTSIDE and going and not begins and found[-1]["label"] == kind:
            found[-1]["end"] = token["end"]
        elif tag != OUTSIDE:
            found.append({"start": token["start"], "end": token["end"], "label": kind})
        going = tag != OUTSIDE
    return found


def text_of(spans: Sequence[Mapping[str, Any]]) -> str:
    """Spans as text: a JSON array of ``[start, end, label]``."""
    return json.dumps([[s["start"], s["end"], s["label"]] for s in spans], ensure_ascii=False)
