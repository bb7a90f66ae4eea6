import math

from hypothesis import given
from hypothesis import strategies as st

from serving.split import to_candidate

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


@given(st.sampled_from([0.01, 0.05, 0.25, 0.5]), st.integers(0, 50))
def test_the_share_is_within_binomial_bounds(weight, salt):
    n = 5_000
    got = sum(to_candidate("w", str(salt), f"key-{i}", weight) for i in range(n))
    assert abs(got - n * weight) < 5.5 * math.sqrt(n * weight * (1 - weight))
