"""How often the gate's bound on disagreement is broken over splits of real inputs, with exact intervals.

Two claims, kept apart. *One student*: holdouts are drawn again and again for a student that is trained once, so that
only the bound is tested. *Retrained*: every split parts the inputs anew and trains its own student, so that the whole
procedure is: what a student is like changes with the split, too. Either way the truth is the student's disagreement
over the half that it has not seen, of which the holdout is drawn with replacement.
"""

import time
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, binomtest

from drift.measured import Share
from tests.bench._drift import rate
from tests.bench._pools import Pool, answers, train

ALPHA = 0.05
SIZES = (50, 100, 200)
WAYS = ("once", "weighted", "each look")
"""The bound from a holdout; from labels that a policy chose, weighted; the tightest of those after every label."""

SURE = 0.05
"""Chance that any rate is called broken of all that a run looks at, though none is (Bonferroni)."""


@dataclass(frozen=True, kw_only=True)
class Broken:
    """How often one bound was beyond the truth."""

    pool: str
    student: str
    way: str
    labels: int
    hits: int
    tries: int

    def verdict(self, looked: int) -> str:
        """Against :data:`ALPHA`, where ``looked`` rates are judged together."""
        more = binomtest(self.hits, self.tries, ALPHA, alternative="greater").pvalue
        less = binomtest(self.hits, self.tries, ALPHA, alternative="less").pvalue
        if more <= SURE / looked:
            return "BROKEN"
        return "shown below" if less <= 0.025 else "above by itself" if more <= 0.025 else "not told from alpha"


def exact(truth: float, n: int) -> float:
    """The chance that the bound from ``n`` labels that are drawn once is beyond the truth: no simulation is needed."""
    low, high = 0, n + 1  # the bound rises with the hits: look for the fewest with which it is broken
    while low < high:
        hits = (low + high) // 2
        share = Share(hits=(True,) * hits + (False,) * (n - hits), weights=(1.0,) * n)
        low, high = (low, hits) if share.bound("lower", 1 - ALPHA) > truth else (hits + 1, high)
    return float(binom.sf(low - 1, n, truth))


def drawn(agree, n, chance):
    """One holdout: by way, whether its lower bound on agreement is above the truth."""
    truth = agree.mean()
    rows = agree[chance.choice(len(agree), n)].tolist()
    wary = np.where(agree, 0.25, 0.75)  # a policy that prefers what the student has wrong
    many = chance.choice(len(agree), 2 * n)
    many = many[chance.random(2 * n) < wary[many]]
    shares = {
        "once": Share(hits=tuple(rows), weights=(1.0,) * n),
        "weighted": Share(hits=tuple(agree[many].tolist()), weights=tuple((1.0 / wary[many]).tolist())),
        "each look": Share(hits=tuple(rows), weights=(1.0,) * n, anytime=True),
    }
    return {way: share.bound("lower", 1 - ALPHA) > truth for way, share in shares.items()}


def one_student(pool: Pool, labels, holdouts: int) -> list[Broken]:
    """Holdouts of one student's answers."""
    agree, chance = labels == pool.teacher, np.random.default_rng(0)
    print(f"\n{pool.name}, one student: disagreement {1 - agree.mean():.4f} over {len(pool)} inputs, "
          f"{holdouts} holdouts of each size; nothing is trained anew")  # fmt: skip
    found = []
    for n in SIZES:
        broken = [drawn(agree, n, chance) for _ in range(holdouts)]
        found += _shown(pool, "one", n, broken, exact(agree.mean(), n))
    return found


def retrained(pool: Pool, splits: int) -> list[Broken]:
    """A student of its own for every split, and one holdout of each size from what it has not seen."""
    chance, half, started = np.random.default_rng(2), len(pool) // 2, time.process_time()
    truths, broken = [], {n: [] for n in SIZES}
    for split in range(splits):
        order = chance.permutation(len(pool))
        unseen = pool.take(order[half:])
        agree = answers(train(pool.take(order[:half]), split), unseen).argmax(1) == unseen.teacher
        truths.append(agree.mean())
        for n in SIZES:
            broken[n].append(drawn(agree, n, chance))
    seconds = (time.process_time() - started) / splits
    print(f"\n{pool.name}, retrained: {splits} splits, each with a student trained on a half ({half} inputs) and a "
          f"holdout of each size from the other; disagreement {1 - max(truths):.4f} to {1 - min(truths):.4f}; "
          f"{seconds:.1f} CPU seconds a split")  # fmt: skip
    found = []
    for n in SIZES:
        found += _shown(pool, "retrained", n, broken[n], float(np.mean([exact(t, n) for t in truths])))
    return found


def _shown(pool, student, n, broken, chance_once):
    found = []
    for way in WAYS:
        hits = sum(b[way] for b in broken)
        made = Broken(pool=pool.name, student=student, way=way, labels=n, hits=int(hits), tries=len(broken))
        note = f"; exactly {chance_once:.4f}" if way == "once" else ""
        print(f"{n:7} labels, {way:>9}: broken in {rate(made.hits, made.tries)}{note}", flush=True)
        found.append(made)
    return found


def judged(found: list[Broken]) -> list[str]:
    """Say of every rate what is known of it against :data:`ALPHA`; the names of those that are broken."""
    print(f"\nagainst alpha = {ALPHA}, {len(found)} rates (intervals at 95 % each, BROKEN at {SURE:.0%} over all):")
    for student, what in (("one", "one student, resampled holdouts"), ("retrained", "a student trained a split")):
        rates = [b for b in found if b.student == student]
        verdicts = [b.verdict(len(found)) for b in rates]
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
        print(f"  {what}: {counts or 'none was measured'}")
        for way in WAYS:
            of = [b for b in rates if b.way == way]
            hits, tries = sum(b.hits for b in of), sum(b.tries for b in of)
            print(f"    {way:>9}: {rate(hits, tries)} over {tries} holdouts of all sizes and pools")
    return [
        f"{b.pool}, {b.student}, {b.way}, {b.labels} labels: {rate(b.hits, b.tries)}"
        for b in found
        if b.verdict(len(found)) == "BROKEN"
    ]
