"""Vectors of embeddings compared: by the cosine distance, with a tolerance, and never by whether their texts are equal.

The distance of two vectors is ``1 - cos``, 0 to 2, whatever their lengths. An answer gives the distance ``s`` that it
expects (its ``scale``); distances are taken to be exponential around it, the distribution of the largest entropy among
those of positive numbers with a known mean, of which 95 % are below ``3 s`` (``-log 0.05``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from components.contracts.records import SoftLabel, vector_of

WITHIN = 3.0
"""An answer agrees with another within so many of the distances that that one expects: 95 % of an exponential."""

FARTHEST = 2.0
"""The distance of opposite directions, and of vectors that cannot be compared: of different dimensions."""


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """The cosine distance, 0 to 2; 2 of vectors of different dimensions.

    >>> round(distance((1.0, 0.0), (2.0, 2.0)), 3)
    0.293
    """
    if len(a) != len(b):
        return FARTHEST
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(min(FARTHEST, max(0.0, 1.0 - float(x @ y) / lengths))) if lengths else FARTHEST


def text_distance(a: str, b: str) -> float:
    """The distance of two answers by their texts (:func:`~components.contracts.records.vector_text`)."""
    return distance(vector_of(a), vector_of(b))


def near(text: str, of: str, scale: float) -> bool:
    """Whether an answer is within :data:`WITHIN` of the distances that another one expects, both by their texts."""
    return text_distance(text, of) <= WITHIN * scale


def apart(a: SoftLabel, b: SoftLabel) -> float:
    """The distance of two answers' vectors, in those that the first expects."""
    return distance(a.vector, b.vector) / float(a.scale or 1.0)
