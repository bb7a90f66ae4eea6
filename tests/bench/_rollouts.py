"""Many rollouts at once: their traffic, and the guards' decisions on it, with numpy over the rollouts.

The arithmetic is that of :mod:`serving.rollout.guards`; ``tests/serving/rollout/test_twin.py`` shows that both decide
at the same request.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from components.contracts.spec import RolloutPolicy, Step
from serving.rollout import comparison as c
from serving.rollout import guards as g

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

SLOW_MS = 25.0
POLICY = RolloutPolicy(
    steps=(Step(weight=0.0, min_candidate=10**9),),
    max_error_rate=0.0,
    max_extra_disagreement=0.0,
    max_slice_disagreement=0.0,
    max_slow_share=0.0,
    slow_ms=SLOW_MS,
    max_slowdown=1.0,
)
"""No allowance at all: whatever is worse than the champion has to be found, and nothing that is not."""

CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Case:
    """A champion and a candidate. ``shared``: the part of the champion's mistakes that the candidate makes too.

    What is bad begins after ``onset`` requests of the candidate's (pairs, or about as many). ``only``: the class to
    which the candidate's extra mistakes are confined.
    """

    name: str
    paired: bool = False
    errors: float = 0.005
    more_errors: float = 0.0
    wrong: float = 0.10
    more_wrong: float = 0.0
    slowdown: float = 1.0
    shared: float = 0.8
    only: int | None = None
    onset: int = 0
    outage: bool = False


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Requests of rollouts, each array (rollouts, requests): who was given it, and what both would make of it."""

    weights: Array
    theirs: Flags
    errors: tuple[Flags, Flags]
    latencies: tuple[Array, Array]
    wrong: tuple[Flags, Flags]
    slices: npt.NDArray[np.int64]

    def asked(self) -> npt.NDArray[np.int64]:
        """How often the candidate had been asked after each request."""
        return np.cumsum(self.theirs | (self.weights == 0.0), axis=1)


def make(case: Case, rng: np.random.Generator, rollouts: int, weights: Array) -> Traffic:
    """Draw the traffic of rollouts with these ``weights``, one for each request, 0 for a pair."""
    shape = (rollouts, len(weights))
    theirs = rng.random(shape) < weights
    asked = np.cumsum(theirs | (weights == 0.0), axis=1)
    bad = asked > case.onset
    slices = rng.integers(0, CLASSES, shape)
    base = np.full(shape[1], case.errors)
    if case.outage:
        base[shape[1] // 2 : shape[1] // 2 + 300] = 0.5
    wrong = rng.random(shape) < case.wrong
    same = rng.random(shape) < case.shared
    own = rng.random(shape) < case.wrong
    extra = case.more_wrong / (1.0 - case.wrong) if case.only is None else case.more_wrong
    extra_wrong = bad & (rng.random(shape) < extra)
    if case.only is not None:
        extra_wrong &= slices == case.only
    return Traffic(
        weights=weights,
        theirs=theirs,
        errors=(rng.random(shape) < base, rng.random(shape) < base + case.more_errors * bad),
        latencies=(
            np.exp(rng.normal(np.log(10.0), 0.5, shape)),
            np.exp(rng.normal(np.log(10.0), 0.5, shape)) * np.where(bad, case.slowdown, 1.0),
        ),
        wrong=(wrong, np.where(same, wrong, own) | extra_wrong),
        slices=slices,
    )


class Tests:
    """Comparisons, one for each row."""

    waiting = c.waiting(np.arange(200_001, dtype=np.float64))
    excesses = np.array(c.EXCESSES)

    def __init__(self, rows: int, margin: float) -> None:
        self.margin = margin
        self.capitals = np.full((rows, len(c.EXCESSES)), c.AT_ONCE / len(c.EXCESSES))
        self.begun = np.zeros(rows, dtype=np.int64)
        self.n, self.bad = np.zeros(rows), np.zeros(rows)
        self.e_values = np.ones(rows)
        self._paired = np.array(c.paired_bets(margin))

    def paired(self, rows: npt.NDArray[np.int64], champion: Array, candidate: Array) -> None:
        z = candidate - champion
        self._grow(rows, 1.0 + self._paired * (z - self.margin)[:, None], np.ones(len(rows), dtype=np.int64))
        self.n[rows] += 2
        self.bad[rows] += champion + candidate

    def separate(self, rows: npt.NDArray[np.int64], theirs: Flags, x: Array, weight: float) -> None:
        centre = self.bad[rows] / (self.n[rows] + 1)
        lost = self.margin + np.maximum(centre / weight, (1.0 - centre) / (1.0 - weight))
        best = weight * (1.0 - weight) * self.excesses / (1.0 + weight * self.excesses)
        bets = np.minimum(best, (c.SURE / lost)[:, None])
        z = np.where(theirs, (x - centre) / weight, (centre - x) / (1.0 - weight))
        self._grow(rows, 1.0 + bets * (z - self.margin)[:, None], theirs.astype(np.int64))
        self.n[rows] += 1
        self.bad[rows] += x

    def _grow(self, rows: npt.NDArray[np.int64], factors: Array, begins: npt.NDArray[np.int64]) -> None:
        before = self.begun[rows]
        after = before + begins
        fresh = (self.waiting[before] - self.waiting[after]) / len(c.EXCESSES)
        grown = np.minimum((self.capitals[rows] + fresh[:, None]) * factors, c.MOST)
        self.capitals[rows], self.begun[rows] = grown, after
        self.e_values[rows] = grown.sum(axis=1) + self.waiting[after]


class Twin:
    """The guards of many rollouts under :data:`POLICY`, every request audited.

    ``pairs``: in a canary both students answer every input; else each has its own.
    """

    def __init__(self, rollouts: int, pairs: bool = True) -> None:
        self.pairs = pairs
        self.all = np.arange(rollouts)
        names = ("errors", "slow", "slower", "tail", "disagreement")
        self.tests = {name: Tests(rollouts, 0.0) for name in names}
        self.slices = Tests(rollouts * CLASSES, 0.0)
        self.rank = np.full((rollouts, CLASSES), -1)
        self.come = np.zeros(rollouts, dtype=np.int64)
        self.seen = np.zeros((rollouts, g.MARKS[-1]))
        self.count = np.zeros(rollouts, dtype=np.int64)
        self.marks = np.full((rollouts, 2), np.nan)
        self.breached = {name: np.zeros(rollouts, dtype=bool) for name in ("errors", "slow")}
        present = [a.name for a in g.assess(g.guards_of(POLICY), POLICY)]
        total = sum(g.BUDGET[name] for name in present)
        self.shares = {name: g.BUDGET[name] / total for name in present}
        self.slice_shares = np.array(g.slice_shares()[:CLASSES])

    def run(self, traffic: Traffic) -> npt.NDArray[np.int64]:
        """The request (from 1) at which each rollout is taken back; 0 where it is not."""
        at = np.zeros(len(self.all), dtype=np.int64)
        for t, weight in enumerate(traffic.weights):
            self._answered(traffic, t, float(weight))
            trips = self.evidence() >= 1.0 / POLICY.alpha
            self._audited(traffic, t, float(weight))
            trips |= self.evidence() >= 1.0 / POLICY.alpha
            at[(at == 0) & trips] = t + 1
            if at.all():
                break
        return at

    def evidence(self) -> Array:
        """The rollouts' evidence: the weighted mean of the guards' e-values."""
        total = np.full(len(self.all), self.shares["truth"])
        for name, tests in self.tests.items():
            own = tests.e_values
            if name in self.breached:
                own = np.minimum(own, np.where(self.breached[name], np.inf, 1.0))
            total = total + self.shares[name] * own
        gains = np.where(self.rank < 0, 0.0, self.slice_shares[self.rank]) * (
            self.slices.e_values.reshape(self.rank.shape) - 1.0
        )
        return total + self.shares["slices"] * (1.0 + gains.sum(axis=1))

    def _compare(
        self, name: str, rows: npt.NDArray[np.int64], theirs: Flags, outcomes: tuple[Array, Array], weight: float,
        paired: bool,
    ) -> None:  # fmt: skip
        champion, candidate = (np.asarray(o, dtype=np.float64)[rows] for o in outcomes)
        if paired:
            self.tests[name].paired(rows, champion, candidate)
        elif len(rows):
            self.tests[name].separate(rows, theirs[rows], np.where(theirs[rows], candidate, champion), weight)

    def _answered(self, traffic: Traffic, t: int, weight: float) -> None:
        theirs = traffic.theirs[:, t]
        errors = (traffic.errors[0][:, t], traffic.errors[1][:, t])
        ms = (traffic.latencies[0][:, t], traffic.latencies[1][:, t])
        slow = (ms[0] > SLOW_MS, ms[1] > SLOW_MS)
        shadow, paired = weight == 0.0, weight == 0.0 or self.pairs
        self.breached["errors"] |= (theirs | paired) & errors[1]
        self.breached["slow"] |= (theirs | shadow) & slow[1]
        self._compare("errors", self.all, theirs, errors, weight, paired)
        self._compare("slow", self.all, theirs, slow, weight, shadow)
        marked = np.flatnonzero(~np.isnan(self.marks[:, 0]))
        over = [(ms[0] > self.marks[:, i], ms[1] > self.marks[:, i]) for i in (0, 1)]
        if shadow:
            self._compare("slower", self.all, theirs, (ms[0] > ms[1], ms[1] > ms[0]), weight, shadow)
        else:
            self._compare("slower", marked, theirs, over[0], weight, shadow)
        if len(marked):
            self._compare("tail", marked, theirs, over[1], weight, shadow)
        self._mark(np.flatnonzero(~theirs & (self.count < g.MARKS[-1])), ms[0])

    def _mark(self, rows: npt.NDArray[np.int64], ms: Array) -> None:
        self.seen[rows, self.count[rows]] = ms[rows]
        self.count[rows] += 1
        for n in g.MARKS:
            now = rows[self.count[rows] == n]
            ordered = np.sort(self.seen[now, :n], axis=1)
            self.marks[now, 0], self.marks[now, 1] = ordered[:, n // 2], ordered[:, int(np.ceil(0.9 * n)) - 1]

    def _audited(self, traffic: Traffic, t: int, weight: float) -> None:
        theirs, paired = traffic.theirs[:, t], weight == 0.0 or self.pairs
        wrong = (traffic.wrong[0][:, t], traffic.wrong[1][:, t])
        fine = (~traffic.errors[0][:, t], ~traffic.errors[1][:, t])
        both = fine[0] & fine[1]
        told = fine[0] | fine[1] if weight == 0.0 else both if paired else np.where(theirs, fine[1], fine[0])
        rows = np.flatnonzero(both if paired else told)
        self._compare("disagreement", rows, theirs, wrong, weight, paired)
        # a slice comes with the first audit in it, also with one that compares nothing
        of = traffic.slices[:, t]
        new = told & (self.rank[self.all, of] < 0)
        self.rank[self.all[new], of[new]] = self.come[new]
        self.come[new] += 1
        places = rows * CLASSES + of[rows]
        champion, candidate = (np.asarray(w, dtype=np.float64)[rows] for w in wrong)
        if paired:
            self.slices.paired(places, champion, candidate)
        elif len(rows):
            self.slices.separate(places, theirs[rows], np.where(theirs[rows], candidate, champion), weight)


def aa(case: Case) -> Case:
    """The same case with a candidate that is no worse."""
    return replace(case, name=f"A/A of {case.name}", more_errors=0.0, more_wrong=0.0, slowdown=1.0, onset=0, only=None)
