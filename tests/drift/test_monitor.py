import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from drift.detectors import DEFAULTS, DETECTORS
from drift.monitor import LEAST_ROWS, MOST_ROWS, TOGETHER, Column, DriftVerdict, Reference

Rows = dict[str, Column]


def fit(columns: Rows, window: int = 150, **changes: float) -> Reference:
    options = {"alpha": 0.01, "min_effect": 0.1, "resamples": 400, "seed": 0} | changes
    return Reference.fit(columns, window=window, **options)  # type: ignore[arg-type]


def mixed(chance: np.random.Generator, n: int, shift: float = 0.0) -> Rows:
    numeric: Rows = {f"n{i}": chance.normal(shift if i == 0 else 0.0, 1.0, n).tolist() for i in range(5)}
    text: Rows = {f"c{i}": chance.choice(list("abcdef"), n).tolist() for i in range(3)}
    return numeric | text


def normal(chance: np.random.Generator, n: int) -> Rows:
    return {"x": chance.normal(size=n).tolist()}


def tied(chance: np.random.Generator, n: int) -> Rows:
    return {"x": chance.poisson(1.5, n).tolist()}


def categories(k: int) -> Callable[[np.random.Generator, int], Rows]:
    return lambda chance, n: {"x": [str(c) for c in chance.integers(0, k, n)]}


def rare(chance: np.random.Generator, n: int) -> Rows:
    weights = 1.0 / np.arange(1, 201) ** 1.1
    return {"x": [str(c) for c in chance.choice(200, n, p=weights / weights.sum())]}


def dependent(chance: np.random.Generator, n: int) -> Rows:
    x = chance.normal(size=n)
    return {f"x{i}": (x + 0.1 * chance.normal(size=n)).tolist() for i in range(8)}


def missing(chance: np.random.Generator, n: int) -> Rows:
    return {
        "x": [None if u < 0.3 else math.nan if u < 0.4 else float(u) for u in chance.random(n)],
        "c": [None if u < 0.3 else "a" if u < 0.6 else "b" for u in chance.random(n)],
    }


CASES = {
    "normal": normal, "tied": tied, "2 categories": categories(2), "20 categories": categories(20),
    "200 uneven categories": rare, "8 columns": mixed, "8 dependent columns": dependent, "missing values": missing,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sizes", [(300, 150), (100, 100)], ids=str)
def test_unchanged_windows_alarm_no_more_often_than_alpha(case: str, sizes: tuple[int, int]) -> None:
    chance, alpha, looks = np.random.default_rng(17), 0.1, 100
    alarms = 0
    for seed in range(looks):
        reference = fit(CASES[case](chance, sizes[0]), sizes[1], alpha=alpha, min_effect=0.0, resamples=49, seed=seed)
        alarms += reference.assess(CASES[case](chance, sizes[1])).outcome == "drift"
    assert alarms <= binom.ppf(0.999, looks, alpha)


def test_the_level_is_used_and_not_only_kept() -> None:
    chance, looks = np.random.default_rng(23), 200
    alarms = sum(
        fit(mixed(chance, 100), 100, alpha=0.2, min_effect=0.0, resamples=49).assess(mixed(chance, 100)).outcome
        == "drift"
        for _ in range(looks)
    )
    assert binom.ppf(0.001, looks, 0.2) <= alarms <= binom.ppf(0.999, looks, 0.2)


@pytest.mark.parametrize("seed", range(5))
def test_a_shift_of_one_deviation_in_one_of_eight_columns_is_found(seed: int) -> None:
    chance = np.random.default_rng(seed)
    verdict = fit(mixed(chance, 300)).assess(mixed(chance, 150, shift=1.0))
    assert (verdict.outcome, verdict.drifted) == ("drift", ("n0",))
    found = verdict.findings[0]
    assert found.detector in DEFAULTS["numeric"]
    assert found.p_value <= 0.01 < min(f.p_value for f in verdict.findings[1:] if f.column != TOGETHER)
    assert found.statistic > found.threshold > 0.1
    assert f"n0: {found.detector} " in verdict.reason


@pytest.mark.parametrize("new", ["new", None])
def test_thirty_percent_of_a_new_category_or_of_missing_values_are_found(new: str | None) -> None:
    chance = np.random.default_rng(3)
    before, now = mixed(chance, 300), mixed(chance, 150)
    now["c1"] = [new if u < 0.3 else v for u, v in zip(chance.random(150), now["c1"], strict=True)]
    now["n4"] = [None if u < 0.3 else v for u, v in zip(chance.random(150), now["n4"], strict=True)]
    verdict = fit(before).assess(now)
    assert set(verdict.drifted) == {"c1", "n4"}
    detectors = {f.column: f.detector for f in verdict.findings}
    assert detectors["c1"] in DEFAULTS["categorical"]
    assert detectors["n4"] == "missing_share"


@pytest.mark.parametrize("seed", range(3))
def test_two_percent_of_a_new_category_among_a_hundred_are_found_and_a_single_row_is_not(seed: int) -> None:
    chance = np.random.default_rng(seed)
    before, now = categories(100)(chance, 1_000), categories(100)(chance, 400)
    reference = fit(before, 400, alpha=0.05, min_effect=0.0)
    now["x"] = ["new" if i < 8 else v for i, v in enumerate(now["x"])]
    verdict = reference.assess(now)
    assert (verdict.outcome, verdict.findings[0].detector) == ("drift", "unseen_share")
    alone: Rows = {"x": ["new", *before["x"][1:400]]}
    assert reference.assess(alone).findings[0].p_value > 0.05


@pytest.mark.parametrize("seed", range(3))
def test_three_rows_of_a_new_category_in_a_window_a_tenth_of_the_reference_are_found(seed: int) -> None:
    chance = np.random.default_rng(seed)
    before, now = categories(2)(chance, 300), categories(2)(chance, 30)
    reference = fit(before, 30, alpha=0.01, min_effect=0.1, resamples=400)
    found = [reference.assess({"x": ["new"] * new + list(now["x"][new:])}).outcome for new in (1, 3)]
    assert found == ["none", "drift"]


def test_the_index_of_the_first_alarm_on_a_seeded_stream() -> None:
    chance = np.random.default_rng(42)
    stream = {"x": np.append(chance.normal(size=600), chance.normal(0.8, 1.0, size=300)), "y": chance.normal(size=900)}
    reference = fit({k: v[:300].tolist() for k, v in stream.items()}, window=100)
    alarms = [
        end
        for end in range(400, 901, 10)
        if reference.assess({k: v[end - 100 : end].tolist() for k, v in stream.items()}).outcome == "drift"
    ]
    assert alarms[0] == 650
    assert alarms[1:] == list(range(alarms[1], 901, 10))


def test_a_significant_difference_below_the_minimum_effect_is_no_drift() -> None:
    chance = np.random.default_rng(0)
    before, now = {"x": chance.normal(size=4_000).tolist()}, {"x": chance.normal(0.15, 1.0, size=4_000).tolist()}
    small = fit(before, 4_000, min_effect=0.1).assess(now)
    (found,) = small.findings
    least = DETECTORS[found.detector].least(0.1)
    assert (small.outcome, found.p_value <= 0.01, found.threshold) == ("none", True, least)
    assert small.reason == "no column of 1 is beyond its threshold"
    assert fit(before, 4_000, min_effect=0.02).assess(now).outcome == "drift"


def test_a_number_that_became_text_and_a_column_that_went_missing_drift() -> None:
    before: Rows = {"x": [float(i) for i in range(60)], "y": ["a", "b"] * 30, "constant": [1.0] * 60}
    now: Rows = {"x": [str(i) for i in range(60)], "y": [None] * 60, "constant": [1.0] * 60}
    assert "y" in fit(before, 60).assess(now).drifted
    now["x"] = ["n/a"] * 60
    assert set(fit(before, 60).assess(now).drifted) == {"x", "y"}


def test_columns_without_any_value_or_variation_do_not_alarm() -> None:
    columns: Rows = {"none": [None] * 50, "nan": [math.nan] * 50, "constant": [3.0] * 50, "one": ["a"] * 50}
    verdict = fit(columns, 50, min_effect=0.0).assess(columns)
    assert verdict.outcome == "none"
    assert {f.statistic for f in verdict.findings} == {0.0}


@pytest.mark.parametrize(
    ("reference", "window", "current"),
    [(300, 150, 149), (300, 10, LEAST_ROWS - 1), (LEAST_ROWS - 1, 30, 40), (300, 150, 0)],
)
def test_too_few_rows_are_not_enough_data(reference: int, window: int, current: int) -> None:
    chance = np.random.default_rng(0)
    before, now = normal(chance, reference), {"x": [99.0] * current}
    verdict = fit(before, window).assess(now)
    assert (verdict.outcome, verdict.findings, verdict.rows) == ("not_enough_data", (), current)
    assert f"{current} rows" in verdict.reason


def test_more_rows_than_are_looked_at_are_thinned() -> None:
    chance = np.random.default_rng(0)
    reference = fit(normal(chance, MOST_ROWS + 5_000), MOST_ROWS, resamples=99)
    assert reference.assess(normal(chance, MOST_ROWS + 3_000)).outcome == "none"
    shifted: Rows = {"x": chance.normal(1.0, 1.0, MOST_ROWS + 1).tolist()}
    assert reference.assess(shifted).outcome == "drift"


def test_equal_inputs_give_equal_verdicts_and_the_fit_keeps_its_own_copy() -> None:
    chance = np.random.default_rng(0)
    before, now = mixed(chance, 300), mixed(chance, 150)
    reference = fit(before)
    first = reference.assess(now)
    before["n0"] = []
    assert reference.assess(now) == first
    assert json.loads(json.dumps(first.as_dict(), allow_nan=False))["findings"][0]["column"] == "n0"


def test_extra_columns_are_not_looked_at_and_missing_ones_are_refused() -> None:
    chance = np.random.default_rng(0)
    reference = fit(normal(chance, 50), 50)
    now = normal(chance, 50) | {"extra": ["a"]}
    assert [f.column for f in reference.assess(now).findings] == ["x"]
    with pytest.raises(ValueError, match=r"lacks the reference's columns \['x'\]"):
        reference.assess({"extra": ["a"]})


@pytest.mark.parametrize(
    ("columns", "changes", "message"),
    [
        ({}, {}, "columns of one length"),
        ({"x": [1.0], "y": [1.0, 2.0]}, {}, "columns of one length"),
        ({"x": [1.0]}, {"alpha": 0.0}, "alpha is 0"),
        ({"x": [1.0]}, {"min_effect": 1.5}, "min_effect is 1.5"),
        ({"x": [1.0]}, {"resamples": 98}, "resamples is 98: a rate of 0.01 needs at least 99"),
        ({"x": [1.0]}, {"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_references_are_refused(columns: Rows, changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(columns, **changes)


VALUE = st.one_of(st.none(), st.floats(width=32), st.text(max_size=3))


@settings(max_examples=40, deadline=None)
@given(st.lists(VALUE, min_size=30, max_size=60), st.lists(VALUE, min_size=30, max_size=60))
def test_any_columns_get_a_verdict_that_agrees_with_its_findings(before: Column, now: Column) -> None:
    verdict: DriftVerdict = fit({"x": before}, 30, alpha=0.1, resamples=19).assess({"x": now})
    (found,) = verdict.findings
    assert found.drifted == (found.p_value <= 0.1 and found.statistic >= DETECTORS[found.detector].least(0.1))
    assert found.drifted == (verdict.outcome == "drift") == ("x" in verdict.drifted)
    assert 0.0 <= found.statistic <= DETECTORS[found.detector].upper
    if found.drifted:
        assert found.statistic >= found.threshold - 1e-9
