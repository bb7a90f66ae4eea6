import numpy as np
import pytest

from drift.confidence_sequence import anytime_bound


def test_a_bound_holds_at_all_times_together():
    """Looked at after each of 200 observations, 300 times over: a fixed-sample bound is broken three times as often."""
    chance, broken = np.random.default_rng(0), 0
    for _ in range(300):
        x = (chance.random(200) < 0.8).astype(float)
        broken += anytime_bound(x.tolist(), "lower", 0.9) > 0.8  # the tightest of all looks
    assert broken / 300 <= 0.1


def test_it_gets_no_worse_by_more_observations_and_closes_in():
    x = (np.random.default_rng(1).random(2_000) < 0.9).astype(float)
    bounds = [anytime_bound(x[:n].tolist(), "lower", 0.95) for n in (20, 200, 2_000)]
    assert bounds == sorted(bounds) and 0.87 < bounds[-1] < 0.9
    assert 0.9 < anytime_bound(x.tolist(), "upper", 0.95) < 0.93


def test_nothing_says_nothing():
    assert anytime_bound([], "lower", 0.95) == 0.0 and anytime_bound([], "upper", 0.95) == 1.0


@pytest.mark.parametrize(("x", "confidence"), [([1.1], 0.9), ([-0.1], 0.9), ([float("nan")], 0.9), ([0.5], 1.0)])
def test_what_it_cannot_judge_is_refused(x, confidence):
    with pytest.raises(ValueError, match="must be in"):
        anytime_bound(x, "lower", confidence)
