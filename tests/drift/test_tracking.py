import numpy as np
import pytest

from drift.tracking import PLACES, SHARE, START, Tracking


def after(state, outcomes, score=0.8):
    for first, second in outcomes:
        state = state.observe(score, first, second)
    return state


def test_the_first_is_followed_until_the_second_has_shown_something():
    assert Tracking().weights == START and not Tracking().second(1.0)
    assert not after(Tracking(), [(1.0, 0.0)] * 2).second(0.8) and after(Tracking(), [(1.0, 0.0)] * 3).second(0.8)
    assert not after(Tracking(), [(1.0, 0.0), (0.0, 1.0)] * 20).second(0.8), "both were right as often"


@pytest.mark.parametrize("past", [0, 10, 10_000])
@pytest.mark.parametrize("score", [0.1, 0.5, 1.0])
def test_no_past_outweighs_a_change(past, score):
    state = after(Tracking(), [(0.0, 1.0)] * past, score)
    assert min(state.weights) >= SHARE * min(START) and sum(state.weights) == pytest.approx(1.0)
    assert after(state, [(1.0, 0.0)] * 8, score).second(score)
    state = after(state, [(1.0, 0.0)] * max(past, 10), score)
    assert state.second(score) and not after(state, [(0.0, 1.0)] * 8, score).second(score)


def test_what_is_won_at_high_scores_says_less_of_low_ones():
    state = after(Tracking(), [(1.0, 0.0)] * 50, 0.8)
    assert [state.second(s) for s in (1.0, 0.8, 0.5)] == [True] * 3
    assert not state.second(0.3), "nothing was seen there"
    state = after(state, [(0.0, 1.0)] * 5, 0.5)
    assert not state.second(0.5) and state.second(0.8), "few outcomes tell the two apart"


def test_a_second_one_that_wins_most_of_what_is_seen_is_not_followed_where_it_loses():
    """Of ten outcomes nine are of inputs on which it is better, and the decisions are about the others."""
    chance, state, wrong = np.random.default_rng(0), Tracking(), 0
    for n in range(4_000):
        low = chance.random() < 0.1
        score = chance.uniform(0.05, 0.45) if low else chance.uniform(0.55, 0.95)
        right = chance.random(2) < ((0.9, 0.5) if low else (0.3, 0.6))
        state = state.observe(score, float(not right[0]), float(not right[1]))
        wrong += n >= 100 and (state.second(0.2), state.second(0.9)) != (False, True)
    assert wrong <= 0.05 * 3_900


def test_the_better_one_is_followed_nearly_always_whoever_it_is():
    chance = np.random.default_rng(0)
    right = chance.random((4_000, 2)) < np.array([0.9, 0.5])
    state, first = Tracking(), 0
    for n, (one, two) in enumerate(right.tolist()):
        one, two = (one, two) if n < 2_000 else (two, one)
        state = state.observe(0.8, float(not one), float(not two))
        first += (not state.second(0.8)) == (n < 2_000)
    assert first >= 0.95 * 4_000


@pytest.mark.parametrize(
    "weights",
    [(1.0,), (1.0, *[0.0] * (PLACES - 1)), (-0.1, *[0.0] * (PLACES - 1), 1.1), (float("nan"),) * (PLACES + 1)],
)
def test_weights_are_shares_of_one(weights):
    with pytest.raises(ValueError, match="weights are"):
        Tracking(weights=weights)


@pytest.mark.parametrize("losses", [(-0.1, 0.0), (0.0, 1.1), (float("nan"), 0.0)])
def test_a_loss_is_one_at_most(losses):
    with pytest.raises(ValueError, match="must be in"):
        Tracking().observe(0.5, *losses)


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_a_score_is_a_share(score):
    with pytest.raises(ValueError, match="score is"):
        Tracking().observe(score, 0.0, 0.0)
    with pytest.raises(ValueError, match="score is"):
        Tracking().second(score)
