from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import binom

from drift.block_length import block_length
from drift.columns import MOST_RANKED, series
from drift.monitor import Reference


def ar1(chance: np.random.Generator, n: int, phi: float) -> np.ndarray:
    noise = chance.normal(size=n + 200)
    return np.asarray(lfilter([1.0], [1.0, -phi], noise))[200:]


def test_independent_rows_need_no_blocks() -> None:
    chance = np.random.default_rng(0)
    lengths = [block_length(list(chance.normal(size=(10, 500)))) for _ in range(40)]
    assert lengths.count(1) >= 38


@pytest.mark.parametrize(("phi", "expected"), [(0.5, 16), (0.8, 41)])
def test_an_autoregression_s_blocks_are_near_the_theoretical_optimum(phi: float, expected: float) -> None:
    """For AR(1), G / g(0) = 2 phi / (1 - phi^2), and the optimum is (1.5 (G / g(0))^2 n)^(1/3)."""
    chance = np.random.default_rng(1)
    best = (1.5 * (2 * phi / (1 - phi**2)) ** 2 * 2_000) ** (1 / 3)
    assert best == pytest.approx(expected, abs=4)
    lengths = [block_length([ar1(chance, 2_000, phi)]) for _ in range(20)]
    assert 0.6 * best <= np.median(lengths) <= 1.6 * best


@pytest.mark.parametrize("shape", [lambda x: x, np.exp, lambda x: x**5, np.round], ids=["", "exp", "power", "ties"])
def test_a_long_reference_s_dependence_is_seen_whatever_the_shape_of_its_values(
    shape: Callable[[np.ndarray], np.ndarray],
) -> None:
    chance = np.random.default_rng(4)
    stream = shape(ar1(chance, 4 * MOST_RANKED, 0.5))
    stream[chance.random(len(stream)) < 0.05] = np.nan
    stream[:5] = np.inf
    assert 15 <= block_length(series(stream)) <= 80
    assert block_length(series(chance.permutation(stream))) == 1


def test_short_and_constant_series_are_taken_as_independent() -> None:
    assert block_length([np.arange(50.0), np.ones(500)]) == 1
    assert block_length([]) == 1


def test_blocks_keep_the_level_on_an_autocorrelated_stream_where_rows_do_not() -> None:
    chance, alpha, looks = np.random.default_rng(3), 0.1, 60
    alarms = {1: 0, "auto": 0}
    for _ in range(looks):
        stream = ar1(chance, 2_000, 0.7)
        for block in alarms:
            reference = Reference.fit(
                {"x": stream[:1_500]}, window=500, alpha=alpha, min_effect=0.0, resamples=99, seed=0, block=block
            )
            alarms[block] += reference.assess({"x": stream[1_500:]}).outcome == "drift"
    assert alarms["auto"] <= binom.ppf(0.999, looks, alpha)
    assert alarms[1] > binom.ppf(0.999, looks, alpha)


def test_a_window_of_fewer_than_five_blocks_is_not_enough_data() -> None:
    stream = ar1(np.random.default_rng(3), 3_000, 0.97)
    reference = Reference.fit({"x": stream[:2_000]}, window=60, alpha=0.05, min_effect=0.1, resamples=99, seed=0)
    verdict = reference.assess({"x": stream[2_000:2_060]})
    assert verdict.outcome == "not_enough_data"
    assert "depend on each other" in verdict.reason
    assert verdict.block == reference.block_rows > 12
