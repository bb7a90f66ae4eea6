"""What a look costs: 100,000 x 20 numbers against Evidently's preset, and 1,000,000 x 100 in one pass.

Processor seconds of one thread. The reference is fitted once and then judges many windows, so both times are printed.
Memory is the largest that Python allocated while batches went through, beyond the one batch.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa

from drift.monitor import Reference
from drift.sketch import Sketch

ROWS, COLUMNS = 100_000, 20
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
    started = time.process_time()
    reference = Reference.fit(
        {n: before[n].to_numpy() for n in before}, window=ROWS, alpha=0.01, min_effect=0.1, resamples=400, seed=0
    )
    reference.assess({n: before[n].to_numpy() for n in before})
    fitted = time.process_time() - started
    looks = []
    for _ in range(5):
        started = time.process_time()
        verdict = reference.assess({n: now[n].to_numpy() for n in now})
        looks.append(time.process_time() - started)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        definition = DataDefinition(numerical_columns=list(before))
        sides = [Dataset.from_pandas(frame, data_definition=definition) for frame in (now, before)]
        started = time.process_time()
        Report([DataDriftPreset()]).run(current_data=sides[0], reference_data=sides[1]).json()
        theirs = time.process_time() - started
    look = float(np.median(looks))
    print(f"{ROWS:,} x {COLUMNS}: verdict {verdict.outcome} by {verdict.method}")
    print(f"  first look with the fit  {fitted:8.3f} s   {theirs / fitted:6.1f} x faster than Evidently")
    print(f"  further looks            {look:8.3f} s   {theirs / look:6.1f} x faster than Evidently")
    print(f"  Evidently's preset       {theirs:8.3f} s")


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
