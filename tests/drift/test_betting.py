import json
import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from drift.betting import FRACTIONS, EProcess

UNIT = st.floats(0.0, 1.0)


def run(bound: float, stream: list[float]) -> EProcess:
    process = EProcess(bound=bound)
    for x in stream:
        process = process.observe(x)
    return process


def stopped_at(bound: float, alpha: float, stream: list[float]) -> int | None:
    process = EProcess(bound=bound)
    for i, x in enumerate(stream, start=1):
        process = process.observe(x)
        if process.rejects(alpha):
            return i
    return None


def test_the_e_value_is_the_mean_of_the_products() -> None:
    stream = [1.0, 0.3, 0.0, 1.0]
    capitals = [math.prod(1 + f / 0.2 * (x - 0.2) for x in stream) for f in FRACTIONS]
    process = run(0.2, stream)
    assert process.e_value == pytest.approx(sum(capitals) / len(capitals))
    assert (process.n, process.mean) == (4, pytest.approx(0.575))


def test_nothing_observed_is_no_evidence() -> None:
    process = EProcess(bound=0.2)
    assert (process.e_value, process.mean, process.rejects(0.5)) == (1.0, None, False)


def test_a_permuted_student_is_seen_within_eight_observations() -> None:
    assert stopped_at(0.2, 0.02, [1.0] * 20) == 4
    assert stopped_at(0.2, 0.02, [0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]) == 8


@pytest.mark.parametrize(
    ("bound", "mean", "alpha", "index"),
    [
        (0.2, 0.9, 0.02, 8),
        (0.1, 0.15, 0.02, 324),
        (0.01, 0.05, 0.01, 229),
        (0.55, 0.65, 0.01, 267),
        (0.2, 0.2, 0.02, None),
    ],
)
def test_the_index_of_rejection_on_a_seeded_stream(bound: float, mean: float, alpha: float, index: int | None) -> None:
    stream = (np.random.default_rng(1).random(3_000) < mean).astype(float).tolist()
    assert stopped_at(bound, alpha, stream) == index


def bernoulli(chance: np.random.Generator, bound: float, n: int) -> list[float]:
    return (chance.random(n) < bound).astype(float).tolist()


def continuous(chance: np.random.Generator, bound: float, n: int) -> list[float]:
    return chance.beta(4 * bound, 4 * (1 - bound), size=n).tolist()


def dependent(chance: np.random.Generator, bound: float, n: int) -> list[float]:
    """Large and rare after a zero, constant after a gain: the mean given the past is always the bound."""
    stream = [0.0]
    for u in chance.random(n - 1):
        stream.append(float(u < bound) if stream[-1] < bound else bound)
    return stream


@pytest.mark.parametrize("stream", [bernoulli, continuous, dependent])
@pytest.mark.parametrize("bound", [0.05, 0.2, 0.55])
def test_looking_after_every_observation_keeps_the_error_below_alpha(
    stream: Callable[[np.random.Generator, float, int], list[float]], bound: float
) -> None:
    chance, alpha, streams = np.random.default_rng(7), 0.1, 200
    false = sum(stopped_at(bound, alpha, stream(chance, bound, 200)) is not None for _ in range(streams))
    assert false <= binom.ppf(0.9999, streams, alpha)


def test_mild_excess_is_seen_in_the_end() -> None:
    chance = np.random.default_rng(5)
    stops = [stopped_at(0.1, 0.02, (chance.random(1_500) < 0.15).astype(float).tolist()) for _ in range(20)]
    assert None not in stops
    assert float(np.median([s for s in stops if s is not None])) < 600


def test_a_bound_of_zero_is_refuted_by_anything_positive_and_one_of_one_by_nothing() -> None:
    assert not run(0.0, [0.0] * 50).rejects(0.5)
    refuted = run(0.0, [0.0, 1e-9, 0.0])
    assert refuted.rejects(1e-9)
    assert math.isfinite(refuted.e_value)
    assert run(1.0, [1.0] * 500).e_value == 1.0


@pytest.mark.parametrize("bound", [0.0, 5e-324, 1e-6, 0.2, 1.0 - 1e-16, 1.0])
def test_long_streams_stay_finite_and_survive_json(bound: float) -> None:
    for stream in ([1.0] * 1_000, [0.0] * 1_000):
        process = run(bound, stream)
        text = json.dumps(process.as_dict(), allow_nan=False)
        assert EProcess.from_dict(json.loads(text)) == process
        assert msgspec.json.decode(msgspec.json.encode(process), type=EProcess) == process
        assert math.isfinite(process.e_value)


@given(UNIT, st.lists(UNIT, max_size=30), st.lists(UNIT, max_size=30))
def test_a_process_that_was_stored_goes_on_as_if_it_had_not_been(
    bound: float, first: list[float], second: list[float]
) -> None:
    restored = EProcess.from_dict(json.loads(json.dumps(run(bound, first).as_dict())))
    for x in second:
        restored = restored.observe(x)
    assert restored == run(bound, first + second)


@given(st.floats(0.01, 0.99), st.lists(st.tuples(UNIT, UNIT), min_size=1, max_size=40))
def test_larger_observations_are_never_less_evidence(bound: float, pairs: list[tuple[float, float]]) -> None:
    low, high = run(bound, [min(p) for p in pairs]), run(bound, [max(p) for p in pairs])
    assert high.log_e_value >= low.log_e_value - 1e-9


@pytest.mark.parametrize("x", [-0.1, 1.1, math.nan, math.inf])
def test_observations_outside_the_unit_are_refused(x: float) -> None:
    with pytest.raises(ValueError, match=r"not in \[0, 1\]"):
        EProcess(bound=0.2).observe(x)


def test_impossible_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="bound is nan"):
        EProcess(bound=math.nan)
    with pytest.raises(ValueError, match="start the test anew"):
        EProcess.from_dict({"bound": 0.2, "n": 0, "total": 0.0, "log_capitals": [0.0]})
    with pytest.raises(ValueError, match="alpha is 1"):
        EProcess(bound=0.2).rejects(1)
