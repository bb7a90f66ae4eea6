"""Near-duplicates: sketches of payloads that are alike where the payloads are, and an index of them.

A. Broder, "On the resemblance and containment of documents" (SEQUENCES 1997): a MinHash sketch keeps, of the set of a
payload's overlapping pieces, the least value under each of many hash functions; two sketches agree in about the share
of places that the sets have in common (Jaccard). Sketches and their index are those of the library datasketch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

PLACES = 64
"""Hash functions of a sketch: the estimate of a similarity has a deviation of at most 0.06."""

PIECE = 5
"""Bytes of a piece. A typo changes five pieces; two texts of one language still share few."""

LEAST_PIECES = 20
"""Payloads of fewer pieces are alike only where they are equal: one other digit is all that tells two of them apart."""

MOST_PIECES = 2_000
"""Pieces of a payload that are sketched: those with the least hashes, which are the same ones in payloads alike."""

DIGITS = 6
"""Significant digits of numbers in tables by which they are told apart."""

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd 64-bit constant of multiplicative hashing (Knuth, The Art of Computer Programming, 6.4)."""

UNWORDED = re.compile(r"[\W_]+")

BAND_ROWS = ((0.6, 3), (0.8, 4), (0.9, 6), (1.0, 8))
"""Places of a band of the index, for thresholds up to each: of what is as alike as that, 99 of 100 share a band."""

Sketch = npt.NDArray[np.uint32]


def sketch(payload: Any) -> Sketch:
    """The sketch of a decoded payload, of :data:`PLACES` numbers.

    Text is taken without case and punctuation, bytes as they are. Anything else (a table's row) is alike only what is
    equal up to rounding: that rows share the names of their columns says nothing.
    """
    if isinstance(payload, str):
        pieces = _pieces(UNWORDED.sub(" ", payload.casefold()).strip().encode())
    elif isinstance(payload, bytes | bytearray | memoryview):
        pieces = _pieces(bytes(payload))
    else:
        pieces = _mix(_folded(json.dumps(_rounded(payload), sort_keys=True, default=str).encode()))
    made = _empty().copy()
    made.update_batch((pieces >> np.uint64(32)).tolist())
    return np.asarray(made.hashvalues, dtype=np.uint32)


def _pieces(data: bytes) -> npt.NDArray[np.uint64]:
    if len(data) < LEAST_PIECES + PIECE:
        return _mix(_folded(data))
    codes = np.frombuffer(data, dtype=np.uint8).astype(np.uint64)
    windows = np.zeros(len(codes) - PIECE + 1, dtype=np.uint64)
    for i in range(PIECE):
        windows = windows << np.uint64(8) | codes[i : i + len(windows)]
    mixed = _mix(windows)
    if len(mixed) > 4 * MOST_PIECES:  # pieces that come again are seldom among the least
        mixed = np.partition(mixed, 4 * MOST_PIECES)[: 4 * MOST_PIECES]
    return np.unique(mixed)[:MOST_PIECES]


def _folded(data: bytes) -> npt.NDArray[np.uint64]:
    """One number for all of the data."""
    import hashlib

    return np.array([int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")], dtype=np.uint64)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        mixed = (values ^ (values >> np.uint64(31))) * MULTIPLIER
        return (mixed ^ (mixed >> np.uint64(29))) * MULTIPLIER


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


@cache
def _empty() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=PLACES, seed=1, hashfunc=int, scheme="affine32")


@cache
def _lean() -> Any:
    from datasketch import LeanMinHash

    return LeanMinHash(_empty())


def likeness(a: Sketch, b: Sketch) -> float:
    """The estimated similarity of two sketched payloads, in [0, 1]."""
    return float((a == b).mean())


class Index:
    """Sketches that are found by what is alike: at least ``threshold`` in (0, 1], by their estimate."""

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH

        self.threshold = threshold
        rows = next(r for most, r in BAND_ROWS if threshold <= most)
        self._buckets = MinHashLSH(num_perm=PLACES, params=(PLACES // rows, rows))
        self._sketches: list[Sketch] = []

    def __len__(self) -> int:
        return len(self._sketches)

    def add(self, made: Sketch) -> int:
        """Add a sketch; returns its number, from 0 in the order of adding."""
        self._buckets.insert(len(self._sketches), self._wrapped(made), check_duplication=False)
        self._sketches.append(made)
        return len(self._sketches) - 1

    def first(self, made: Sketch) -> int | None:
        """The number of the earliest sketch that is alike; None where none is."""
        found = sorted(self._buckets.query(self._wrapped(made)))
        if not found:
            return None
        same = np.count_nonzero(np.stack([self._sketches[n] for n in found]) == made, axis=1)
        alike = np.flatnonzero(same / PLACES >= self.threshold)
        return found[alike[0]] if len(alike) else None

    def _wrapped(self, made: Sketch) -> Any:
        """What the library reads of a sketch: to make a whole `datasketch.MinHash` takes longer than to find it."""
        lean = _lean().copy()
        lean.hashvalues = made.astype(lean.hashvalues.dtype)
        return lean


class Sketches:
    """Sketches that are only asked whether one of them is alike: as :class:`Index`, in a tenth of its memory."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._rows = next(r for most, r in BAND_ROWS if threshold <= most)
        self._added: list[npt.NDArray[np.uint32]] = []
        self._all = np.empty((0, PLACES), dtype=np.uint32)
        self._orders: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]] = []

    def add(self, made: npt.NDArray[np.uint32]) -> None:
        """Add sketches, (N, :data:`PLACES`)."""
        self._added.append(made)

    def alike(self, made: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        """Of each of these sketches, whether one that was added shares a band with it, and is alike."""
        self._sort()
        found = np.zeros(len(made), dtype=bool)
        for band, (keys, order) in zip(self._bands(made), self._orders, strict=True):
            asked = np.flatnonzero(~found)
            place = np.searchsorted(keys, band[asked], side="left")
            end = np.searchsorted(keys, band[asked], side="right")
            while len(asked := asked[(open_ := place < end)]):  # one of those in the band of each, until none is left
                place, end = place[open_], end[open_]
                found[asked] = (made[asked] == self._all[order[place]]).mean(axis=1) >= self.threshold
                place, left = place + 1, ~found[asked]
                asked, place, end = asked[left], place[left], end[left]
        return found

    def _sort(self) -> None:
        if not self._added:
            if not self._orders:
                self._orders = [(np.empty(0, np.uint64), np.empty(0, np.int64))] * (PLACES // self._rows)
            return
        self._all = np.unique(np.concatenate([self._all, *self._added]), axis=0)
        self._added = []
        orders = ((band, np.argsort(band, kind="stable")) for band in self._bands(self._all))
        self._orders = [(band[order], order) for band, order in orders]

    def _bands(self, made: npt.NDArray[np.uint32]) -> Iterator[npt.NDArray[np.uint64]]:
        """Of each band a number that equal ones share; that others share it costs a comparison."""
        for first in range(0, PLACES // self._rows * self._rows, self._rows):
            mixed = np.zeros(len(made), dtype=np.uint64)
            for place in range(first, first + self._rows):
                mixed = _mix(mixed + made[:, place])
            yield mixed
