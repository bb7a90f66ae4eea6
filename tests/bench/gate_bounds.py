"""Whether the gate's bounds hold on real inputs, and what it does with worse, equal and copying students.

Holdouts are drawn again and again from a pool that stands for the traffic, so that the truth of every measure is known.
Of the bounds it tells apart what holds of a student that is trained once and what holds over students that are trained
anew on every split.
"""

import argparse
import sys
import time
from dataclasses import replace

import msgspec
import numpy as np

from components.contracts.spec import Limits
from components.evaluate.evidence import Answer, Evidence, Judgement, Row
from components.evaluate.judge import demanded, judge
from components.evaluate.measure import measures
from tests.bench._pools import Pool, answers, pools, train
from tests.bench._splits import ALPHA, judged, one_student, retrained

RESAMPLES = 1_000
SPLITS = 200
COPIES = 100
MARGIN = 0.05
FIRST_LABELS = 60
MOST_LOOKS = 6
DECISIONS = 240


def said(classes, label):
    return Answer(label=classes[label], confidence=0.9)


def evidence(pool, rows, candidate, champion, limits):
    """Evidence of a draw: labels by class index for every row of the pool."""
    made = [
        Row(set="new", truth=pool.classes[pool.truth[i]], teacher=said(pool.classes, pool.teacher[i]),
            candidate=said(pool.classes, candidate[i]), champion=said(pool.classes, champion[i]))
        for i in rows
    ]  # fmt: skip
    judgement = Judgement(workload=pool.name, task="classification", champion="c")
    return demanded(Evidence(judgement=judgement, rows=tuple(made)), limits)


def limits(**more):
    return Limits(min_rows=20, confidence=1.0 - ALPHA, **more)


def worse_by(pool, candidate, champion, loss, chance):
    """The candidate's labels, changed at random rows until its accuracy is the champion's less ``loss``."""
    labels, classes = candidate.copy(), len(pool.classes)
    wanted = round(((champion == pool.truth).mean() - loss) * len(pool))
    while (short := int((labels == pool.truth).sum()) - wanted) != 0:
        rows = np.flatnonzero((labels == pool.truth) == (short > 0))
        picked = chance.choice(rows, abs(short), replace=False)
        labels[picked] = (pool.truth[picked] + chance.integers(1, classes, abs(short))) % classes
        if short < 0:
            labels[picked] = pool.truth[picked]
    return labels


def decide(pool, candidate, champion, chance, *, repeated=False):
    """Look, fetch as many more labels as the gate asks for, look again: the decision, the labels, and the looks."""
    wanted, n = limits(max_loss=MARGIN, looks="repeated" if repeated else "once"), FIRST_LABELS
    order = chance.choice(len(pool), 30_000)
    for look in range(MOST_LOOKS):
        verdict = judge(evidence(pool, order[:n], candidate, champion, wanted))
        more = next((f.more for f in verdict.findings if f.more), None)
        if verdict.decision != "hold" or more is None:
            return verdict.decision, n, look
        n = min(len(order), n + more)
    return verdict.decision, n, MOST_LOOKS


def gold(pool: Pool, candidate, champion, decisions):
    """What the gold gate does at the label count that it said would decide."""
    print(f"\n{pool.name}: accuracy of the champion {(champion == pool.truth).mean():.4f}, margin {MARGIN}, "
          f"{decisions} holdouts of {FIRST_LABELS} labels at first, then what the gate asks for")  # fmt: skip
    heads = ("true loss", "looks", "promote", "reject", "hold", "labels", "asked for more", "of those rejected")
    print("{:>10} {:>9} {:>8} {:>8} {:>6} {:>7} {:>15} {:>18}".format(*heads))
    found = {}
    cases = (("0", 0.0), ("margin", MARGIN), ("2 margins", 2 * MARGIN))
    for repeated in (False, True):
        for name, loss in cases[: 2 if repeated else 3]:
            chance = np.random.default_rng(7)
            labels = worse_by(pool, candidate, champion, loss, chance)
            n = decisions // 3 if repeated else decisions
            made = [decide(pool, labels, champion, chance, repeated=repeated) for _ in range(n)]
            shares = {d: float(np.mean([m[0] == d for m in made])) for d in ("promote", "reject", "hold")}
            later = [m[0] != "promote" for m in made if m[2]]
            shares["stopped_later"] = float(np.mean(later)) if later else 1.0
            way = "repeated" if repeated else "once"
            found[name, way] = shares
            print(f"{name:>10} {way:>9} {shares['promote']:8.1%} {shares['reject']:8.1%} {shares['hold']:6.1%}"
                  f" {np.median([m[1] for m in made]):7.0f} {len(later) / n:15.1%} {shares['stopped_later']:18.1%}",
                  flush=True)  # fmt: skip
    return found


def right(found, decisions):
    """Whether the gold gate does what it says, up to chance."""
    slack = 3 * (0.1 * 0.9 / decisions) ** 0.5
    return (
        found["margin", "once"]["stopped_later"] >= 0.90 - slack
        and found["2 margins", "once"]["reject"] >= 0.90
        and found["0", "once"]["promote"] >= 0.80
        and found["margin", "repeated"]["promote"] <= ALPHA + 3 * (0.05 * 0.95 / (decisions // 3)) ** 0.5
    )


def copycat(pool: Pool, champion, n):
    """A teacher that confuses some classes, and a student that copies it perfectly."""
    chance = np.random.default_rng(3)
    common = np.bincount(pool.truth, minlength=len(pool.classes)).argsort()[::-1]
    bad = common[1] if len(common) > 2 else common[-1]
    soft = pool.soft.copy()
    rows = np.flatnonzero(pool.truth == bad)
    soft[rows] = np.eye(len(pool.classes))[common[0]]
    wrong = replace(pool, soft=soft)
    copy, wanted = wrong.teacher, limits(max_loss=MARGIN, min_agreement=0.9)
    loss = (champion == pool.truth).mean() - (copy == pool.truth).mean()
    stopped, agreed, alone = 0, 0, 0
    for _ in range(n):
        made = evidence(wrong, chance.choice(len(pool), 200), copy, champion, wanted)
        verdict = judge(made)
        agreed += {f.measure: f.outcome for f in verdict.findings}["agreement"] == "pass"
        stopped += verdict.decision != "promote"
        alone += judge(demanded(made, msgspec.structs.replace(wanted, max_loss=None))).decision == "promote"
    agreement = measures(made)["agreement"].value
    print(f"{pool.name}: copies the teacher (agreement {agreement:.3f}), is worse than the champion by {loss:.3f}: "
          f"stopped {stopped / n:.1%} of {n} at 200 labels; agreement passes {agreed / n:.1%}, and alone would have "
          f"promoted it {alone / n:.1%}")  # fmt: skip
    return stopped / n, loss


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gate_bounds")
    parser.add_argument("--share", type=float, default=1.0, help="of the repetitions, for a quick look")
    parser.add_argument("--only-bounds", action="store_true", help="leave out what the gate does with other students")
    given, _ = parser.parse_known_args()
    counts = (RESAMPLES, SPLITS, DECISIONS, COPIES)
    resamples, splits, decisions, copies = (max(30, round(n * given.share)) for n in counts)
    started = time.perf_counter()
    failures, broken = [], []
    for pool in pools():
        chance = np.random.default_rng(1)
        order = chance.permutation(len(pool))
        half, third = len(pool) // 2, len(pool) // 3
        traffic = pool.take(order[half:])
        nets = [train(pool.take(order[a:b]), seed) for seed, (a, b) in enumerate(((0, third), (third // 2, half)))]
        champion, candidate = (answers(net, traffic).argmax(1) for net in nets)
        broken += one_student(traffic, candidate, resamples)
        broken += retrained(pool, splits)
        if given.only_bounds:
            continue
        found = gold(traffic, candidate, champion, decisions)
        if not right(found, decisions):
            failures.append(f"{pool.name}: {found}")
        if (stop := copycat(traffic, champion, copies))[1] > 2 * MARGIN and stop[0] < 0.9:
            failures.append(f"{pool.name}: the copying student was stopped in {stop[0]:.1%}")
    failures += judged(broken)
    print(f"\n{time.perf_counter() - started:.0f} s; " + ("; ".join(failures) or "no bound is shown to be broken"))
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
