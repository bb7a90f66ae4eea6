"""How far two artifacts' answers to the same inputs are apart: the float model's and the quantised one's.

A model that takes the ranges of its activations from each batch answers an input otherwise beside others: it is
compared as it is served, alone and in batches of several sizes, and the worst counts.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.contracts.records import SoftLabel
from components.contracts.vectors import apart
from components.student.runtime import CHUNK, Reply, Student

BATCHES = (1, 7, 32)
"""Sizes of batches that a model is asked in whose answers hang on what else is asked."""

ASKED = 256
"""Inputs that are asked in each of them, in an order of chance."""

CLOSE = 0.1
"""Regression values, and vectors' cosine distances, within this share of the reference's scale count as the same."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """``gap``: share of answers that differ, in [0, 1]; ``largest``: the largest difference of one of their numbers.

    ``variation``, ``most_variation``: mean and largest total variation between distributions, in [0, 1], of multilabel
    that of the class which differs most, of a text that is tagged the mean over its tokens; for regression the mean and
    the largest difference of values, in scales, for embedding those of cosine distances.
    ``novelty``: mean difference of p-values of novelty, in [0, 1]; None where one of the two tells of none.

    Answers of classes and tags differ when their labels do, and their numbers are probabilities; regression answers
    differ when their values are more than :data:`CLOSE` scales apart, and ``largest`` is in scales; embeddings alike,
    by the cosine distance of their vectors.
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
    compared = _Compared()
    compared.add(reference, other)
    return compared.parity


class _Compared:
    """Numbers of each pair of answers; the answers themselves are not kept."""

    def __init__(self) -> None:
        self.differences, self.variations, self.novelty = array("d"), array("d"), array("d")
        self.different = 0

    def add(self, reference: Sequence[SoftLabel], other: Sequence[SoftLabel]) -> None:
        """Compare these, pair by pair."""
        for a, b in zip(reference, other, strict=True):
            difference = _difference(a, b)
            self.differences.append(difference)
            self.different += difference > CLOSE if a.task in ("regression", "embedding") else a.label != b.label
            self.variations.append(_variation(a, b))

    @property
    def parity(self) -> Parity | None:
        """What they come to; None of nothing."""
        count = len(self.differences)
        if not count:
            return None
        return Parity(
            gap=self.different / count,
            largest=max(self.differences),
            variation=math.fsum(self.variations) / count,
            most_variation=max(self.variations),
            novelty=math.fsum(self.novelty) / len(self.novelty) if self.novelty else None,
        )


def served_parity(full: Student, other: Student, payloads: Sequence[bytes]) -> Parity | None:
    """Parity of a model with the float model of the same weights; None where there are no inputs.

    Novelty is compared as it is told to inputs that are asked together.
    """
    whole, reference = _Compared(), dict[int, SoftLabel]()
    asked = np.random.default_rng(0).permutation(len(payloads))[:ASKED].tolist()
    wanted = set(asked)
    for first in range(0, len(payloads), CHUNK):
        some = payloads[first : first + CHUNK]
        ours, theirs = full.reply(some), other.reply(some)
        whole.add([reply.soft for reply in ours], [reply.soft for reply in theirs])
        reference |= {first + i: reply.soft for i, reply in enumerate(ours) if first + i in wanted}
        whole.novelty.extend(_novelty_gaps(ours, theirs))
    found = whole.parity
    if found is None or not other.batch_dependent:
        return found
    every = [found]
    for size in BATCHES:
        said = [
            answer
            for first in range(0, len(asked), size)
            for answer in other.predict([payloads[i] for i in asked[first : first + size]])
        ]
        every.append(parity([reference[i] for i in asked], said) or found)
    return Parity(
        gap=max(p.gap for p in every),
        largest=max(p.largest for p in every),
        variation=max(p.variation for p in every),
        most_variation=max(p.most_variation for p in every),
        novelty=found.novelty,
    )


def _novelty_gaps(ours: Sequence[Reply], theirs: Sequence[Reply]) -> list[float]:
    return [
        abs(a.novelty - b.novelty)
        for a, b in zip(ours, theirs, strict=True)
        if a.novelty is not None and b.novelty is not None
    ]


def _difference(a: SoftLabel, b: SoftLabel) -> float:
    if a.vector:
        return apart(a, b)
    if a.value is not None and a.scale is not None and b.value is not None:
        return abs(a.value - b.value) / a.scale
    if a.task == "tagging":
        pairs = zip(a.tokens, b.tokens, strict=True)
        return max((_apart(x.distribution, y.distribution)[0] for x, y in pairs), default=0.0)
    return _apart(a.distribution, b.distribution)[0]


def _variation(a: SoftLabel, b: SoftLabel) -> float:
    if a.task in ("regression", "multilabel", "embedding"):
        return _difference(a, b)
    if a.task == "tagging":
        pairs = zip(a.tokens, b.tokens, strict=True)
        return math.fsum(_apart(x.distribution, y.distribution)[1] for x, y in pairs) / max(1, len(a.tokens))
    return _apart(a.distribution, b.distribution)[1]


def _apart(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[float, float]:
    """The largest difference of a probability, and the total variation."""
    gaps = [abs(a.get(n, 0.0) - b.get(n, 0.0)) for n in a.keys() | b.keys()]
    return max(gaps, default=0.0), 0.5 * math.fsum(gaps)
