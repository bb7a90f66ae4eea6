import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, ks_2samp

import drift.monitor
from drift.detectors import DETECTORS
from drift.monitor import Reference
from drift.sketch import BINS, Grid, Sketch, cell


def columns(chance: np.random.Generator, n: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    x = chance.normal(shift, 1.0, n)
    y = chance.lognormal(size=n)
    y[chance.random(n) < 0.1] = np.nan
    return {"x": x, "y": y, "ties": chance.poisson(2.0, n).astype(float), "c": chance.choice(list("abcde"), n)}


def fit(before: dict[str, np.ndarray], **changes: float) -> Reference:
    settings = {"window": 50, "alpha": 0.05, "min_effect": 0.0, "resamples": 199, "seed": 0, "block": 1} | changes
    return Reference.fit(before, **settings)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3_000), min_size=0, max_size=5))
def test_partitions_merge_to_the_sketch_of_all_rows_in_any_order(cuts: list[int]) -> None:
    rows = columns(np.random.default_rng(0), 3_000)
    grid = Grid.fit(rows)
    whole = Sketch(grid=grid).add(rows)
    edges = [0, *sorted(cuts), 3_000]
    parts = [Sketch(grid=grid).add({n: c[a:b] for n, c in rows.items()}) for a, b in itertools.pairwise(edges)]
    merged = Sketch(grid=grid)
    for part in reversed(parts):
        merged = merged.merge(part)
    assert merged.rows == whole.rows == 3_000
    assert all((merged.counts[n] == whole.counts[n]).all() for n in rows)


def test_lists_numpy_pandas_and_arrow_count_the_same() -> None:
    rows = columns(np.random.default_rng(0), 500)
    grid = Grid.fit(rows)
    batch = pa.record_batch({n: pa.array(c, from_pandas=True) for n, c in rows.items()})
    kinds = ({n: c.tolist() for n, c in rows.items()}, rows, pd.DataFrame(rows), batch, pa.table(batch.to_pydict()))
    counts = [Sketch(grid=grid).add(kind).counts for kind in kinds]
    for name in rows:
        assert all((c[name] == counts[0][name]).all() for c in counts)
        assert counts[0][name].sum() == 500


def test_distances_are_those_of_the_rows_to_a_bin_and_exact_with_few_values() -> None:
    chance = np.random.default_rng(1)
    before, now = columns(chance, 20_000), columns(chance, 10_000, shift=0.2)
    grid = Grid.fit(before)
    left, right = Sketch(grid=grid).add(before), Sketch(grid=grid).add(now)
    ks = DETECTORS["kolmogorov_smirnov"]
    for name, slack in (("x", 2 / BINS), ("ties", 1e-9)):
        found = float(ks.measure(left.gaps(name, right))[0])
        assert found == pytest.approx(ks_2samp(before[name], now[name]).statistic, abs=slack)
    assert left.gaps("y", right).missing_reference[0] == np.isnan(before["y"]).mean()
    distance = DETECTORS["wasserstein"].measure(left.gaps("x", right))[0]
    assert distance == pytest.approx(0.2, abs=0.04)


def test_values_are_counted_up_to_and_with_an_edge_and_missing_and_infinite_ones_are_too() -> None:
    values = np.array([np.nan, -np.inf, 0.5, 1.0, 1.0, 1.5, 2.0, np.inf, np.nan, 9.0])
    sketch = Sketch(grid=Grid.fit({"x": [1.0, 2.0]})).add({"x": values})
    assert sketch.counts["x"].tolist() == [4, 2, 2, 2]


def test_bins_of_a_large_reference_are_even_also_where_its_rows_have_a_period() -> None:
    rows = np.arange(200_000)
    values = np.random.default_rng(0).random(200_000) + 10.0 * (rows % 4)
    counts = Sketch(grid=Grid.fit({"x": values})).add({"x": values}).counts["x"][:-1]
    assert counts.sum() == 200_000
    assert counts.min() > 0.4 * 200_000 / BINS
    assert counts.max() < 1.8 * 200_000 / BINS


def test_unseen_categories_and_missing_ones_are_counted() -> None:
    grid = Grid.fit({"c": ["a", "b", None, "a"]})
    counts = Sketch(grid=grid).add({"c": ["z", "y", None, "a"]}).counts["c"]
    assert {c: int(counts[cell(c)]) for c in ("a", "b", None, "y", "z")} == {"a": 1, "b": 0, None: 1, "y": 1, "z": 1}
    assert counts.sum() == 4


def test_cells_are_the_same_whatever_the_reference_holds() -> None:
    one, other = (Sketch(grid=Grid.fit({"c": c})).add({"c": ["a", "b"]}) for c in (["a", "b"], ["x"] * 9))
    assert one.merge(other).counts["c"][cell("a")] == 2


CATEGORIES = {
    "20": (20, 0.0),
    "400 of long tail": (400, 1.3),
    "1,500": (1_500, 0.0),
    "5,000": (5_000, 0.0),
    "20,000 of long tail": (20_000, 1.1),
    "a hundred thousand": (100_000, 0.0),
}


@pytest.mark.parametrize("sides", [(16_000, 5_000), (5_000, 16_000)], ids=["larger reference", "larger window"])
@pytest.mark.parametrize("kind", CATEGORIES)
def test_unchanged_draws_of_many_categories_alarm_at_most_at_the_level(kind: str, sides: tuple[int, int]) -> None:
    chance, looks, (k, uneven) = np.random.default_rng([3, *sides]), 40, CATEGORIES[kind]
    names, weights = np.char.mod("c%d", np.arange(k)), np.arange(1, k + 1) ** -uneven
    weights /= weights.sum()
    alarms = 0
    for _ in range(looks):
        before, now = (names[chance.choice(k, n, p=weights)] for n in sides)
        verdict = fit({"c": before}, min_effect=0.0).assess({"c": now})
        assert verdict.method == "asymptotic"
        alarms += verdict.outcome == "drift"
    assert alarms <= binom.ppf(0.9999, looks, 0.05)


@pytest.mark.parametrize("k", [20, 1_500, 5_000])
def test_a_change_of_many_categories_is_seen(k: int) -> None:
    chance, weights = np.random.default_rng(4), np.ones(k)
    before = np.char.mod("c%d", chance.choice(k, 16_000))
    weights[: k // 2] *= 2.0
    grown = np.char.mod("c%d", chance.choice(k, 8_000, p=weights / weights.sum()))
    new = np.where(chance.random(8_000) < 0.02, "new", np.char.mod("c%d", chance.choice(k, 8_000)))
    reference = fit({"c": before}, min_effect=0.0)
    assert [reference.assess({"c": window}).outcome for window in (grown, new)] == ["drift", "drift"]


def test_misuse_is_refused_and_counts_nothing() -> None:
    sketch = Sketch(grid=Grid.fit({"x": [1.0, 2.0], "c": ["a", "b"]}))
    with pytest.raises(ValueError, match="lacks column 'c'"):
        sketch.add({"x": [1.0]})
    with pytest.raises(ValueError, match="one length"):
        sketch.add({"x": [1.0], "c": ["a", "b"]})
    with pytest.raises(ValueError, match="has text now"):
        sketch.add({"x": ["a"], "c": ["a"]})
    assert sketch.rows == sum(c.sum() for c in sketch.counts.values()) == 0
    with pytest.raises(ValueError, match="different bins"):
        sketch.merge(Sketch(grid=Grid.fit({"x": [1.0, 3.0], "c": ["a", "b"]})))
    with pytest.raises(ValueError, match="vectors"):
        Grid.fit({"v": np.zeros((3, 2))})
    with pytest.raises(ValueError, match="other bins"):
        fit(columns(np.random.default_rng(0), 100)).assess_sketch(sketch)


def test_closed_forms_keep_the_level_and_agree_with_permutation() -> None:
    chance, looks = np.random.default_rng(5), 90
    by_sketch, agreed = 0, 0
    for _ in range(looks):
        before, now = columns(chance, 1_000), columns(chance, 600)
        reference = fit(before, resamples=99)
        large = reference.assess_sketch(Sketch(grid=reference.sketch.grid).add(now))
        by_sketch += large.outcome == "drift"
        shifted = now | {"x": now["x"] + 0.35}
        small = reference.assess(shifted)
        agreed += small.outcome == reference.assess_sketch(Sketch(grid=reference.sketch.grid).add(shifted)).outcome
        assert (large.method, small.method) == ("asymptotic", "permutation")
    assert by_sketch <= binom.ppf(0.999, looks, 0.05)
    assert agreed >= 0.95 * looks


def test_a_shift_of_three_hundredths_in_fifty_thousand_rows_is_quiet_and_one_of_four_tenths_is_not() -> None:
    chance = np.random.default_rng(6)
    before = columns(chance, 50_000)
    reference = fit(before, min_effect=0.1)
    quiet, loud = (reference.assess(columns(chance, 50_000, shift=s)) for s in (0.03, 0.4))
    assert (quiet.outcome, quiet.method) == ("none", "asymptotic")
    assert quiet.findings[0].p_value < 0.05, "it is significant, and too small to matter"
    assert loud.drifted == ("x",)


def test_windows_of_a_few_rows_and_of_a_million_get_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(7)
    reference = fit({"x": chance.normal(size=2_000)}, min_effect=0.1)
    assert reference.assess({"x": chance.normal(size=50)}).method == "permutation"
    million = reference.assess({"x": chance.normal(size=1_000_000)})
    assert (million.outcome, million.method, million.rows) == ("none", "asymptotic", 1_000_000)
    monkeypatch.setattr(drift.monitor, "LARGE_ROWS", 10**9)
    assert reference.assess({"x": chance.normal(size=30_000)}).method == "permutation"
