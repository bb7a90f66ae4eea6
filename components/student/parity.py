"""How far two artifacts' answers to the same inputs are apart: the float model's and the quantised one's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from components.contracts.records import SoftLabel

CLOSE = 0.1
"""Regression values within this share of the reference's scale count as the same answer."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """``gap``: share of answers that differ, in [0, 1]; ``largest``: the largest difference of one of their numbers.

    ``variation``, ``most_variation``: mean and largest total variation between distributions, in [0, 1]; for regression
    the mean and the largest difference of values, in scales.

    Classification answers differ when their labels do, and their numbers are probabilities; regression answers
    differ when their values are more than :data:`CLOSE` scales apart, and ``largest`` is in scales.
    """

    gap: float
    largest: float
    variation: float
    most_variation: float


def parity(reference: Sequence[SoftLabel], other: Sequence[SoftLabel]) -> Parity | None:
    """Compare answers pair by pair; None of nothing, for which nothing is known.

    Raises:
        ValueError: they differ in length.

    """
    pairs = list(zip(reference, other, strict=True))
    if not pairs:
        return None
    differences = [_difference(a, b) for a, b in pairs]
    different = [
        d > CLOSE if a.task == "regression" else a.label != b.label
        for (a, b), d in zip(pairs, differences, strict=True)
    ]
    variations = [_variation(a, b) for a, b in pairs]
    return Parity(
        gap=sum(different) / len(pairs),
        largest=max(differences),
        variation=math.fsum(variations) / len(pairs),
        most_variation=max(variations),
    )


def _difference(a: SoftLabel, b: SoftLabel) -> float:
    if a.value is not None and a.scale is not None and b.value is not None:
        return abs(a.value - b.value) / a.scale
    names = a.distribution.keys() | b.distribution.keys()
    return max(abs(a.distribution.get(n, 0.0) - b.distribution.get(n, 0.0)) for n in names)


def _variation(a: SoftLabel, b: SoftLabel) -> float:
    if a.task == "regression":
        return _difference(a, b)
    names = a.distribution.keys() | b.distribution.keys()
    return 0.5 * math.fsum(abs(a.distribution.get(n, 0.0) - b.distribution.get(n, 0.0)) for n in names)
