"""False alarms where nothing changed: the joint verdict's, beside Evidently's default tests on the same windows.

``--repetitions`` windows per row, of ``--sizes`` rows, against references of REFERENCE rows; each repetition draws a
new reference and a new window. Half of a thousand repetitions of n = 5,000 are spent on 30 columns. A size of 20,000
or more is judged in closed form.
"""

from __future__ import annotations

import time

import numpy as np

from drift.monitor import Reference
from tests.bench._drift import NULL, evidently, options, rate

ALPHA, RESAMPLES, REFERENCE = 0.05, 99, 1_500
"""A reference of more than 1,000 rows, so that Evidently uses its distances, as it does on real ones."""

LIMIT_SECONDS = 20.0
"""Longest time for one row of the table by default; the number of repetitions that it allowed is printed."""


def main() -> None:
    given = options("drift_null", 200, "50,100,200,500,1000,5000,20000")
    limit = LIMIT_SECONDS if given.repetitions <= 200 else float("inf")
    print(f"alpha {ALPHA}, reference {REFERENCE} rows, no minimum effect; rate [95 % interval] (repetitions)")
    print(f"{'sample':22} {'n':>5}  {'joint verdict':28}  {'Evidently, any column':28}  Evidently, share >= 0.5")
    for name, draw in ((n, d) for n, d in NULL.items() if given.only in n):
        for size in (int(s) for s in given.sizes.split(",")):
            print(
                f"{name:22} {size:5d}  " + row(draw, size, given.repetitions, given.evidently_repetitions, limit),
                flush=True,
            )


def row(draw, size, repetitions, theirs, limit) -> str:  # type: ignore[no-untyped-def]
    chance = np.random.default_rng([size, 6])
    ours = alarms = shares = done = seen = 0
    started = time.process_time()
    for i in range(repetitions):
        if i >= 20 and time.process_time() - started > limit:
            break
        before, now = draw(chance, REFERENCE), draw(chance, size)
        reference = Reference.fit(
            before, window=size, alpha=ALPHA, min_effect=0.0, resamples=RESAMPLES, seed=0, block=1
        )
        ours += reference.assess(now).outcome == "drift"
        done += 1
        if theirs is None or i < theirs:
            drifted = [d for _, d, _ in evidently(before, now)]
            alarms += any(drifted)
            shares += np.mean(drifted) >= 0.5
            seen += 1
    return f"{rate(ours, done)} ({done:4d})  {rate(alarms, seen)} ({seen:4d})  {rate(int(shares), seen)}"


if __name__ == "__main__":
    main()
