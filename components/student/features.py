"""The contract of featurisers: a decoded payload becomes weighted bucket ids, and a few readable descriptors.

One form serves all modalities: input *i* is a set of pairs (bucket id, weight), and the student's first layer is
the weighted sum of the buckets' embedding rows. Hashed n-grams have weights that sum to one; a table's column *j*
has id *j* and its standardised value as weight, which makes the first layer an ordinary linear one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]
Row = tuple[Ids, Weights]
"""Ids and weights of one input, both of shape (L,)."""


class Featuriser(Protocol):
    """Turns decoded payloads into the student's input. Stateless: equal options give equal features for good."""

    buckets: int
    """Rows of the embedding table; every id is in [0, buckets)."""

    def encode(self, payloads: Sequence[Any]) -> tuple[Ids, Weights]:
        """Ids and weights of shape (B, L), L >= 1 the longest of the batch; padding has id 0 and weight 0."""

    def describe(self, payload: Any) -> dict[str, float | str]:
        """A few readable descriptors of one payload (numbers or categories), the columns that drift is watched on."""


def pad(rows: Sequence[Row]) -> tuple[Ids, Weights]:
    """Stack rows of different lengths: padding has id 0 and weight 0, and L is at least 1."""
    longest = max([1, *(len(ids) for ids, _ in rows)])
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    weights = np.zeros((len(rows), longest), dtype=np.float32)
    for i, (row, weight) in enumerate(rows):
        ids[i, : len(row)], weights[i, : len(row)] = row, weight
    return ids, weights
