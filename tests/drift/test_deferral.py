import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift.deferral import STARTS, deferral_limit


def traffic(rng, n):
    """Confidences, and disagreements with the chance ``(1 - confidence) ** 2``; :func:`risk` is what is true of it."""
    confidence = rng.uniform(0.3, 1.0, n)
    return confidence, rng.uniform(size=n) < (1 - confidence) ** 2


def risk(limit):
    """The mean of ``(1 - c) ** 2`` for c uniform above ``limit``."""
    low = max(limit, 0.3)
    return ((1 - low) ** 3 / 3) / (1 - low)


def test_the_bound_holds_as_often_as_it_says_and_is_not_idle():
    broken, limits, runs, alpha, most = 0, [], 200, 0.1, 0.03
    for seed in range(runs):
        found = deferral_limit(*traffic(np.random.default_rng(seed), 3_000), most, alpha)
        if found is None:
            continue
        assert found.disagreement <= found.upper <= most
        broken += risk(found.limit) > most
        limits.append(found.limit)
    assert broken / runs <= alpha and len(limits) / runs > 0.9
    best = 1 - np.sqrt(3 * most)
    assert best < np.median(limits) < best + 0.1


def test_more_rows_defer_less():
    few, many = (deferral_limit(*traffic(np.random.default_rng(1), n), 0.03) for n in (2_000, 20_000))
    assert many.limit < few.limit and many.kept > few.kept


def test_too_little_or_too_bad_is_no_limit():
    assert deferral_limit([], [], 0.05) is None
    assert deferral_limit([0.99] * 30, [False] * 30, 0.05) is None
    assert deferral_limit([0.9] * 2_000, [True, False] * 1_000, 0.05) is None


def test_a_student_that_always_agrees_defers_nothing():
    assert deferral_limit([0.5] * 500, [False] * 500, 0.05).limit == 0.0


def test_few_very_sure_answers_do_not_hide_the_others():
    """No answer is above 0.8, so that the sequences from there begin with nothing."""
    assert deferral_limit([0.7] * 500, [False] * 500, 0.05).kept == 1.0
    assert min(STARTS) < 0.7


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60), st.floats(0.01, 0.9), st.floats(0.01, 0.5))
@settings(deadline=None, max_examples=60)
def test_what_is_kept_is_below_the_bound(rows, most, alpha):
    confidence, wrong = [c for c, _ in rows], [w for _, w in rows]
    found = deferral_limit(confidence, wrong, most, alpha)
    if found is not None:
        kept = [w for c, w in rows if c >= found.limit]
        assert sum(kept) / len(kept) == pytest.approx(found.disagreement) and found.disagreement <= found.upper <= most


@pytest.mark.parametrize(("most", "alpha"), [(0.0, 0.1), (1.0, 0.1), (0.1, 0.0), (0.1, 1.0)])
def test_bounds_outside_their_range_are_refused(most, alpha):
    with pytest.raises(ValueError, match="must be in"):
        deferral_limit([0.5], [False], most, alpha)
    with pytest.raises(ValueError, match="confidences for"):
        deferral_limit([0.5], [], 0.1, 0.1)
