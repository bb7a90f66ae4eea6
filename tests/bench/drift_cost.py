"""What a look costs: 100,000 x 20 numbers against Evidently's preset, and 1,000,000 x 100 in one pass.

The reference is fitted once and then judges many windows, so both times are printed, the first look with the fit of
its reference. Both sides of each ratio come from one run; processor time is the one to trust on a machine at work.
Memory is the largest that Python allocated while batches went through, beyond the one batch.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from drift.columns import Column
from drift.monitor import Reference
from drift.sketch import Sketch

ROWS, COLUMNS = 100_000, 20
REPETITIONS = 5
BATCH, MANY = 10_000, 100


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.drift_cost")
    parser.add_argument("--rows", type=int, default=1_000_000)
    given, _ = parser.parse_known_args()
    against_evidently()
    for rows in (given.rows // 10, given.rows):
        one_pass(rows)


def against_evidently() -> None:
    chance = np.random.default_rng(0)
    before, now = (pd.DataFrame(chance.normal(size=(ROWS, COLUMNS))).rename(columns=str) for _ in range(2))
    sides = [{n: frame[n].to_numpy() for n in frame} for frame in (before, now)]
    first = [timed(lambda: fitted(sides[0]).assess(sides[1])) for _ in range(REPETITIONS)]
    reference = fitted(sides[0])
    verdict = reference.assess(sides[1])
    further = [timed(lambda: reference.assess(sides[1])) for _ in range(REPETITIONS)]
    theirs = [timed(evidently_s(before, now)) for _ in range(2)]
    print(
        f"{ROWS:,} x {COLUMNS}: verdict {verdict.outcome} by {verdict.method}; seconds of processor / by the clock, "
        f"the first and the median of {REPETITIONS}, and how much faster than the quicker of Evidently's two looks"
    )
    quickest = np.min(theirs, axis=0)
    for name, spent in (("first look with the fit", first), ("further looks", further), ("Evidently's preset", theirs)):
        middle = quickest if spent is theirs else np.median(spent, axis=0)
        print(f"  {name:24} {spent[0][0]:7.3f} / {spent[0][1]:7.3f}   {middle[0]:7.3f} / {middle[1]:7.3f}   "
              f"{quickest[0] / middle[0]:6.1f} x / {quickest[1] / middle[1]:6.1f} x")  # fmt: skip


def fitted(columns: Mapping[str, Column]) -> Reference:
    return Reference.fit(columns, window=ROWS, alpha=0.01, min_effect=0.1, resamples=400, seed=0)


def evidently_s(before: pd.DataFrame, now: pd.DataFrame) -> Callable[[], object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=list(before))
    sides = [Dataset.from_pandas(frame, data_definition=definition) for frame in (now, before)]

    def look() -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return str(Report([DataDriftPreset()]).run(current_data=sides[0], reference_data=sides[1]).json())

    return look


def timed(act: Callable[[], object]) -> tuple[float, float]:
    processor, clock = time.process_time(), time.perf_counter()
    act()
    return time.process_time() - processor, time.perf_counter() - clock


def one_pass(rows: int) -> None:
    chance = np.random.default_rng(1)
    names = [f"n{i}" for i in range(MANY)]
    batch = pa.record_batch({n: chance.normal(size=BATCH) for n in names})
    reference = Reference.fit(
        {n: batch[n] for n in names}, window=BATCH, alpha=0.01, min_effect=0.1, resamples=400, seed=0, block=1
    )
    grid = reference.sketch.grid
    tracemalloc.start()
    window, spent = Sketch(grid=grid), 0.0
    for _ in range(rows // BATCH):
        batch = pa.record_batch({n: chance.normal(size=BATCH) for n in names})
        started = time.process_time()
        window.add(batch)
        spent += time.process_time() - started
    verdict = reference.assess_sketch(window)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = sum(c.nbytes for c in window.counts.values()) / 2**10
    print(f"{rows:,} x {MANY} in batches of {BATCH:,}: {spent:.1f} s, peak {peak / 2**20:.1f} MiB of Python's memory, "
          f"sketch {size:.0f} KiB, verdict {verdict.outcome}")  # fmt: skip


if __name__ == "__main__":
    main()
