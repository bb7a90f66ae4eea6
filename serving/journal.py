"""The journal of a rollout on disk: one file of JSON lines a rollout, from which its decisions can be replayed."""

from __future__ import annotations

import os
from pathlib import Path

from serving.rollout.replay import Line, encode_line


class Journal:
    """The file of one rollout. ``lines`` counts those that its durable state knows of."""

    def __init__(self, folder: Path, rollout: str, lines: int) -> None:
        self.path = folder / f"{rollout}.jsonl"
        self.lines = lines
        folder.mkdir(parents=True, exist_ok=True)
        self._cut()

    def _cut(self) -> None:
        """Drop lines that were written just before a crash: their decisions were never made durable."""
        if not self.path.exists():
            return
        kept = self.path.read_bytes().splitlines(keepends=True)[: self.lines]
        self.path.write_bytes(b"".join(kept))

    def append(self, line: Line) -> int:
        """Write one line through to the disk; returns how many there are."""
        with self.path.open("ab") as file:
            file.write(encode_line(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines += 1
        return self.lines
