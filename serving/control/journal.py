"""The journal of a rollout on disk: one file of JSON lines a rollout, from which its decisions can be replayed."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from serving.rollout.replay import Line, encode_line

log = logging.getLogger(__name__)


class Journal:
    """The file of one rollout. ``lines`` counts those that its durable state knows of."""

    def __init__(self, folder: Path, rollout: str, lines: int) -> None:
        self.path = folder / f"{rollout}.jsonl"
        self.lines = lines
        folder.mkdir(parents=True, exist_ok=True)
        self._cut()

    def _cut(self) -> None:
        """Drop lines that were written just before a crash: their decisions were never made durable."""
        found = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        if len(found) < self.lines:
            log.warning("%s has %d lines of %d: its rollout cannot be replayed", self.path, len(found), self.lines)
        elif len(found) > self.lines:
            self.path.write_bytes(b"".join(found[: self.lines]))

    def append(self, line: Line) -> int:
        """Write one line through to the disk; returns how many there are."""
        with self.path.open("ab") as file:
            file.write(encode_line(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines += 1
        return self.lines

    def digest(self) -> str:
        """SHA-256 (hex) of the file, for the ledger."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()
