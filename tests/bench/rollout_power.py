"""Candidate requests until a bad candidate is taken back, beside three other ways to look.

Every way looks after each request of the candidate at errors, latency and disagreement with the teacher; ours has four
more guards in the same budget. Ours holds ``alpha`` by its own proof, for any horizon and any rates. The others hold
none under such peeking, so their limits are calibrated on simulated rollouts of :data:`HORIZON` candidate requests
without a difference, at the very rates of the cases, which nobody has in production: once to the false-alarm rate that
ours has on the same rollouts, and once to ``alpha``.

- *threshold*: the mean of the candidate's last 100 (or 1,000) requests above a limit, as an analysis of Argo Rollouts;
- *Mann-Whitney*: over means of 20 requests of both arms so far, as Kayenta's judge;
- *z*: a fixed-horizon two-sample z test of all so far, with a Bonferroni share for each metric.

In *shadow* both students answer the same inputs, unserved by the candidate. In the *canary* the candidate serves 25 %
of the requests, and both answer every input; only the requests that it served are counted, of which each stands for
four pairs. With *one each* (``pairs: 0``) nobody answers besides. The candidate shares most of the champion's mistakes.
The others look at what was served and do not pair, so their limits are calibrated on arms whose mistakes are
independent.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from tests.bench._rollouts import POLICY, Array, Case, Traffic, Twin, aa, make

ROLLOUTS = 100
CALIBRATION = 2_000
CHUNK = 200
HORIZON = 6_000
WEIGHT = 0.25
Arms = Literal["shadow", "canary", "one each"]
ARMS: tuple[Arms, ...] = get_args(Arms)
METRICS = ("errors", "latencies", "wrong")
GOAL = 0.5

BOTH = (
    *(Case(name=f"accuracy -{p} points", more_wrong=p / 100) for p in (1, 2, 5, 10)),
    Case(name="permuted classes", wrong=0.10, more_wrong=0.85, shared=0.0),
    Case(name="one class of ten collapsed", more_wrong=1.0, only=3),
    Case(name="-40 points in a slice of 10 %", more_wrong=0.45, only=3),
    Case(name="accuracy -10 points after 1,000", more_wrong=0.10, onset=1_000),
)
CANARY = (
    *(Case(name=f"errors +{p:g} points", more_errors=p / 100) for p in (0.5, 1, 2, 5)),
    *(Case(name=f"latency x{f:g}", slowdown=f) for f in (1.2, 1.5, 3.0)),
    Case(name="errors +5 points after 1,000", more_errors=0.05, onset=1_000),
)

Series = tuple[Array, Array, Array, Array]
"""After each request of the candidate: its outcome, and of the champion how many, their sum, and their squares' sum."""


def weights(case: Case, arms: Arms) -> Array:
    """One request each, so many that the candidate is asked often enough."""
    asked = HORIZON + case.onset
    return np.zeros(asked) if arms == "shadow" else np.full(int(asked / WEIGHT * 1.03), WEIGHT)


def series(traffic: Traffic, r: int, metric: str) -> Series:
    """One rollout's outcomes of one metric, 1 (or more ms) at worst."""
    champion, candidate = (np.asarray(x[r], dtype=np.float64) for x in getattr(traffic, metric))
    paired, theirs = traffic.weights[0] == 0.0, traffic.theirs[r]
    at = np.arange(len(theirs)) if paired else np.flatnonzero(theirs)
    own = champion if paired else np.where(theirs, 0.0, champion)
    count = np.cumsum(np.ones_like(own) if paired else ~theirs)
    return candidate[at], count[at].astype(np.float64), np.cumsum(own)[at], np.cumsum(own * own)[at]


def threshold(width: int) -> Callable[[Series], Array]:
    """The mean of the candidate's last ``width`` requests; nothing before there are so many."""

    def look(outcomes: Series) -> Array:
        x = outcomes[0]
        total = np.concatenate([[0.0], np.cumsum(x)])
        means = np.full(len(x), -np.inf)
        means[width - 1 :] = (total[width:] - total[:-width]) / width
        return means

    return look


def z_test(outcomes: Series) -> Array:
    """Welch's statistic of all so far, from the candidate's 30th request on."""
    x, n, total, squares = outcomes
    m = np.arange(1, len(x) + 1)
    mean, theirs = np.cumsum(x) / m, total / np.maximum(n, 1)
    spread = (np.cumsum(x * x) / m - mean**2) / m + (squares / np.maximum(n, 1) - theirs**2) / np.maximum(n, 1)
    z = np.divide(mean - theirs, np.sqrt(np.maximum(spread, 0.0)), out=np.zeros_like(mean), where=spread > 1e-12)
    z[:29] = -np.inf
    return z


def mann_whitney(outcomes: Series, width: int = 20) -> Array:
    """The standardised U of the arms' means of ``width`` candidate requests, from the fourth on."""
    x, n, total, _ = outcomes
    ends = np.arange(width - 1, len(x), width)
    own = np.add.reduceat(x, np.arange(0, len(x), width))[: len(ends)] / width
    count, sums = np.diff(n[ends], prepend=0.0), np.diff(total[ends], prepend=0.0)
    theirs = sums / np.maximum(count, 1.0)
    greater = (own[:, None] > theirs[None, :]) + 0.5 * (own[:, None] == theirs[None, :])
    u = np.cumsum(np.cumsum(greater, axis=0), axis=1).diagonal()
    k = np.arange(1, len(ends) + 1, dtype=np.float64)
    looks = np.full(len(x), -np.inf)
    looks[ends[3:]] = ((u - k * k / 2) / np.sqrt(k * k * (2 * k + 1) / 12))[3:]
    return looks


OTHERS: dict[str, Callable[[Series], Array]] = {
    "threshold 100": threshold(100),
    "threshold 1000": threshold(1_000),
    "Mann-Whitney": mann_whitney,
    "z": z_test,
}


Limits = dict[tuple[str, str], float]


def calibrate(arms: Arms, rng: np.random.Generator) -> tuple[float, Limits, Limits]:
    """Our false-alarm rate, and the others' limits at that rate and at ``alpha``, shared evenly over the metrics."""
    case = replace(aa(BOTH[0]), shared=0.0)
    most: dict[tuple[str, str], list[float]] = {(o, m): [] for o in OTHERS for m in METRICS}
    false = 0
    for _ in range(CALIBRATION // CHUNK):
        traffic = make(case, rng, CHUNK, weights(case, arms))
        false += int((Twin(CHUNK, arms != "one each").run(traffic) > 0).sum())
        for r in range(CHUNK):
            for metric in METRICS:
                x, n, total, squares = (s[:HORIZON] for s in series(traffic, r, metric))
                for name, look in OTHERS.items():
                    most[name, metric].append(float(look((x, n, total, squares)).max()))
    own = false / CALIBRATION

    def limits(rate: float) -> Limits:
        return {key: float(np.quantile(found, 1.0 - rate / len(METRICS))) for key, found in most.items()}

    return own, limits(own), limits(POLICY.alpha)


def measured(
    case: Case, arms: Arms, rates: tuple[Limits, Limits], rng: np.random.Generator
) -> tuple[Array, list[dict[str, Array]]]:
    """The candidate's requests until each rollout was taken back, from the onset; infinite for never.

    Ours, and for each calibration the others by name.
    """
    traffic = make(case, rng, ROLLOUTS, weights(case, arms))
    at = Twin(ROLLOUTS, arms != "one each").run(traffic)
    ours = np.where(at > 0, traffic.asked()[np.arange(ROLLOUTS), at - 1], np.inf)
    found = [{name: np.full(ROLLOUTS, np.inf) for name in OTHERS} for _ in rates]
    for r in range(ROLLOUTS):
        for metric in METRICS:
            outcomes = series(traffic, r, metric)
            for name, look in OTHERS.items():
                looks = look(outcomes)
                for limits, own in zip(rates, found, strict=True):
                    over = np.flatnonzero(looks > limits[name, metric])
                    if len(over):
                        own[name][r] = min(own[name][r], over[0] + 1)
    return _from(ours, case.onset), [{n: _from(k, case.onset) for n, k in f.items()} for f in found]


def _from(requests: Array, onset: int) -> Array:
    """Requests after the onset; what was taken back before it is a false alarm and left out."""
    limited = np.where(requests > onset + HORIZON, np.inf, requests)
    return limited[limited > onset] - onset


def _quantiles(requests: Array) -> tuple[float, float]:
    ordered = np.sort(requests)
    return float(ordered[(len(ordered) - 1) // 2]), float(ordered[math.ceil(0.9 * len(ordered)) - 1])


def _told(requests: Array) -> str:
    return " / ".join(f">{HORIZON}" if math.isinf(q) else f"{q:.0f}" for q in _quantiles(requests))


def main() -> None:
    began = time.perf_counter()
    calibrated = {arms: calibrate(arms, np.random.default_rng(1)) for arms in ARMS}
    told = ", ".join(f"{calibrated[arms][0]:.2%} {arms}" for arms in ARMS)
    print(
        f"calibrated in {time.perf_counter() - began:.0f} s; our false alarms in {HORIZON} candidate requests: {told}"
    )
    print(
        "candidate requests until rollback, median / 90th percentile; the others at the same false-alarm rate as ours;"
    )
    print(f"ratio: our median to the best of theirs, at the same rate and with theirs at {POLICY.alpha:.0%}")
    print(f"{'case':32}{'arms':9}" + "".join(f"{name:>16}" for name in ("ours", *OTHERS)) + f"{'same':>7}{'5 %':>6}")
    ratios: dict[Arms, list[tuple[float, float]]] = {arms: [] for arms in ARMS}
    rows = [(case, arms) for arms in ARMS for case in (BOTH if arms == "shadow" else (*BOTH, *CANARY))]
    for seed, (case, arms) in enumerate(rows):
        ours, found = measured(case, arms, calibrated[arms][1:], np.random.default_rng(seed))
        best = [min(_quantiles(k)[0] for k in f.values()) for f in found]
        ratio = [min(_quantiles(ours)[0], HORIZON) / min(b, HORIZON) for b in best]
        ratios[arms].append((ratio[0], ratio[1]))
        cells = "".join(f"{_told(k):>16}" for k in (ours, *found[0].values()))
        reached = "reached" if ratio[0] <= GOAL else "NOT reached"
        print(f"{case.name:32}{arms:9}{cells}{ratio[0]:7.2f}{ratio[1]:6.2f}  {reached}", flush=True)
    shadow, canary, one_each = ratios.values()
    for arms, of in (*ratios.items(), ("shadow and canary", [*shadow, *canary]),
                     ("everything", [*shadow, *canary, *one_each])):  # fmt: skip
        for which, name in enumerate(("the same false-alarm rate", f"theirs at {POLICY.alpha:.0%}")):
            own = [r[which] for r in of]
            median, hit = float(np.median(own)), sum(r <= GOAL for r in own)
            verdict = "reached" if median <= GOAL else "NOT reached"
            print(f"{arms}, {name}: ratio {median:.2f} in the median over the cases (goal {GOAL}: {verdict}), "
                  f"{hit} of {len(own)} reach it")  # fmt: skip
    print(f"{time.perf_counter() - began:.0f} s in all")
