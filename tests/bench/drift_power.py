"""How often a change is seen, at an equal rate of false alarms.

Evidently's default tests are recalibrated to the same alpha: their scores of unchanged windows give the threshold (over
several columns, of the most extreme column). That threshold knows what the gate cannot know: how windows of just this
stream come out. Ours decide as in production, without a minimum effect, from the reference and the window alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from drift.monitor import Reference
from tests.bench._drift import Array, Sample, evidently, mix, one, options, rate

ALPHA, RESAMPLES = 0.05, 399


def _pair(correlation: float) -> Sample:
    def draw(chance: np.random.Generator, n: int) -> dict[str, Array]:
        x = chance.normal(size=n)
        y = correlation * x + np.sqrt(1 - correlation**2) * chance.normal(size=n)
        return {"x": x, "y": y}

    return draw


def _thirty(shift: float) -> Sample:
    def draw(chance: np.random.Generator, n: int) -> dict[str, Array]:
        return {f"n{i}": chance.normal(shift if i == 7 else 0.0, 1.0, n) for i in range(30)}

    return draw


def _with_new(share: float) -> Callable[[np.random.Generator, int], Array]:
    def draw(chance: np.random.Generator, n: int) -> Array:
        return np.where(chance.random(n) < share, "new", mix(10)(chance, n))

    return draw


def _tail(share: float) -> Callable[[np.random.Generator, int], Array]:
    def draw(chance: np.random.Generator, n: int) -> Array:
        return np.where(chance.random(n) < share, chance.normal(4.0, 1.0, n), chance.normal(size=n))

    return draw


def _few(p: float) -> Callable[[np.random.Generator, int], Array]:
    weights = np.array([0.4 - p, 0.3, 0.2 + p, 0.1])
    return lambda chance, n: np.array(list("abcd"))[chance.choice(4, n, p=weights)]


CHANGES: dict[str, Callable[[float], tuple[Sample, Sample]]] = {
    "mean shift, normal": lambda k: (one(lambda c, n: c.normal(size=n)), one(lambda c, n: c.normal(3.0 * k, 1.0, n))),
    "mean shift, t with 2 df": lambda k: (
        one(lambda c, n: c.standard_t(2, n)), one(lambda c, n: c.standard_t(2, n) + 4.0 * k)
    ),
    "scale": lambda k: (one(lambda c, n: c.normal(size=n)), one(lambda c, n: c.normal(0.0, 1.0 + 2.5 * k, n))),
    "tail": lambda k: (one(_tail(0.0)), one(_tail(0.5 * k))),
    "category mix": lambda k: (one(_few(0.0)), one(_few(1.2 * k))),
    "one new category": lambda k: (one(_with_new(0.0)), one(_with_new(0.3 * k))),
    "correlation only": lambda k: (_pair(0.0), _pair(min(0.9, 5.0 * k))),
    "1 of 30 columns": lambda k: (_thirty(0.0), _thirty(5.0 * k)),
}  # fmt: skip
"""Changes by strength k, which falls with the root of the window's rows so that power stays between 0 and 1."""


def main() -> None:
    given = options("drift_power", 200, "100,1000")
    print(f"alpha {ALPHA}, {RESAMPLES} resamples; power over {given.repetitions} pairs of windows (a quarter, at least "
          f"50, of 30 columns) with 95 % intervals; Evidently recalibrated on as many")  # fmt: skip
    for size in (int(s) for s in given.sizes.split(",")):
        for reference in (1_000, 1_200):
            print(f"-- windows of {size}, reference of {reference} rows (Evidently uses "
                  f"{'tests' if reference <= 1000 else 'distances'})")  # fmt: skip
            for name, change in CHANGES.items():
                if given.only in name:
                    told = row(change(1.0 / np.sqrt(size)), size, reference, given.repetitions)
                    print(f"{name:26} {told}", flush=True)


def row(change: tuple[Sample, Sample], size: int, rows: int, repetitions: int) -> str:
    same, other = change
    chance = np.random.default_rng([size, rows])
    if len(same(chance, 2)) > 2:
        repetitions = max(50, repetitions // 4)
    ours, theirs, unchanged = [], [], []
    for _ in range(repetitions):
        before, now = same(chance, rows), other(chance, size)
        reference = Reference.fit(
            before, window=size, alpha=ALPHA, min_effect=0.0, resamples=RESAMPLES, seed=0, block=1
        )
        ours.append(reference.assess(now).outcome == "drift")
        theirs.append(_worst(before, now))
        unchanged.append(_worst(before, same(chance, size)))
    hits = np.array(theirs) > np.quantile(unchanged, 1.0 - ALPHA)
    low, high = difference(np.array(ours), np.array(theirs), np.array(unchanged))
    said = "worse" if high < 0.0 else "better" if low > 0.0 else "equal"
    return (
        f"ours {rate(sum(ours), repetitions)}   Evidently {rate(int(hits.sum()), repetitions)}   "
        f"difference {np.mean(ours) - hits.mean():+.3f} [{low:+.3f}, {high:+.3f}] {said} ({repetitions})"
    )


def difference(ours: Array, theirs: Array, unchanged: Array) -> tuple[float, float]:
    """95 % of the bootstrap, paired, which also draws anew the windows that Evidently's threshold is taken from."""
    chance, found = np.random.default_rng(7), []
    for _ in range(2_000):
        pairs, nulls = chance.integers(0, len(ours), (2, len(ours)))
        limit = np.quantile(unchanged[nulls], 1.0 - ALPHA)
        found.append(ours[pairs].mean() - (theirs[pairs] > limit).mean())
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def _worst(before: dict[str, Array], now: dict[str, Array]) -> float:
    """The most extreme column's score, larger meaning more change: log p-values are turned round."""
    return max(score if large else -np.log(max(score, 1e-300)) for score, _, large in evidently(before, now))


if __name__ == "__main__":
    main()
