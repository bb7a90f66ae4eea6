"""How far two artifacts' answers to the same inputs are apart: the float model's and the quantised one's.

A model that takes the ranges of its activations from each batch answers an input otherwise beside others: it is
compared as it is served, alone and in batches of several sizes, and the worst counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from components.contracts.records import SoftLabel
from components.student.runtime import Reply, Student

BATCHES = (1, 7, 32)
"""Sizes of batches that a model is asked in whose answers hang on what else is asked."""

ASKED = 256
"""Inputs that are asked in each of them, in an order of chance."""

CLOSE = 0.1
"""Regression values within this share of the reference's scale count as the same answer."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """``gap``: share of answers that differ, in [0, 1]; ``largest``: the largest difference of one of their numbers.

    ``variation``, ``most_variation``: mean and largest total variation between distributions, in [0, 1]; for regression
    the mean and the largest difference of values, in scales. ``novelty``: mean difference of p-values of novelty, in
    [0, 1]; None where one of the two tells of none.

    Classification answers differ when their labels do, and their numbers are probabilities; regression answers
    differ when their values are more than :data:`CLOSE` scales apart, and ``largest`` is in scales.
    """

    gap: float
    largest: float
    variation: float
    most_variation: float
    novelty: float | None = None


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


def served_parity(full: Student, other: Student, payloads: Sequence[bytes]) -> Parity | None:
    """Parity of a model with the float model of the same weights; None where there are no inputs.

    Novelty is compared as it is told to inputs that are asked together.
    """
    replies = full.reply(payloads), other.reply(payloads)
    reference, said = ([reply.soft for reply in some] for some in replies)
    found = parity(reference, said)
    if found is None:
        return None
    found = replace(found, novelty=_novelty_gap(*replies))
    if not other.batch_dependent:
        return found
    every = [found]
    order = np.random.default_rng(0).permutation(len(payloads))[:ASKED].tolist()
    for size in BATCHES:
        said = [
            answer
            for first in range(0, len(order), size)
            for answer in other.predict([payloads[i] for i in order[first : first + size]])
        ]
        every.append(parity([reference[i] for i in order], said) or found)
    return Parity(
        gap=max(p.gap for p in every),
        largest=max(p.largest for p in every),
        variation=max(p.variation for p in every),
        most_variation=max(p.most_variation for p in every),
        novelty=found.novelty,
    )


def _novelty_gap(ours: Sequence[Reply], theirs: Sequence[Reply]) -> float | None:
    apart = [
        abs(a.novelty - b.novelty)
        for a, b in zip(ours, theirs, strict=True)
        if a.novelty is not None and b.novelty is not None
    ]
    return math.fsum(apart) / len(apart) if apart else None


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
