import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from drift.quality import (
    accuracy,
    agreement,
    expected_calibration_error,
    mae,
    per_slice,
    proportion,
    rmse,
)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (1, 1), (497, 600)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_the_interval_is_that_of_clopper_and_pearson(k: int, n: int, confidence: float) -> None:
    expected = binomtest(k, n).proportion_ci(confidence, method="exact")
    found = proportion(k, n, confidence)
    assert (found.value, found.n) == (k / n, n)
    assert (found.lower, found.upper) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_interval_covers_as_often_as_it_says() -> None:
    draws = np.random.default_rng(3).binomial(40, 0.9, size=2_000)
    intervals = {int(k): proportion(int(k), 40) for k in set(draws.tolist())}
    covered = np.mean([intervals[int(k)].lower <= 0.9 <= intervals[int(k)].upper for k in draws])
    assert covered >= 0.95


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share(pair: tuple[int, int]) -> None:
    found = proportion(*pair)
    assert 0.0 <= found.lower <= found.value <= found.upper <= 1.0


def test_nothing_is_no_number() -> None:
    assert math.isnan(agreement([], []).value)
    assert expected_calibration_error([], []) is None
    assert rmse([], []) is None
    assert mae([], []) is None
    assert per_slice([], [], []) == {}


@pytest.mark.parametrize(("k", "n", "confidence"), [(-1, 3, 0.95), (4, 3, 0.95), (1, 3, 0.0), (1, 3, 1.0)])
def test_impossible_proportions_are_refused(k: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        proportion(k, n, confidence)


def test_agreement_and_accuracy_count_equal_places() -> None:
    assert agreement(["a", "b", None, "c"], ["a", "x", None, "c"]).value == 0.75
    assert accuracy(["a", "b"], ["a", "b"]).value == 1.0
    with pytest.raises(ValueError, match="shorter"):
        agreement(["a", "b"], ["a"])


def test_calibration_error_is_the_weighted_gap_of_the_bins() -> None:
    confidence = [0.95] * 10 + [0.55] * 30
    correct = [True] * 5 + [False] * 5 + [True] * 18 + [False] * 12
    assert expected_calibration_error(confidence, correct) == pytest.approx((10 * 0.45 + 30 * 0.05) / 40)
    assert expected_calibration_error([1.0, 0.0], [True, False]) == 0.0
    assert expected_calibration_error([1.0, 0.0], [False, True]) == 1.0


def test_calibration_bins_are_open_on_the_left() -> None:
    assert expected_calibration_error([0.5, 0.5 + 1e-9], [True, False], bins=2) == pytest.approx(0.5, abs=1e-6)
    assert expected_calibration_error([0.5, 0.5 - 1e-9], [True, False], bins=2) == pytest.approx(0.0, abs=1e-6)


def test_a_calibrated_stream_has_a_small_error_and_an_overconfident_one_a_large() -> None:
    chance = np.random.default_rng(0)
    p = chance.uniform(0.3, 1.0, size=5_000)
    right = chance.random(5_000) < p
    calibrated = expected_calibration_error(p.tolist(), right.tolist())
    overconfident = expected_calibration_error(np.minimum(p + 0.15, 1.0).tolist(), right.tolist())
    assert (calibrated, overconfident) == pytest.approx((0.014576830, 0.137611291), abs=1e-8)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1), st.integers(1, 30))
def test_calibration_error_is_a_share(rows: list[tuple[float, bool]], bins: int) -> None:
    error = expected_calibration_error([p for p, _ in rows], [c for _, c in rows], bins)
    assert error is not None
    assert 0.0 <= error <= 1.0 + 1e-12


@pytest.mark.parametrize(
    ("confidence", "correct", "bins"),
    [([1.2], [True], 15), ([math.nan], [True], 15), ([0.5], [], 15), ([0.5], [True], 0)],
)
def test_impossible_confidences_are_refused(confidence: list[float], correct: list[bool], bins: int) -> None:
    with pytest.raises(ValueError, match=r"confidences|bins"):
        expected_calibration_error(confidence, correct, bins)


def test_slices_below_the_support_are_left_out() -> None:
    labels, truths, slices = ["x"] * 25, ["x"] * 15 + ["y"] * 10, ["a"] * 15 + ["b"] * 10
    found = per_slice(labels, truths, slices, min_support=10)
    assert {k: (v.value, v.n) for k, v in found.items()} == {"a": (1.0, 15), "b": (0.0, 10)}
    assert set(per_slice(labels, truths, slices, min_support=11)) == {"a"}


def test_errors_of_values() -> None:
    assert rmse([1.0, 2.0, 3.0], [1.0, 2.0, 6.0]) == pytest.approx(math.sqrt(3.0))
    assert mae([1.0, 2.0, 3.0], [1.0, 2.0, 6.0]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="2 values for 1 targets"):
        rmse([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="0 values for 1 targets"):
        mae([], [1.0])


def test_weighted_measures_are_those_of_rows_repeated() -> None:
    weights, counts = [3.0, 1.0, 2.0], [3, 1, 2]

    def repeated(values: list) -> list:
        return [v for v, n in zip(values, counts, strict=True) for _ in range(n)]

    labels, truths = ["a", "b", "a"], ["a", "a", "b"]
    confidence, right = [0.9, 0.6, 0.95], [True, False, False]
    values, targets = [1.0, 2.0, 4.0], [1.5, 2.0, 1.0]
    assert accuracy(labels, truths, weights=weights).value == accuracy(repeated(labels), repeated(truths)).value == 0.5
    assert expected_calibration_error(confidence, right, weights=weights) == pytest.approx(
        expected_calibration_error(repeated(confidence), repeated(right))
    )
    assert rmse(values, targets, weights) == pytest.approx(rmse(repeated(values), repeated(targets)))
    assert mae(values, targets, weights) == pytest.approx(mae(repeated(values), repeated(targets)))
    assert per_slice(labels, truths, truths, 2, weights)["a"].value == 0.75
