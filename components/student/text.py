"""Features of text: hashed words and character n-grams, by scikit-learn's vectoriser."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from components.contracts.errors import ConfigError
from components.student.features import Ids, Row, Weights, pad

LINK = re.compile(r"https?://", re.IGNORECASE)


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

    @cached_property
    def _vectorisers(self) -> tuple[Any, Any]:
        from sklearn.feature_extraction.text import HashingVectorizer

        common = {"n_features": self.buckets // 2, "alternate_sign": False, "norm": None, "dtype": np.float32}
        return (
            HashingVectorizer(analyzer="word", ngram_range=self._words, **common),
            HashingVectorizer(analyzer="char_wb", ngram_range=self._chars, **common),
        )

    def encode(self, payloads: Sequence[str]) -> tuple[Ids, Weights]:
        """Ids and weights of shape (B, L)."""
        if not payloads:
            return pad([])
        texts = [p[: self.head] for p in payloads]
        words, chars = (v.transform(texts) for v in self._vectorisers)
        return pad([self._row(words, chars, i) for i in range(len(texts))])

    def _row(self, words: Any, chars: Any, i: int) -> Row:
        of_words = slice(words.indptr[i], words.indptr[i + 1])
        of_chars = slice(chars.indptr[i], chars.indptr[i + 1])
        ids = np.concatenate([words.indices[of_words], chars.indices[of_chars] + self.buckets // 2])
        weights = np.sqrt(np.concatenate([words.data[of_words], chars.data[of_chars]]))
        return ids.astype(np.int64), (weights / max(weights.sum(), 1.0)).astype(np.float32)

    def describe(self, payload: str) -> dict[str, float | str]:
        """Length (natural log of characters), links, exclamation marks (20 at most), and shares of kinds of letters."""
        return describe_text(payload, self.head)


def describe_text(payload: str, head: int) -> dict[str, float | str]:
    """The descriptors of a text; all but its length are of its first ``head`` characters."""
    text, n = payload[:head], max(len(payload[:head]), 1)
    return {
        "log_chars": math.log1p(len(payload)),
        "links": float(len(LINK.findall(text))),
        "exclamations": float(min(text.count("!"), 20)),
        "upper_share": sum(c.isupper() for c in text) / n,
        "digit_share": sum(c.isdigit() for c in text) / n,
        "space_share": sum(c.isspace() for c in text) / n,
        "non_ascii_share": sum(ord(c) > 127 for c in text) / n,
    }
