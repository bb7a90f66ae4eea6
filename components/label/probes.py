"""Probes: fixed inputs whose answers show whether a teacher is still the one that it was.

*n* probes drawn like traffic miss a teacher that answers a share *d* of inputs otherwise with the chance
``(1 - d)^n`` (:func:`power`, :func:`size_for`): 135 see 5 % with 0.999, 59 with 0.95.

A deterministic teacher is judged by rounding alone: one answer farther than the tolerance from every answer before is
a change. A noisy one is judged by a test: under the hypothesis that it did not change, all answers to one probe are
exchangeable, so the rank of a new answer's mean distance among those of the answers before, itself included and ties
broken at random, is uniform and independent of the ranks before it (conformal p-values: V. Vovk, A. Gammerman and
G. Shafer, "Algorithmic Learning in a Random World", 2005, chapter 8). That a p-value is at most :data:`TAIL` is then
a coin of that chance, and :class:`drift.betting.EProcess` bets against it, at any time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from components.contracts.records import SoftLabel
from drift.betting import EProcess

TAIL = 0.05
"""A noisy teacher's answer counts as strange when at most this share of the answers before is as far away."""

LONGEST = 100
"""Answers to one probe after which a noisy teacher's test starts anew from the reference, so that memory ends."""


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
    difference of values or of scales, whichever is larger, in units of the larger scale, at most 1.
    """
    if (a.task, a.space) != (b.task, b.space):
        return 1.0
    if a.task == "regression":
        value_a, scale_a, value_b, scale_b = (float(x or 0.0) for x in (a.value, a.scale, b.value, b.scale))
        return min(1.0, max(abs(value_a - value_b), abs(scale_a - scale_b)) / max(scale_a, scale_b))
    p, q = a.distribution, b.distribution
    return min(1.0, math.fsum(abs(p.get(c, 0.0) - q.get(c, 0.0)) for c in p.keys() | q.keys()) / 2)


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
        self._chance = random.Random(seed)  # noqa: S311  (breaks ties)
        self._restart()

    def _restart(self) -> None:
        self.test = EProcess(bound=TAIL)
        self._bags = {c: _Bag(p.answers) for c, p in self.probes.items()} if self.noisy else {}

    def renew(self, probes: Iterable[Probe]) -> None:
        """Go on with another set: what was gathered about probes that stay is kept."""
        self.probes = {p.content: p for p in probes}
        self.moved = {c: d for c, d in self.moved.items() if c in self.probes}
        if self.noisy:
            self._bags = {c: self._bags.get(c) or _Bag(p.answers) for c, p in self.probes.items()}

    def observe(self, content: str, answer: SoftLabel) -> bool:
        """Take in one answer; whether the teacher must be called changed now.

        Raises:
            KeyError: there is no such probe.

        """
        if not self.noisy:
            nearest = min(distance(answer, known) for known in self.probes[content].answers)
            if nearest > self.tolerance:
                self.moved[content] = nearest
            else:
                self.moved.pop(content, None)
            return bool(self.moved)
        p = self._bags[content].p_value(answer, self._chance.random())
        self.test = self.test.observe(float(p <= TAIL))
        changed = self.test.rejects(self.alpha)
        if not changed and self._bags[content].size > LONGEST:
            self._restart()
        return changed

    @property
    def calm(self) -> bool:
        """Whether nothing speaks against the teacher at present: no probe moved, no evidence gathered."""
        return not self.moved and self.test.log_e_value <= 0.0

    def evidence(self) -> Mapping[str, float | int | bool | str]:
        """What was found, as plain data for an alarm."""
        found: dict[str, float | int | bool | str] = {"probes": len(self.probes), "noisy": self.noisy}
        if self.noisy:
            return found | {"strange": self.test.total, "asked": self.test.n, "log_e": round(self.test.log_e_value, 3)}
        worst = max(self.moved, key=lambda c: self.moved[c], default="")
        return found | {"moved": len(self.moved), "largest": self.moved.get(worst, 0.0), "worst": worst}


class _Bag:
    """The answers to one probe so far, each with the sum of its distances to the others."""

    def __init__(self, answers: Sequence[SoftLabel]) -> None:
        self._answers: list[SoftLabel] = []
        self._sums: list[float] = []
        for answer in answers:
            self._add(answer)

    @property
    def size(self) -> int:
        return len(self._answers)

    def _add(self, answer: SoftLabel) -> float:
        apart = [distance(answer, other) for other in self._answers]
        self._sums = [s + d for s, d in zip(self._sums, apart, strict=True)]
        own = math.fsum(apart)
        self._answers.append(answer)
        self._sums.append(own)
        return own

    def p_value(self, answer: SoftLabel, uniform: float) -> float:
        """The share of answers, the new one included, that are as far from the others; ties count by ``uniform``."""
        own = self._add(answer)
        close = 1e-12 * max(1.0, own)
        farther = sum(s > own + close for s in self._sums)
        ties = sum(abs(s - own) <= close for s in self._sums)
        return (farther + uniform * ties) / self.size
