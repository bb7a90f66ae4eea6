import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contracts.sampling import BITS, bucket
from serving.replica.split import to_candidate

keys = st.text()
weights = st.floats(0.0, 1.0)


@given(keys, weights, weights)
def test_a_key_keeps_the_candidate_while_the_weight_rises(key, a, b):
    low, high = sorted((a, b))
    assert to_candidate("w", "s", key, high) or not to_candidate("w", "s", key, low)


@given(keys)
def test_nobody_at_zero_and_everybody_at_one(key):
    assert not to_candidate("w", "s", key, 0.0)
    assert to_candidate("w", "s", key, 1.0)


@settings(deadline=None)
@given(st.sampled_from([0.01, 0.05, 0.25, 0.5]), st.integers(0, 50))
def test_the_share_is_within_binomial_bounds(weight, salt):
    n = 5_000
    got = sum(to_candidate("w", str(salt), f"key-{i}", weight) for i in range(n))
    assert abs(got - n * weight) < 5.5 * math.sqrt(n * weight * (1 - weight))


@given(keys)
def test_the_weight_is_the_exact_limit_of_the_buckets(key):
    """A bucket is one of 2 ** 53 equal parts, so that each weight has its share of them to the last bit."""
    place = bucket("w", "s", key)
    assert (place * 2**BITS).is_integer()
    assert not to_candidate("w", "s", key, place)
    assert to_candidate("w", "s", key, math.nextafter(place, 1.0))


def test_buckets_are_uniform_over_many_keys():
    """The largest distance of their distribution from the uniform one (Kolmogorov 1933), at a chance of 1 in 10,000."""
    n = 100_000
    places = sorted(bucket("w", "digest", f"user-{i}") for i in range(n))
    distance = max(max((i + 1) / n - p, p - i / n) for i, p in enumerate(places))
    assert distance * math.sqrt(n) < 2.23


@pytest.mark.parametrize("weight", [0.001, 0.01, 0.05, 0.25, 0.5])
def test_the_shares_of_weights_are_exact_over_keys(weight):
    """Within three standard deviations of the binomial over 200,000 keys; the keys are fixed, and so is the outcome."""
    n = 200_000
    got = sum(to_candidate("w", "digest", f"user-{i}", weight) for i in range(n))
    assert abs(got - n * weight) < 3.0 * math.sqrt(n * weight * (1.0 - weight))
