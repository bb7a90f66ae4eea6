"""One conformance suite over every detector, and each against an independent implementation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

from drift import jensen_shannon, kolmogorov_smirnov

Distances = Callable[[Any, npt.NDArray[np.bool_]], npt.NDArray[np.float64]]
DETECTORS: list[Distances] = [kolmogorov_smirnov.distances, jensen_shannon.distances]
SAMPLE = st.lists(st.integers(0, 6), min_size=1, max_size=40)

conform = pytest.mark.parametrize("distances", DETECTORS, ids=["kolmogorov_smirnov", "jensen_shannon"])


def distance(distances: Distances, a: list[Any], b: list[Any]) -> float:
    kind = np.float64 if distances is kolmogorov_smirnov.distances else np.int64
    current = np.arange(len(a) + len(b)) >= len(a)
    return float(distances(np.array(a + b, dtype=kind), current[np.newaxis])[0])


@conform
@given(a=SAMPLE, b=SAMPLE)
def test_a_distance_is_symmetric_and_between_zero_and_one(distances: Distances, a: list[int], b: list[int]) -> None:
    found = distance(distances, a, b)
    assert 0.0 <= found <= 1.0
    assert found == pytest.approx(distance(distances, b, a), abs=1e-9)


@conform
@given(a=SAMPLE, copies=st.integers(1, 3), shuffler=st.randoms())
def test_equal_mixes_have_no_distance_whatever_their_order(
    distances: Distances, a: list[int], copies: int, shuffler: Any
) -> None:
    b = a * copies
    shuffler.shuffle(b)
    assert distance(distances, a, b) == pytest.approx(0.0, abs=1e-7)


@conform
def test_disjoint_samples_are_at_distance_one(distances: Distances) -> None:
    assert distance(distances, [0, 0, 1], [2, 3]) == pytest.approx(1.0)


@conform
def test_many_splits_at_once_are_the_same_as_one_by_one(distances: Distances) -> None:
    chance = np.random.default_rng(2)
    values = chance.integers(0, 5, size=60)
    pooled = values.astype(np.float64) if distances is kolmogorov_smirnov.distances else values
    splits = chance.permuted(np.broadcast_to(np.arange(60) >= 40, (25, 60)), axis=1)
    one_by_one = [distance(distances, values[~s].tolist(), values[s].tolist()) for s in splits]
    assert distances(pooled, splits) == pytest.approx(one_by_one, abs=1e-12)


@given(SAMPLE.filter(lambda a: len(a) > 1), SAMPLE.filter(lambda b: len(b) > 1))
def test_kolmogorov_smirnov_is_that_of_scipy_with_ties(a: list[int], b: list[int]) -> None:
    assert distance(kolmogorov_smirnov.distances, a, b) == pytest.approx(ks_2samp(a, b, method="asymp").statistic)


def test_kolmogorov_smirnov_takes_missing_values_for_smaller_than_any_number() -> None:
    nan = float("nan")
    assert distance(kolmogorov_smirnov.distances, [1.0, 2.0, nan, nan], [1.0, 2.0]) == 0.5
    assert distance(kolmogorov_smirnov.distances, [nan, nan], [nan]) == 0.0
    assert distance(kolmogorov_smirnov.distances, [nan, nan], [-1e300]) == 1.0


@given(SAMPLE, SAMPLE)
def test_jensen_shannon_is_that_of_scipy_in_bits(a: list[int], b: list[int]) -> None:
    p, q = np.bincount(a, minlength=7), np.bincount(b, minlength=7)
    expected = 0.0 if (p * len(b) == q * len(a)).all() else jensenshannon(p, q, base=2)
    assert distance(jensen_shannon.distances, a, b) == pytest.approx(float(expected), abs=1e-7)


def test_jensen_shannon_counts_a_new_category() -> None:
    assert distance(jensen_shannon.distances, [0] * 10, [0] * 7 + [1] * 3) == pytest.approx(0.411333, abs=1e-6)
