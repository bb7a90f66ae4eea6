import json

import numpy as np
import pytest

from drift.change_point import ChangeDetector


def rows(chance: np.random.Generator, n: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    return {"x": chance.normal(shift, 1.0, n), "c": chance.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1])}


def fit(run_length: float = 1e5, seed: int = 0) -> ChangeDetector:
    return ChangeDetector.fit(rows(np.random.default_rng(seed), 2_000), run_length=run_length, min_effect=0.05)


def test_a_stationary_stream_raises_nothing_however_often_it_is_looked_at() -> None:
    chance, detector = np.random.default_rng(1), fit(1e6)
    assert all(detector.observe(rows(chance, 50)) is None for _ in range(200))
    assert detector.row == 10_000


def tied(chance: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    gaps = np.where(chance.random(n) < 0.3, np.nan, chance.integers(0, 2, n))
    return {"constant": np.zeros(n), "counts": chance.poisson(0.3, n), "gaps": gaps, "all": np.full(n, np.nan)}


def test_ties_constants_and_missing_values_are_no_change() -> None:
    chance = np.random.default_rng(6)
    detector = ChangeDetector.fit(tied(chance, 300), run_length=1e5, min_effect=0.05)
    assert detector.observe(tied(chance, 5_000)) is None
    found = detector.observe(tied(chance, 100) | {"constant": np.ones(100)})
    assert found is not None and found.column == "constant"


def test_false_alarms_within_n_rows_are_rarer_than_n_over_the_run_length() -> None:
    chance = np.random.default_rng(2)
    alarms = sum(fit(2_000, seed).observe(rows(chance, 200)) is not None for seed in range(60))
    assert alarms <= 16, "60 * 200 / 2,000 = 6 are expected at most, and 16 has a chance of 1e-4"


@pytest.mark.parametrize(("shift", "within"), [(0.7, 250), (1.0, 120), (-2.0, 70)])
def test_a_shift_is_found_soon_and_dated(shift: float, within: int) -> None:
    chance, detector = np.random.default_rng(3), fit()
    assert detector.observe(rows(chance, 1_000)) is None
    found = detector.observe(rows(chance, 1_000, shift))
    assert found is not None
    assert (found.column, found.what) == ("x", "rank up" if shift > 0 else "rank down")
    assert 1_000 < found.row <= 1_000 + within
    assert abs(found.since - 1_001) <= 60


@pytest.mark.parametrize(
    ("change", "column", "what"),
    [
        (lambda b: b | {"x": b["x"] * 3.0}, "x", "spread up"),
        (lambda b: b | {"x": np.where(np.arange(len(b["x"])) % 3, b["x"], np.nan)}, "x", "missing up"),
        (lambda b: b | {"c": np.where(np.arange(len(b["c"])) % 3, b["c"], "new")}, "c", "(other) up"),
        (lambda b: b | {"c": np.full(len(b["c"]), "a")}, "c", "a up"),
    ],
)
def test_other_changes_are_found_and_named(change, column: str, what: str) -> None:  # type: ignore[no-untyped-def]
    chance, detector = np.random.default_rng(4), fit()
    assert detector.observe(rows(chance, 500)) is None
    found = detector.observe(change(rows(chance, 600)))
    assert found is not None
    assert (found.column, found.what) == (column, what)


def test_the_row_of_the_alarm_is_the_same_however_rows_are_batched_and_after_a_restart() -> None:
    chance = np.random.default_rng(5)
    before, after = rows(chance, 300), rows(chance, 300, 1.5)
    stream = {n: np.append(before[n], after[n]) for n in before}
    whole = fit().observe(stream)
    assert whole is not None
    detector = fit()
    for start in range(0, 600, 7):
        detector = fit().resume(json.loads(json.dumps(detector.as_dict(), allow_nan=False)))
        if found := detector.observe({n: c[start : start + 7] for n, c in stream.items()}):
            break
    assert found == whole


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="run_length is 1"):
        fit(1.0)
    with pytest.raises(ValueError, match="needs a column and rows"):
        ChangeDetector.fit({}, run_length=10.0, min_effect=0.1)
    with pytest.raises(ValueError, match="lacks the reference's columns"):
        fit().observe({"x": [1.0]})
    with pytest.raises(ValueError, match="has text now"):
        fit().observe({"x": ["a"], "c": ["a"]})
    with pytest.raises(ValueError, match="other columns"):
        fit().resume({"row": 1, "log_evidence": [[0.0]], "since": [[1]]})
