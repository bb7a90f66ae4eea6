"""What featurisers make: arrays of a batch, by name. This module and theirs travel in exported bundles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]
Row = tuple[Ids, Weights]
"""Ids and weights of one input, both of shape (L,)."""

Features = dict[str, npt.NDArray[Any]]
"""Arrays of a batch by name; the first axis of each is the batch."""

BATCH = "batch"

TOKENS = "tokens"
"""The axis of a text's tokens, of the arrays of featurisers that say where those stand."""


def pad(rows: Sequence[Row]) -> tuple[Ids, Weights]:
    """Stack rows of different lengths: padding has id 0 and weight 0, and L is at least 1."""
    longest = max([1, *(len(ids) for ids, _ in rows)])
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    weights = np.zeros((len(rows), longest), dtype=np.float32)
    for i, (row, weight) in enumerate(rows):
        ids[i, : len(row)], weights[i, : len(row)] = row, weight
    return ids, weights
