"""What a demo streams: a history for the first student, then phases of inputs with their truths."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One input with its truth. ``key`` is the entity: sender, uploader, package."""

    id: str
    key: str
    payload: bytes
    truth: str


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A run of inputs of one kind; where the next phase begins, the traffic has changed."""

    name: str
    items: tuple[Item, ...]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A workload's inputs in the order of their arrival."""

    spec: Path
    history: tuple[Item, ...]
    phases: tuple[Phase, ...]
