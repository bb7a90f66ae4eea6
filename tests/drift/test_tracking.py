import numpy as np
import pytest

from drift.tracking import SHARE, START, Tracking


def after(state, outcomes):
    for first, second in outcomes:
        state = state.observe(first, second)
    return state


def test_the_first_is_followed_until_the_second_has_shown_something():
    assert Tracking().weight == START and not Tracking().second
    assert not after(Tracking(), [(1.0, 0.0)] * 2).second and after(Tracking(), [(1.0, 0.0)] * 3).second
    assert not after(Tracking(), [(1.0, 0.0), (0.0, 1.0)] * 20).second, "both were right as often"
    assert not Tracking(weight=0.5).second, "where both weigh the same the first is followed"


@pytest.mark.parametrize("past", [0, 10, 10_000])
def test_no_past_outweighs_a_change(past):
    state = after(Tracking(), [(0.0, 1.0)] * past)
    assert state.weight >= SHARE
    assert after(state, [(1.0, 0.0)] * 5).second
    state = after(state, [(1.0, 0.0)] * max(past, 10))
    assert state.second and not after(state, [(0.0, 1.0)] * 5).second


def test_the_better_one_is_followed_nearly_always_whoever_it_is():
    chance = np.random.default_rng(0)
    right = chance.random((4_000, 2)) < np.array([0.9, 0.5])
    state, first = Tracking(), 0
    for n, (one, two) in enumerate(right.tolist()):
        one, two = (one, two) if n < 2_000 else (two, one)
        state = state.observe(float(not one), float(not two))
        first += (not state.second) == (n < 2_000)
    assert first >= 0.95 * 4_000


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_is_a_share(weight):
    with pytest.raises(ValueError, match="weight is"):
        Tracking(weight=weight)


@pytest.mark.parametrize("losses", [(-0.1, 0.0), (0.0, 1.1), (float("nan"), 0.0)])
def test_a_loss_is_one_at_most(losses):
    with pytest.raises(ValueError, match="must be in"):
        Tracking().observe(*losses)
