"""What the drift benchmarks share: samples by name, Evidently's tests called directly, and intervals."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Sample = Callable[[np.random.Generator, int], dict[str, Array]]


def options(name: str, repetitions: int, sizes: str) -> argparse.Namespace:
    """``--repetitions`` and ``--sizes``, from the environment-free rest of ``python -m tests.bench NAME -- ...``."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.bench.{name}")
    parser.add_argument("--repetitions", type=int, default=repetitions)
    parser.add_argument("--evidently-repetitions", type=int, default=None)
    parser.add_argument("--sizes", default=sizes)
    parser.add_argument("--only", default="", help="a part of the names of the rows to print")
    known, _ = parser.parse_known_args()
    return known


def one(draw: Callable[[np.random.Generator, int], Array]) -> Sample:
    return lambda chance, n: {"x": draw(chance, n)}


def mix(k: int, uneven: float = 0.0) -> Callable[[np.random.Generator, int], Array]:
    weights = 1.0 / np.arange(1, k + 1) ** uneven
    weights /= weights.sum()
    names = np.array([f"c{i}" for i in range(k)])
    return lambda chance, n: names[chance.choice(k, n, p=weights)]


def with_missing(chance: np.random.Generator, n: int) -> Array:
    values = chance.normal(size=n)
    values[chance.random(n) < 0.2] = np.nan
    return values


def thirty(chance: np.random.Generator, n: int) -> dict[str, Array]:
    common = chance.normal(size=n)
    numeric = {f"n{i}": 0.5 * common + chance.normal(size=n) for i in range(20)}
    return numeric | {f"c{i}": mix(2 + 3 * i)(chance, n) for i in range(10)}


NULL: dict[str, Sample] = {
    "normal": one(lambda chance, n: chance.normal(size=n)),
    "log-normal": one(lambda chance, n: chance.lognormal(size=n)),
    "heavy tail (t, 2 df)": one(lambda chance, n: chance.standard_t(2, size=n)),
    "ties (Poisson 1.5)": one(lambda chance, n: chance.poisson(1.5, n).astype(float)),
    "2 categories": one(mix(2)),
    "20 categories": one(mix(20)),
    "100 categories": one(mix(100)),
    "200 uneven categories": one(mix(200, 1.1)),
    "5,000 categories": one(mix(5_000)),
    "20,000 uneven categories": one(mix(20_000, 1.1)),
    "20 % missing": one(with_missing),
    "30 columns jointly": thirty,
}


def evidently(before: dict[str, Array], now: dict[str, Array]) -> list[tuple[float, bool, bool]]:
    """Evidently's default test of each column: score, whether drifted, and whether large scores mean drift."""
    import pandas as pd
    from evidently.legacy.calculations.stattests.registry import _get_default_stattest
    from evidently.legacy.core import ColumnType

    out = []
    for name, old in before.items():
        kind = ColumnType.Categorical if old.dtype.kind in "UO" else ColumnType.Numerical
        left, right = (pd.Series(side).dropna().reset_index(drop=True) for side in (old, now[name]))
        test = _get_default_stattest(left, right, kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = test(left, right, kind, None)
        out.append((float(found.drift_score), bool(found.drifted), test.name in ("wasserstein", "jensenshannon")))
    return out


def rate(hits: int, tries: int) -> str:
    """A rate with its exact 95 % interval (Clopper and Pearson)."""
    from scipy.stats import beta

    low = beta.ppf(0.025, hits, tries - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, tries - hits) if hits < tries else 1.0
    return f"{hits / tries:5.3f} [{low:5.3f}, {high:5.3f}]" if tries else "    -"
