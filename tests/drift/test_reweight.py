import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift.quality import effective_size, proportion, weighted_proportion
from drift.reweight import hajek, horvitz_thompson, stratum_weights, thinned


def drawn(chance, n=2_000):
    """Values that are the larger the likelier they were drawn, and which of them were."""
    p = np.clip(chance.beta(0.6, 4.0, size=n), 0.02, 1.0)
    y = (chance.random(n) < np.clip(1.5 * p, 0.01, 1.0)).astype(float)
    return y, p, chance.random(n) < p


def test_means_are_those_of_all_inputs_and_intervals_cover_as_often_as_they_say():
    chance, rounds = np.random.default_rng(0), 400
    ht, ha, share, plain, rest, ht_in, ha_in, share_in = [], [], [], [], [], 0, 0, 0
    target = np.mean([drawn(chance)[0].mean() for _ in range(300)])
    for _ in range(rounds):
        y, p, kept = drawn(chance)
        found = horvitz_thompson(y[kept], p[kept], len(y))
        ht.append(found.value)
        ht_in += found.lower <= target <= found.upper
        found = hajek(y[kept], p[kept])
        ha.append(found.value)
        ha_in += found.lower <= target <= found.upper
        part = weighted_proportion((y[kept] > 0).tolist(), (1 / p[kept]).tolist())
        share.append(part.value)
        share_in += part.lower <= target <= part.upper
        plain.append(y[kept].mean())
        rest.append(horvitz_thompson(1 - y[kept], p[kept], len(y)).value)
    assert np.mean(plain) > 1.5 * target
    for means in (ht, ha, share):
        assert np.mean(means) == pytest.approx(target, abs=4 * np.std(means) / math.sqrt(rounds) + 0.002)
    assert min(ht_in, ha_in) / rounds >= 0.91 and share_in / rounds >= 0.95
    assert np.std(ha) < 0.5 * np.std(rest)


def test_certain_draws_give_plain_means():
    y = [1.0, 0.0, 1.0, 1.0]
    for found in (hajek(y, [1.0] * 4), horvitz_thompson(y, [1.0] * 4, 4)):
        assert (found.value, found.n, found.effective) == (0.75, 4, 4.0)
        assert (found.lower + found.upper) / 2 == pytest.approx(0.75)
        assert found.upper - found.value == pytest.approx(3.182446 * math.sqrt(0.75 * 0.25 / 3), rel=1e-5)


def test_horvitz_and_thompson_count_what_was_not_drawn():
    assert horvitz_thompson([2.0, 4.0], [0.5, 0.25], 10).value == pytest.approx(2.0)
    assert horvitz_thompson([], [], 10).value == 0.0
    assert hajek([2.0, 4.0], [0.5, 0.25]).value == pytest.approx((4 + 16) / 6)


def test_nothing_is_no_number():
    assert math.isnan(hajek([], []).value) and math.isnan(horvitz_thompson([], [], 0).value)
    assert math.isnan(hajek([1.0], [0.5]).lower)
    assert math.isnan(weighted_proportion([], []).value) and effective_size([]) == 0.0


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(0.1, 9.0))
def test_equal_weights_are_no_weights(hits, weight):
    assert weighted_proportion(hits, [weight] * len(hits)) == proportion(sum(hits), len(hits))


@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 100.0)), min_size=1, max_size=60))
def test_the_interval_holds_the_share(rows):
    found = weighted_proportion([h for h, _ in rows], [w for _, w in rows])
    assert 0.0 <= found.lower <= found.value + 1e-9 and found.value - 1e-9 <= found.upper <= 1.0


def test_heavy_rows_widen_the_interval_even_where_all_agree():
    even, uneven = weighted_proportion([True] * 50, [1.0] * 50), weighted_proportion([True] * 50, [1.0] * 49 + [50.0])
    assert uneven.upper == even.upper == 1.0 and uneven.lower < even.lower - 0.2
    assert effective_size([1.0] * 49 + [50.0]) == pytest.approx(99**2 / (49 + 2_500))


def test_the_audit_slice_is_not_drowned_by_the_heavy_rows_of_a_policy():
    weights = stratum_weights([0.1] * 4 + [0.02, 0.5, 0.5], [True] * 4 + [False] * 3)
    assert weights[:4] == [1.0] * 4
    assert sum(weights[4:]) == pytest.approx(effective_size([50.0, 2.0, 2.0]))
    assert weights[4] / weights[5] == pytest.approx(25.0)
    assert stratum_weights([1.0, 1.0, 0.05], [False, False, True]) == [1.0, 1.0, 1.0]
    assert stratum_weights([], []) == []


def test_audit_slice_and_policy_together_are_unbiased_and_closer_than_either():
    chance, target = np.random.default_rng(1), None
    both, alone, errors, truths = [], [], [], []
    for _ in range(300):
        y, p, kept = drawn(chance)
        audit = chance.random(len(y)) < 0.05
        taken = audit | kept
        weights = np.array(stratum_weights(np.where(audit, 0.05, p)[taken].tolist(), audit[taken].tolist()))
        both.append(float((weights * y[taken]).sum() / weights.sum()))
        alone.append(float(y[audit].mean()))
        truths.append(y.mean())
    target = np.mean(truths)
    errors = np.array(both) - target
    assert abs(errors.mean()) < 3.5 * errors.std() / math.sqrt(len(errors)) + 1e-3
    assert np.std(both) < 0.8 * np.std(alone)


@pytest.mark.parametrize("p", [0.0, -0.1, 1.1, math.nan])
def test_impossible_chances_are_refused(p):
    for call in (
        lambda: hajek([1.0], [p]),
        lambda: horvitz_thompson([1.0], [p], 5),
        lambda: stratum_weights([p], [False]),
    ):
        with pytest.raises(ValueError, match=r"\(0, 1\]"):
            call()


def test_impossible_samples_are_refused():
    with pytest.raises(ValueError, match="1 probabilities for 2 values"):
        hajek([1.0, 2.0], [0.5])
    with pytest.raises(ValueError, match="2 rows were drawn of 1"):
        horvitz_thompson([1.0, 2.0], [0.5, 0.5], 1)
    with pytest.raises(ValueError, match="confidence"):
        hajek([1.0, 2.0], [0.5, 0.5], 1.0)
    with pytest.raises(ValueError, match="confidence"):
        weighted_proportion([True, False], [1.0, 2.0], 0.0)
    with pytest.raises(ValueError, match="weights must be"):
        weighted_proportion([True], [0.0])
    with pytest.raises(ValueError, match="2 weights for 1 rows"):
        weighted_proportion([True], [1.0, 2.0])
    with pytest.raises(ValueError, match="1 marks for 2"):
        stratum_weights([0.5, 0.5], [True])


def test_what_is_thinned_is_drawn_as_the_traffic_is():
    """Rows of a kind that was labelled ten times as often, and weighs a tenth, are as often there as in the traffic."""
    common, rare = [1.0] * 10_000, [10.0] * 1_000
    kept = np.array(thinned(common + rare))
    assert (kept >= 10_000).sum() == 1_000
    assert (kept < 10_000).sum() == pytest.approx(1_000, abs=100)
    assert thinned([0.5] * 20) == list(range(20)) and thinned([]) == []


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match="weights must be"):
        thinned([1.0, weight])
