"""Features of text: hashed words and character n-grams, the same ones as scikit-learn's ``HashingVectorizer`` gives.

They are counted here, by the same hash, since a replica encodes one text at a time: that is twice as fast, and
scikit-learn takes two seconds to import.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import mmh3
import numpy as np

from components.contracts.errors import ConfigError
from components.student.arrays import Ids, Row, Weights, pad
from components.student.text_descriptors import describe_text

WORD = re.compile(r"\b\w\w+\b")
"""scikit-learn's: two letters or digits at least."""


class TextNgrams:
    """Words, word pairs and character n-grams within words, in ``buckets`` (half for each kind).

    ``head``: characters that are read; ``words`` and ``chars``: the shortest and longest n-gram of each kind.
    A bucket's weight is the square root of its count, and the weights of an input sum to one.
    """

    def __init__(
        self, buckets: int = 65_536, head: int = 4_000, chars: Sequence[int] = (3, 4), words: Sequence[int] = (1, 2)
    ) -> None:
        if buckets < 1024 or head < 1:
            raise ConfigError("features.options", {"buckets": buckets, "head": head}, "buckets >= 1024 and head >= 1")
        for name, span in (("chars", chars), ("words", words)):
            if len(span) != 2 or not 1 <= span[0] <= span[1]:
                raise ConfigError(f"features.options.{name}", span, "must be [shortest, longest], 1 <= shortest")
        self.buckets, self.head = buckets, head
        self._chars, self._words = (chars[0], chars[1]), (words[0], words[1])

    def encode(self, payloads: Sequence[str]) -> tuple[Ids, Weights]:
        """Ids and weights of shape (B, L)."""
        return pad([self._row(payload[: self.head].lower()) for payload in payloads])

    def _row(self, text: str) -> Row:
        half = self.buckets // 2
        (words, of_words), (chars, of_chars) = (
            _counted(grams, half) for grams in (_word_grams(text, *self._words), _char_grams(text, *self._chars))
        )
        weights = np.sqrt(np.concatenate([of_words, of_chars]), dtype=np.float32)
        return np.concatenate([words, chars + half]), weights / max(weights.sum(), np.float32(1.0))

    def describe(self, payload: str) -> dict[str, float | str]:
        """Length (natural log of characters), links, exclamation marks (20 at most), and shares of kinds of letters."""
        return describe_text(payload, self.head)


def _word_grams(text: str, shortest: int, longest: int) -> list[str]:
    words = WORD.findall(text)
    return [" ".join(words[i : i + n]) for n in range(shortest, longest + 1) for i in range(len(words) - n + 1)]


def _char_grams(text: str, shortest: int, longest: int) -> list[str]:
    """Of each word with a space at both ends; a word that is shorter than an n-gram is one, once."""
    grams = []
    for word in text.split():
        padded = f" {word} "
        for n in range(shortest, longest + 1):
            grams += [padded[i : i + n] for i in range(max(1, len(padded) - n + 1))]
            if len(padded) <= n:
                break
    return grams


def _counted(grams: Sequence[str], buckets: int) -> tuple[Ids, Ids]:
    """The buckets of n-grams, in order, and how many fell into each."""
    hashed = np.array([mmh3.hash(gram) for gram in grams], dtype=np.int64)
    return np.unique(np.abs(hashed) % buckets, return_counts=True)
