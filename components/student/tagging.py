"""Words of a text with their places, each as hashed features of its own, for networks that tag them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from components.contracts.errors import ConfigError
from components.student.arrays import BATCH, TOKENS, Features
from components.student.features import Signature, TensorSpec
from components.student.text_descriptors import describe_text

ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Han, Hiragana and Katakana, whose words stand without spaces: each character is a token."""

TOKEN = re.compile(rf"[{ALONE}]|[^\W{ALONE}]+|[^\w\s]")
"""What a text is split into: letters, digits and underscores that stand together, and every other sign by itself."""

GRAM = 3
"""Characters of the pieces of a word."""

KEPT_WORDS = 65_536
"""Words whose ids are remembered: a text's words are mostly those of the last ones."""


class TaggedWords:
    """For each word of a text ``pieces`` ids at most; 0 is padding.

    A word is what :data:`TOKEN` finds. Its ids are those of the word without regard to capitals, of its shape (``Xxx``,
    ``dd``: at most three alike in a row), of its beginning and its end, and of its pieces of three characters from the
    left, as many as there is room for. ``buckets``: ids there are, 0 included; ``length``: words at most, of which text
    behind them is in no span.
    """

    def __init__(self, buckets: int = 16_384, length: int = 512, pieces: int = 10) -> None:
        for name, value, least in (("buckets", buckets, 256), ("length", length, 1), ("pieces", pieces, 4)):
            if value < least:
                raise ConfigError(f"features.options.{name}", value, f"must be >= {least}")
        self._buckets, self.length, self.pieces = buckets, length, pieces
        self.signature: Signature = {"ids": TensorSpec(dtype="int64", shape=(BATCH, TOKENS, pieces), below=buckets)}
        self._ids = lru_cache(maxsize=KEPT_WORDS)(self._ids_of)

    def tokens(self, payload: str) -> list[tuple[int, int]]:
        """The places of a text's words: characters from the first to the second, which is excluded."""
        return [match.span() for match, _ in zip(TOKEN.finditer(payload), range(self.length), strict=False)]

    def encode(self, payloads: Sequence[str]) -> Features:
        """``ids``, (B, L, ``pieces``)."""
        rows = [[self._ids(text[start:end]) for start, end in self.tokens(text)] for text in payloads]
        ids = np.zeros((len(rows), max([1, *map(len, rows)]), self.pieces), dtype=np.int64)
        for i, row in enumerate(rows):
            if row:
                ids[i, : len(row)] = row
        return {"ids": ids}

    def describe(self, payload: str) -> dict[str, float | str]:
        """What :class:`components.student.text.TextNgrams` tells of a text, and the natural log of its words."""
        words = sum(1 for _ in TOKEN.finditer(payload))
        return {**describe_text(payload, 4_000), "log_words": float(np.log1p(words))}

    def _ids_of(self, word: str) -> tuple[int, ...]:
        low = word.casefold()
        grams = [low[i : i + GRAM] for i in range(max(0, len(low) - GRAM + 1))]
        told = [f"w{low}", f"s{_shape(word)}", f"b{low[:GRAM]}", f"e{low[-GRAM:]}", *(f"g{g}" for g in grams)]
        ids = [self._bucket(text) for text in told[: self.pieces]]
        return (*ids, *[0] * (self.pieces - len(ids)))

    def _bucket(self, text: str) -> int:
        return 1 + zlib.crc32(text.encode(errors="surrogatepass")) % (self._buckets - 1)


def _shape(word: str) -> str:
    """The kinds of a word's characters: ``X`` capital, ``x`` other letter, ``d`` digit, else the character.

    >>> _shape("iPhone12")
    'xXxxxdd'
    """
    kinds = "".join("X" if c.isupper() else "x" if c.isalpha() else "d" if c.isdigit() else c for c in word)
    return re.sub(r"(.)\1{3,}", r"\1\1\1", kinds)
