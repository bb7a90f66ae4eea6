"""Features of raw bytes: hashed n-grams of the head of a file."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from components.contracts.errors import ConfigError
from components.student.arrays import Ids, Row, Weights, pad

MAGIC_BYTES = 8
"""Bytes at the start whose position matters: most binary formats carry their signature there."""

MULTIPLIERS = (np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B))
"""Odd 32-bit constants of multiplicative hashing (Knuth, The Art of Computer Programming, 6.4)."""

UNIGRAMS, TRIGRAMS, MAGIC = np.uint32(1 << 16), np.uint32(1 << 26), np.uint32(1 << 30)
"""Where each kind of n-gram begins among the numbers that are hashed; bigrams begin at zero."""

POSITIONS = MAGIC + np.uint32(256) * np.arange(1, MAGIC_BYTES + 1, dtype=np.uint32)

TEXT_BYTES = np.zeros(256, dtype=bool)
TEXT_BYTES[[9, 10, 13, *range(32, 127)]] = True


class ByteNgrams:
    """Unigrams, bigrams and trigrams of the first ``head`` bytes, and the position-aware first bytes, in ``buckets``.

    A bucket's weight is the square root of its count, and the weights of an input sum to one. About 70 us an input
    with a head of 512 bytes.
    """

    def __init__(self, head: int = 512, buckets: int = 32_768) -> None:
        if head < 1 or buckets < 1024:
            raise ConfigError("features.options", {"head": head, "buckets": buckets}, "head >= 1 and buckets >= 1024")
        self.head, self.buckets = head, buckets

    def encode(self, payloads: Sequence[bytes]) -> tuple[Ids, Weights]:
        """Ids and weights of shape (B, L)."""
        return pad([self._one(p) for p in payloads])

    def _one(self, payload: bytes) -> Row:
        data = np.frombuffer(payload[: self.head], dtype=np.uint8).astype(np.uint32)
        pairs = data[:-1] << 8 | data[1:]
        triples = pairs[:-1] << 8 | data[2:]
        magic = data[:MAGIC_BYTES] + POSITIONS[: len(data)]
        grams = np.concatenate([data + UNIGRAMS, pairs, triples + TRIGRAMS, magic])
        ids, counts = np.unique(self._hash(grams), return_counts=True)
        weights = np.sqrt(counts, dtype=np.float32)
        return ids.astype(np.int64), weights / weights.sum()

    def _hash(self, grams: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        mixed = grams * MULTIPLIERS[0]
        mixed = (mixed ^ (mixed >> np.uint32(15))) * MULTIPLIERS[1]
        return (mixed ^ (mixed >> np.uint32(13))) % np.uint32(self.buckets)

    def describe(self, payload: bytes) -> dict[str, float | str]:
        """Length (natural log of bytes), and shares and entropy (bits per byte) of the head."""
        data = np.frombuffer(payload[: self.head], dtype=np.uint8)
        share = np.bincount(data, minlength=256) / max(len(data), 1)
        seen = share[share > 0]
        return {
            "log_bytes": math.log1p(len(payload)),
            "text_share": float(share[TEXT_BYTES].sum()),
            "high_share": float(share[128:].sum()),
            "space_share": float(share[[9, 10, 13, 32]].sum()),
            "letter_share": float(share[65:91].sum() + share[97:123].sum()),
            "digit_share": float(share[48:58].sum()),
            "bracket_share": float(share[[40, 41, 60, 62, 91, 93, 123, 125]].sum()),
            "byte_entropy": float(-(seen * np.log2(seen)).sum()) + 0.0,
        }
