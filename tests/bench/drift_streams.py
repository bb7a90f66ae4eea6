"""Endless streams: false alarms in stationary rows, and the delay to a change, at an equal rate of false alarms.

Each rival gets the least strict setting of its grid that stays quiet on the stationary streams. Ours is shown twice:
as a workload has it, with a run length of ROWS * 100, a least effect and no tuning; and with the least run length of a
grid that stays quiet, and no least effect, as the rivals have none. Evidently's test looks at the last 200 rows every
50, with its p-value's limit tuned alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from drift.change_point import ChangeDetector

LOOK, REFERENCE, BEFORE, AFTER = 50, 2_000, 1_000, 4_000
Stream = npt.NDArray[np.float64]
Alarm = Callable[[Stream, Stream], int | None]
"""From a reference and a stream to the row of the first alarm, counted from 1."""


def ours(run_length: float, min_effect: float = 0.05) -> Alarm:
    def first(reference: Stream, stream: Stream) -> int | None:
        detector = ChangeDetector.fit({"x": reference}, run_length=run_length, min_effect=min_effect)
        for start in range(0, len(stream), LOOK):
            if detector.observe({"x": stream[start : start + LOOK]}):
                return start + LOOK
        return None

    return first


def rival(make: Callable[[], Any]) -> Alarm:
    def first(reference: Stream, stream: Stream) -> int | None:
        detector = make()
        for x in reference[-500:]:
            detector.update(float(x))
        for row, x in enumerate(stream, start=1):
            detector.update(float(x))
            if detector.drift_detected:
                return row
        return None

    return first


def evidently(limit: float) -> Alarm:
    from scipy.stats import ks_2samp  # what Evidently calls for up to 1,000 reference rows

    def first(reference: Stream, stream: Stream) -> int | None:
        for end in range(200, len(stream) + 1, LOOK):
            if ks_2samp(reference[:1_000], stream[end - 200 : end]).pvalue < limit:
                return end
        return None

    return first


def grids(rows: int) -> dict[str, Sequence[tuple[str, Alarm]]]:
    from river.drift import ADWIN, KSWIN, PageHinkley

    return {
        "ours, e-detector": [(f"run length {rows * 100:.0e}", ours(rows * 100.0))],
        "ours, tuned alike": [(f"run length {r:.0e}", ours(r, 0.0)) for r in (1e3, 1e4, 1e5, 1e6)],
        "river ADWIN": [(f"delta {d:g}", rival(lambda d=d: ADWIN(delta=d))) for d in (2e-3, 1e-4, 1e-6, 1e-9)],
        "river Page-Hinkley": [
            (f"threshold {t}", rival(lambda t=t: PageHinkley(delta=0.1, threshold=t))) for t in (20, 35, 50, 80, 200)
        ],
        "river KSWIN": [
            (f"alpha {a:g}", rival(lambda a=a: KSWIN(alpha=a, window_size=300, stat_size=100, seed=0)))
            for a in (5e-3, 1e-5, 1e-7, 1e-9)
        ],
        "Evidently (KS) per window": [(f"p < {p:g}", evidently(p)) for p in (5e-2, 1e-4, 1e-5, 1e-6, 1e-8)],
    }


CHANGES: dict[str, Callable[[np.random.Generator, int], Stream]] = {
    "shift 0.5": lambda c, n: c.normal(0.5, 1.0, n),
    "shift 1": lambda c, n: c.normal(1.0, 1.0, n),
    "shift 2": lambda c, n: c.normal(2.0, 1.0, n),
    "scale 2": lambda c, n: c.normal(0.0, 2.0, n),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.drift_streams")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--streams", type=int, default=5, help="stationary streams")
    parser.add_argument("--repetitions", type=int, default=10, help="streams with a change")
    parser.add_argument("--rival-rows", type=int, default=20_000, help="rows of a rival's stationary stream")
    given, _ = parser.parse_known_args()
    print(f"{given.streams} stationary streams; delay in rows, median over {given.repetitions} (share detected)")
    for name, grid in grids(given.rows).items():
        rows = given.rows if name == "ours, e-detector" else given.rival_rows
        started = time.process_time()
        setting, alarm, tried = tuned(grid, rows, given.streams)
        spent = time.process_time() - started
        delays = "  ".join(f"{c}: {delay(alarm, draw, given.repetitions)}" for c, draw in CHANGES.items())
        print(f"{name:26} {setting:18} stationary {rows:,} rows: {tried} ({spent:.0f} s)\n    {delays}", flush=True)


def tuned(grid: Sequence[tuple[str, Alarm]], rows: int, streams: int) -> tuple[str, Alarm, str]:
    """The first setting without a false alarm, or the last; and how many of the streams alarmed with each tried."""
    tried = []
    for setting, alarm in grid:
        chance = np.random.default_rng(5)
        false = sum(alarm(chance.normal(size=REFERENCE), chance.normal(size=rows)) is not None for _ in range(streams))
        tried.append(f"{false}/{streams} at {setting}")
        if not false:
            break
    return setting, alarm, ", ".join(tried)


def delay(alarm: Alarm, draw: Callable[[np.random.Generator, int], Stream], repetitions: int) -> str:
    found, early = [], 0
    for seed in range(repetitions):
        chance = np.random.default_rng([seed, 9])
        reference, before = chance.normal(size=REFERENCE), chance.normal(size=BEFORE)
        at = alarm(reference, np.append(before, draw(chance, AFTER)))
        early += at is not None and at <= BEFORE
        if at is not None and at > BEFORE:
            found.append(at - BEFORE)
    told = f"{np.median(found):.0f}" if found else "-"
    return f"{told} ({len(found) / repetitions:.0%}{f', {early} early' if early else ''})"


if __name__ == "__main__":
    main()
