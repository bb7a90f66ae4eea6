"""A regime that comes back: inputs until its old champion serves again, beside learning it again.

Two regimes of six classes each, told apart by nothing but where their inputs lie. A student is fitted to 300 rows of
each (nearest class, conformal p-values by 300 further rows); B's serves, and after 1,000 inputs of B traffic is A's
again. ``by novelty``: no input is labelled; ``by labels``: a share of them is, and no student tells of novelty.
``learning again``: the alarm that needs no label, then ``alarm_labels`` of them, and ``--seconds`` of an update at
``--per-second`` inputs. All go through their canary, every input being a request: a return through the last step, what
was learnt through all of them (``files``'s policy). The steps' own counts are taken; guards object to none of them.
"""

from __future__ import annotations

import argparse
from statistics import median

import numpy as np

from components.contracts.spec import load_spec
from drift.novelty import Nearness, conformal_p
from drift.novelty_detector import NoveltyDetector
from drift.returning import ReturnDetector
from infra.workloads import BUILT_IN

DIMENSIONS, CLASSES, ROWS, BEFORE = 16, 6, 300, 1_000


class Regime:
    def __init__(self, chance: np.random.Generator) -> None:
        self.means = chance.normal(0.0, 2.0, (CLASSES, DIMENSIONS))

    def draw(self, chance: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        classes = chance.integers(0, CLASSES, n)
        return self.means[classes] + chance.normal(size=(n, DIMENSIONS)), classes


class Fitted:
    def __init__(self, regime: Regime, chance: np.random.Generator) -> None:
        x, classes = regime.draw(chance, ROWS)
        self.means = np.stack([x[classes == k].mean(axis=0) for k in range(CLASSES)])
        near = Nearness.fit(x, classes)
        if near is None:
            raise ValueError("the rows do not differ")
        self.near, self.known = near, np.sort(near.distances(regime.draw(chance, ROWS)[0]))

    def answers(self, x: np.ndarray) -> np.ndarray:
        return ((x[:, np.newaxis] - self.means) ** 2).sum(axis=2).argmin(axis=1)

    def novelty(self, x: np.ndarray) -> np.ndarray:
        return conformal_p(self.near.distances(x), [self.known])


def main() -> None:
    parser = argparse.ArgumentParser(prog="returns")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--per-second", type=float, default=35.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    given, _ = parser.parse_known_args()
    spec = load_spec(BUILT_IN / "files.yaml")
    steps = [step.min_requests for step in spec.rollout.steps]
    print(f"median of {given.seeds} seeds [least, most]; an update takes {given.seconds:g} s at {given.per_second:g}/s")
    print(f"{'labelled':>9}  {'how':16} {'inputs to the order':>24} {'inputs to serving':>20}  sooner")
    for share in (1.0, 0.2, 0.05):
        found = [one(seed, share, given.seconds * given.per_second, spec) for seed in range(given.seeds)]
        again = median(row["learning again"] for row in found)
        for how in ("by novelty", "by labels", "learning again"):
            took = [row[how] for row in found]
            canary = sum(steps) if how == "learning again" else steps[-1]
            ordered, served = median(took), median(took) + canary
            print(
                f"{share:9.0%}  {how:16} {ordered:10.0f} [{min(took):4.0f}, {max(took):5.0f}] {served:20.0f}  "
                f"{again / ordered:.1f} times to the order, {(again + sum(steps)) / served:.1f} to serving",
                flush=True,
            )
    wrong = sum(steady(seed, spec) for seed in range(given.seeds))
    print(f"without a change: {wrong} orders in {given.seeds * 10_000} inputs, all labelled")


def detector(spec, *, versions=("A",)):  # type: ignore[no-untyped-def]
    monitor = spec.monitor
    return ReturnDetector(
        versions, run_length=monitor.window / monitor.alpha, min_effect=monitor.min_effect, calibrated=ROWS
    )


def one(seed: int, share: float, update: float, spec) -> dict[str, float]:  # type: ignore[no-untyped-def]
    chance = np.random.default_rng(seed)
    a, b = Regime(chance), Regime(chance)
    old, champion = Fitted(a, chance), Fitted(b, chance)
    by_novelty, by_labels = detector(spec), detector(spec)
    alarm = NoveltyDetector.calibrated(
        ROWS, run_length=spec.monitor.window * 2.0 / spec.monitor.alpha, min_effect=spec.monitor.min_effect
    )
    took: dict[str, float] = {}
    labels, alarmed = 0, False
    for regime, n in ((b, BEFORE), (a, 50_000)):
        x, classes = regime.draw(chance, n)
        known, novel, said, truth = old.novelty(x), champion.novelty(x), old.answers(x), champion.answers(x)
        for i in range(n):
            after = regime is a
            by_novelty.look({"A": float(known[i])}, float(novel[i]))
            alarmed |= alarm.observe({"novelty": [float(novel[i])]}) is not None and after
            if chance.random() < share:
                labels += alarmed
                by_labels.label({"A": bool(said[i] == classes[i])}, bool(truth[i] == classes[i]))
            if after:
                for how, met in (
                    ("by novelty", by_novelty.found() is not None),
                    ("by labels", by_labels.found() is not None),
                    ("learning again", labels >= spec.trigger.alarm_labels),
                ):
                    if met and how not in took:
                        took[how] = i + 1 + (update if how == "learning again" else 0.0)
                if len(took) == 3:
                    return took
    raise ValueError(f"after 50,000 inputs only {sorted(took)} have answered")


def steady(seed: int, spec) -> int:  # type: ignore[no-untyped-def]
    chance = np.random.default_rng(seed)
    a, b = Regime(chance), Regime(chance)
    old, champion, watch, orders = Fitted(a, chance), Fitted(b, chance), detector(spec), 0
    x, classes = b.draw(chance, 10_000)
    known, novel, said, truth = old.novelty(x), champion.novelty(x), old.answers(x), champion.answers(x)
    for i in range(len(x)):
        watch.look({"A": float(known[i])}, float(novel[i]))
        watch.label({"A": bool(said[i] == classes[i])}, bool(truth[i] == classes[i]))
        if watch.found() is not None:
            orders += 1
            watch.anew()
    return orders


if __name__ == "__main__":
    main()
