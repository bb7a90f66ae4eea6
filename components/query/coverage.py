"""How far an input is from all that is labelled: what a policy of coverage prefers.

Every input gets a *sketch*: its features hashed into a few numbers with random signs, so that the sketches of two
inputs are about as near as the inputs (K. Weinberger et al., "Feature hashing for large scale multitask learning", ICML
2009; numbers into several places each: D. Kane & J. Nelson, "Sparser Johnson-Lindenstrauss transforms", JACM 61, 2014),
of length one. Its distance is that to the nearest sketch of what is labelled, and of the inputs that come before it in
its batch: who is always asked about the farthest one covers the traffic within the least radius (O. Sener & S.
Savarese, "Active learning for convolutional neural networks: a core-set approach", arXiv 1708.00489). Here every input
may be drawn, and what weighs its chance, as doubt does elsewhere, is how rare so large a distance is: distances of
texts, say, differ by little. It is the negative logarithm of the share of the last inputs that were as far, which is
about one on the mean.

What is labelled is remembered in a reservoir (J. S. Vitter, "Random sampling with a reservoir", ACM TOMS 11, 1985):
however long the labeler runs, each labelled input is in it with the same chance. It begins anew with the labeler.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.student.features import Featuriser

PLACES = 256
"""Numbers of a sketch: the cosine of two is then about 0.06 off."""

MEMORY = 2_000
"""Labelled inputs that are remembered, in two megabytes."""

RECENT = 500
"""Inputs among which a distance is rare or not: the least share that is told apart is one in so many."""

FAR = float(np.sqrt(2.0))
"""The distance of what has nothing in common."""

SPREAD = 4
"""Places of a sketch that one number of an array goes to: two that share one place are still told apart by the rest."""

MASK = "mask"
"""The array by which a featuriser tells padding from content; it is no content itself."""

ODD = np.uint64(0x9E3779B97F4A7C15)
"""Odd constant of multiplicative hashing."""

Sketches = npt.NDArray[np.float32]


class Coverage:
    """The inputs that are labelled, for one labeler. ``seed``: of the projections and of what is remembered."""

    def __init__(self, featuriser: Featuriser, seed: int, memory: int = MEMORY) -> None:
        self._featuriser, self._seed, self._memory = featuriser, seed, memory
        self._chance = np.random.default_rng([seed, 1])
        self._kept: Sketches = np.empty((memory, PLACES), dtype=np.float32)
        self._last: Sketches = self._kept[:0]
        self._recent = deque[float](maxlen=RECENT)
        self._seen = 0

    def rarities(self, payloads: Sequence[Any]) -> list[float]:
        """How rare it is among the last inputs to be as far as each decoded payload (>= 0, in nats)."""
        recent, found = np.array(self._recent), self.distances(payloads)
        self._recent.extend(found)
        return [-math.log((1 + np.count_nonzero(recent >= d)) / (1 + len(recent))) + 0.0 for d in found]

    def distances(self, payloads: Sequence[Any]) -> list[float]:
        """The distance of each decoded payload, in [0, 2]; :data:`FAR` of the first where nothing is labelled."""
        self._last = sketches(self._featuriser, payloads, self._seed)
        if not payloads:
            return []
        near = np.full(len(payloads), FAR)
        if kept := min(self._seen, self._memory):
            near = _apart((self._last @ self._kept[:kept].T).max(axis=1))
        among = _apart(self._last @ self._last.T)
        among[np.triu_indices(len(payloads))] = np.inf
        found: list[float] = np.minimum(near, among.min(axis=1)).tolist()
        return found

    def labelled(self, places: Collection[int]) -> None:
        """Remember which of the payloads that were asked about last are labelled now, by their places."""
        for made in self._last[sorted(places)]:
            self._seen += 1
            at = self._seen - 1 if self._seen <= self._memory else int(self._chance.integers(self._seen))
            if at < self._memory:
                self._kept[at] = made


def sketches(featuriser: Featuriser, payloads: Sequence[Any], seed: int, places: int = PLACES) -> Sketches:
    """The sketches of decoded payloads, of shape (batch, ``places``); all zeros where an input has no features.

    So are those of an input whose features are not finite. Each payload is encoded alone: what a batch is padded with
    is no content. Nor is the id 0 of an axis that differs from input to input, where there are neither weights nor a
    mask.
    """
    found = np.zeros((len(payloads), places), dtype=np.float64)
    for row, payload in zip(found, payloads, strict=True):
        _add(row, featuriser, payload, seed)
    found[~np.isfinite(found).all(axis=1)] = 0.0
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return (found / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def _add(row: npt.NDArray[np.float64], featuriser: Featuriser, payload: Any, seed: int) -> None:
    """Add all features of one payload to its row, each array by a hash of its own."""
    features = featuriser.encode([payload])
    weights = features.get("weights")
    for number, (name, array) in enumerate(sorted(features.items())):
        if name == MASK or (name == "weights" and "ids" in features):
            continue
        shape = featuriser.signature[name].shape
        if np.issubdtype(array.dtype, np.integer):
            counts = np.ones(array.shape)
            if weights is not None and weights.shape == array.shape:
                counts = weights
            elif MASK not in features and any(isinstance(axis, str) for axis in shape[1:]):
                counts = array != 0
            _hash(row, array.ravel(), counts.ravel(), seed + number)
        else:
            flat = _growing_first(array, shape).ravel()
            _hash(row, np.arange(flat.size * SPREAD), np.repeat(flat / math.sqrt(SPREAD), SPREAD), seed + number)


def _growing_first(array: npt.NDArray[Any], shape: Sequence[str | int]) -> npt.NDArray[Any]:
    """The array with axes that differ from input to input before the fixed ones: a longer one begins as a shorter."""
    growing = [n for n, axis in enumerate(shape) if isinstance(axis, str)]
    return array.transpose([*growing, *(n for n, axis in enumerate(shape) if isinstance(axis, int))])


def _hash(row: npt.NDArray[np.float64], ids: npt.NDArray[Any], weights: npt.NDArray[Any], seed: int) -> None:
    """Add each id's weight with the sign and at the place that its hash says."""
    with np.errstate(over="ignore"):
        mixed = (ids.astype(np.uint64) + np.uint64(seed) * np.uint64(2_654_435_761)) * ODD
        mixed = (mixed ^ (mixed >> np.uint64(29))) * ODD
    places = (mixed >> np.uint64(40)) % np.uint64(len(row))
    signs = np.where(mixed >> np.uint64(63), 1.0, -1.0)
    row += np.bincount(places.astype(np.int64), signs * weights, minlength=len(row))


def _apart(cosine: Any) -> npt.NDArray[np.float64]:
    """The distance of unit vectors of this cosine."""
    found: npt.NDArray[np.float64] = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * np.asarray(cosine, dtype=np.float64)))
    return found
