"""Probes: fixed inputs whose answers show whether a teacher is still the one that it was.

*n* probes drawn like traffic miss a teacher that answers a share *d* of inputs otherwise with the chance
``(1 - d)^n`` (:func:`power`, :func:`size_for`): 180 miss 5 % with 1e-4, 135 with 1e-3. What the set misses when the
teacher changes it misses for good, since later probes take the changed answers for reference: hence the small chance.

A deterministic teacher is judged by rounding alone: one answer farther than the tolerance from every answer before is
a change. A noisy one is judged by a test. An answer is *strange* when its mean distance to the *r* answers of
reference is larger than that of any of them to the others (ties broken at random). Answers to one probe are
exchangeable as long as the teacher did not change, so this happens with the chance ``1 / (r + 1)`` over everything
(conformal prediction: V. Vovk, A. Gammerman and G. Shafer, "Algorithmic Learning in a Random World", 2005); given the
answers of reference the chances of the probes are no more variable than independent Beta(1, r), whose mean over the
*n* probes stays below :func:`strange_bound` with ``1 - alpha / 2``. Against that bound
:class:`drift.betting.EProcess` bets with ``alpha / 2``, at any time, on probes drawn at random with replacement.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from components.contracts import vectors
from components.contracts.records import SoftLabel
from drift.betting import EProcess

PASS = 66
"""Probes of one pass: they show a change of 5 % of the answers with a chance of 0.966 (:func:`power`); 59: 0.95."""

NOISY_ANSWERS = 20
"""Answers of reference to each probe of a noisy teacher: the more, the rarer are strange ones without a change."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One probe: the SHA-256 of its payload, the answers of reference, and whether it stays for good."""

    content: str
    answers: tuple[SoftLabel, ...]
    anchor: bool = False

    @property
    def spread(self) -> float:
        """The largest distance between two answers of reference: what repetition explains."""
        return max((distance(a, b) for i, a in enumerate(self.answers) for b in self.answers[:i]), default=0.0)


def power(size: int, differing: float) -> float:
    """The chance that ``size`` probes show a teacher that answers a share ``differing`` of inputs otherwise.

    >>> round(power(100, 0.05), 3)
    0.994
    """
    return 1.0 - (1.0 - differing) ** size


def size_for(differing: float = 0.05, miss: float = 1e-3) -> int:
    """The fewest probes that miss such a teacher with a chance of at most ``miss``.

    >>> size_for(0.05, 1e-3)
    135
    """
    return math.ceil(math.log(miss) / math.log1p(-differing))


def distance(a: SoftLabel, b: SoftLabel) -> float:
    """How far two answers are apart, 0 to 1; 1 where task or label space differ.

    Classification: total variation, half the sum of the absolute differences of probabilities. Regression: the
    difference of values or of scales, whichever is larger, in units of the larger scale, at most 1; embedding the same,
    with the cosine distance of the vectors in the place of the values' difference. Multilabel: the largest difference
    of a class's probability. Tagging: the total variation of the token that it is largest of; 1 where the tokens are
    others.
    """
    if (a.task, a.space) != (b.task, b.space):
        return 1.0
    if a.task == "regression":
        value_a, scale_a, value_b, scale_b = (float(x or 0.0) for x in (a.value, a.scale, b.value, b.scale))
        return min(1.0, max(abs(value_a - value_b), abs(scale_a - scale_b)) / max(scale_a, scale_b))
    if a.task == "embedding":
        scale_a, scale_b = float(a.scale or 0.0), float(b.scale or 0.0)
        return min(1.0, max(vectors.distance(a.vector, b.vector), abs(scale_a - scale_b)) / max(scale_a, scale_b))
    p, q = a.distribution, b.distribution
    if a.task == "multilabel":
        return max((abs(p.get(c, 0.0) - q.get(c, 0.0)) for c in p.keys() | q.keys()), default=0.0)
    if a.task == "tagging":
        if [(t.start, t.end) for t in a.tokens] != [(t.start, t.end) for t in b.tokens]:
            return 1.0
        pairs = zip(a.tokens, b.tokens, strict=True)
        return max((_variation(x.distribution, y.distribution) for x, y in pairs), default=0.0)
    return _variation(p, q)


def _variation(p: Mapping[str, float], q: Mapping[str, float]) -> float:
    return min(1.0, math.fsum(abs(p.get(c, 0.0) - q.get(c, 0.0)) for c in p.keys() | q.keys()) / 2)


def strange_bound(size: int, answers: int, alpha: float) -> float:
    """The share of strange answers that ``size`` probes with ``answers`` of reference each explain, but for ``alpha``.

    Beta(1, r) is below an exponential variable of mean 1 / r, and the sum of those has a Gamma distribution.
    """
    from scipy.special import gammaincinv

    return min(1.0, float(gammaincinv(size, 1.0 - alpha)) / (size * answers))


class Comparison:
    """A teacher's answers to its probes against those of reference.

    ``noisy``: repetition alone moved some answer of reference by more than ``tolerance``. ``moved`` holds, of a
    deterministic teacher, the contents of the probes whose last answer was another.
    """

    def __init__(self, probes: Iterable[Probe], *, tolerance: float, alpha: float, seed: int = 0) -> None:
        self.probes: dict[str, Probe] = {p.content: p for p in probes}
        self.tolerance, self.alpha = tolerance, alpha
        self.noisy = any(p.spread > tolerance for p in self.probes.values())
        self.moved: dict[str, float] = {}
        self._between: dict[str, list[float]] = {}
        self._chance = random.Random(seed)  # noqa: S311  (breaks ties and draws probes)
        least = min((len(p.answers) for p in self.probes.values()), default=1)
        self.test = EProcess(bound=strange_bound(len(self.probes), least, alpha / 2) if self.noisy else 1.0)

    def renew(self, probes: Iterable[Probe]) -> None:
        """Go on with another set, of a deterministic teacher, whose probes need no common history."""
        self.probes = {p.content: p for p in probes}
        self.moved = {c: d for c, d in self.moved.items() if c in self.probes}

    def round(self) -> list[str]:
        """The contents of the probes to ask next, as many as there are: each once, or drawn with replacement.

        Each once means in the order of their hashes, which is as good as drawn, and the same in every round: any run of
        consecutive ones, from one round into the next, is of different probes, old and new.
        """
        contents = sorted(self.probes)
        return self._chance.choices(contents, k=len(contents)) if self.noisy and contents else contents

    def observe(self, content: str, answer: SoftLabel) -> bool:
        """Take in one answer; whether the teacher must be called changed now.

        Raises:
            KeyError: there is no such probe.

        """
        known = self.probes[content].answers
        if self.noisy:
            if content not in self._between:
                self._between[content] = between(known)
            seen = strange(answer, known, self._chance.random(), self._between[content])
            self.test = self.test.observe(float(seen))
            return self.test.rejects(self.alpha / 2)
        nearest = min(distance(answer, before) for before in known)
        if nearest > self.tolerance:
            self.moved[content] = nearest
        else:
            self.moved.pop(content, None)
        return bool(self.moved)

    @property
    def calm(self) -> bool:
        """Whether nothing speaks against the teacher at present: no probe moved, no evidence gathered."""
        return not self.moved and self.test.log_e_value <= 0.0

    def evidence(self) -> Mapping[str, float | int | bool | str]:
        """What was found, as plain data for an alarm."""
        found: dict[str, float | int | bool | str] = {"probes": len(self.probes), "noisy": self.noisy}
        if self.noisy:
            return found | {
                "strange": self.test.total, "asked": self.test.n, "bound": round(self.test.bound, 4),
                "log_e": round(self.test.log_e_value, 3),
            }  # fmt: skip
        worst = max(self.moved, key=lambda c: self.moved[c], default="")
        return found | {"moved": len(self.moved), "largest": self.moved.get(worst, 0.0), "worst": worst}


def between(known: Sequence[SoftLabel]) -> list[float]:
    """The sum of the distances of each answer to all of them."""
    return [math.fsum(distance(a, b) for b in known) for a in known]


def strange(answer: SoftLabel, known: Sequence[SoftLabel], uniform: float, apart: Sequence[float]) -> bool:
    """Whether an answer is farther from ``known`` than those are from each other, by ``apart`` (:func:`between`).

    ``uniform`` in [0, 1] breaks ties.
    """
    distances = [distance(answer, other) for other in known]
    own, close = math.fsum(distances), 1e-9
    sums = [d + others for d, others in zip(distances, apart, strict=True)]
    farther, ties = sum(s > own + close for s in sums), sum(abs(s - own) <= close for s in sums)
    return farther + uniform * (ties + 1) <= 1.0
