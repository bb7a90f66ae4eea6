"""Words in their order: hashed, each followed by its pieces, for networks that read a sequence."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from components.contracts.errors import ConfigError
from components.student.arrays import BATCH, Features
from components.student.features import Signature, TensorSpec
from components.student.text_descriptors import describe_text

WORD = re.compile(r"\w+|[^\w\s]")

KEPT_WORDS = 65_536
"""Words whose ids are remembered: a text's words are mostly those of the last ones."""


class WordSequence:
    """Ids of a text's words and of the pieces of its long ones, in order; 0 is padding.

    ``buckets``: ids there are, 0 included; ``length``: ids at most, the rest of a text is left out; ``piece``:
    characters of a piece, with which words that were never seen share something with those that were; 0 makes none. A
    word of more characters is followed by its pieces from the left, the last one ending where the word ends. ``head``:
    characters that are read.
    """

    def __init__(self, buckets: int = 16_384, length: int = 128, piece: int = 4, head: int = 4_000) -> None:
        for name, value, least in (("buckets", buckets, 256), ("length", length, 1), ("head", head, 1)):
            if value < least:
                raise ConfigError(f"features.options.{name}", value, f"must be >= {least}")
        if piece < 0 or piece == 1:
            raise ConfigError("features.options.piece", piece, "must be 0 for no pieces, or >= 2")
        self._buckets, self.length, self.piece, self.head = buckets, length, piece, head
        self.signature: Signature = {"ids": TensorSpec(dtype="int64", shape=(BATCH, "length"), below=buckets)}
        self._ids = lru_cache(maxsize=KEPT_WORDS)(self._ids_of)

    def encode(self, payloads: Sequence[str]) -> Features:
        """``ids``, (B, L)."""
        rows = [self._row(text) for text in payloads]
        ids = np.zeros((len(rows), max([1, *map(len, rows)])), dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        return {"ids": ids}

    def _row(self, text: str) -> list[int]:
        row: list[int] = []
        for word in WORD.findall(text[: self.head].casefold()):
            row += self._ids(word)
            if len(row) >= self.length:
                break
        return row[: self.length]

    def _ids_of(self, word: str) -> tuple[int, ...]:
        pieces = []
        if self.piece and len(word) > self.piece:
            starts = [*range(0, len(word) - self.piece, self.piece), len(word) - self.piece]
            pieces = [f"#{word[i : i + self.piece]}" for i in starts]
        return tuple(self._bucket(text) for text in (word, *pieces))

    def _bucket(self, text: str) -> int:
        return 1 + zlib.crc32(text.encode(errors="surrogatepass")) % (self._buckets - 1)

    def describe(self, payload: str) -> dict[str, float | str]:
        """What :class:`components.student.text.TextNgrams` tells of a text."""
        return describe_text(payload, self.head)
