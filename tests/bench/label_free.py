"""Accuracy without labels: how far each estimate is from the truth, window by window, beside plain mean confidence.

A student is taught anew after every window on three quarters of all so far; the other quarter, with its truth, is what
an estimate of the next window is made from. Where a phase begins, the traffic has changed.
"""

import time

import numpy as np

from drift.label_free import METHODS, Scores, foretell, mean_confidence
from tests.bench._pools import answers, pools, train

WINDOW = 150
HELD = 0.25


def scores(pool, shares, *, truth):
    labels = shares.argmax(1)
    return Scores.of(
        shares.max(1).clip(0.0, 1.0), labels == pool.teacher, labels == pool.truth if truth else ()
    )  # fmt: skip


def run(pool):
    chance = np.random.default_rng(0)
    held = chance.random(len(pool)) < HELD
    names = ("mean confidence", *METHODS)
    errors, changed, inside = {n: [] for n in names}, [], {m: 0 for m in METHODS}
    for first in range(2 * WINDOW, len(pool) - WINDOW + 1, WINDOW):
        before, now = np.arange(first), np.arange(first, first + WINDOW)
        net = train(pool.take(before[~held[before]]), 0)
        known, window = pool.take(before[held[before]]), pool.take(now)
        shares = answers(net, window)
        source, target = scores(known, answers(net, known), truth=True), scores(window, shares, truth=False)
        truth = float((shares.argmax(1) == window.truth).mean())
        found = foretell(source, target, seed=first)
        errors["mean confidence"].append(abs(mean_confidence(target) - truth))
        for method in METHODS:
            errors[method].append(abs(found[method].value - truth))
            inside[method] += found[method].lower <= truth <= found[method].upper
        changed.append(len(set(pool.phase[first - WINDOW : first + WINDOW].tolist())) > 1)
    at = np.array(changed)
    print(f"\n{pool.name}: {len(at)} windows of {WINDOW}, {at.sum()} of them at a change of phase")
    heads = ("mean error", "at changes", "elsewhere", "largest", "interval holds")
    print("{:16} {:>11} {:>11} {:>10} {:>8} {:>15}".format("estimate", *heads))
    for name in names:
        e = np.array(errors[name])
        holds = f"{inside[name] / len(e):15.0%}" if name in inside else f"{'':15}"
        parts = [e[m].mean() if m.any() else float("nan") for m in (at, ~at)]
        print(f"{name:16} {e.mean():11.4f} {parts[0]:11.4f} {parts[1]:10.4f} {e.max():8.4f} {holds}", flush=True)


def main() -> None:
    started = time.perf_counter()
    for pool in pools(names=("files", "mail")):
        run(pool)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
