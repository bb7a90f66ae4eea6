import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift.gate import Criterion, assess
from drift.measured import Share
from drift.span_f1 import Counts, SpanF1, SpanF1Loss

TEXTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)


def counts(parts):
    return tuple(Counts(both, both + extra, both + missed) for both, extra, missed in parts)


def of(parts, weights=None):
    return SpanF1(counts=counts(parts), weights=tuple(weights or [1.0] * len(parts)))


def test_counts_are_of_equal_spans():
    assert Counts.of([(0, 3, "PER"), (4, 5, "LOC")], [(0, 3, "PER"), (4, 6, "LOC"), (7, 8, "LOC")]) == (1, 2, 3)


def test_f1_precision_and_recall_are_conll_s():
    """2 found of 3 said and 5 true."""
    found = of([(1, 1, 1), (1, 0, 2)])
    assert (found.precision, found.recall) == (2 / 3, 2 / 5)
    assert found.value == pytest.approx(2 * (2 / 3) * (2 / 5) / (2 / 3 + 2 / 5)) == pytest.approx(0.5)


def test_nothing_to_find_and_nothing_found_is_no_number():
    found = of([(0, 0, 0)])
    assert math.isnan(found.value) and found.n == 0
    assert (found.bound("lower", 0.9), found.bound("upper", 0.9)) == (0.0, 1.0)
    assert found.breaks(0.5, "lower") == 1.0 and found.needed(0.5, "lower", 0.9) is None


def test_texts_of_one_span_each_that_is_right_or_not_are_a_share():
    """Hits come in pairs, what is said and what is true: the texts are what counts."""
    hits = [True] * 45 + [False] * 5
    found = of([(1, 0, 0) if hit else (0, 1, 1) for hit in hits])
    share = Share(hits=tuple(hits), weights=(1.0,) * 50)
    assert found.value == share.value
    for side in ("lower", "upper"):
        assert found.bound(side, 0.95) == pytest.approx(share.bound(side, 0.95), abs=0.005)


def test_no_error_on_few_texts_shows_no_more_than_so_many_texts_can():
    assert of([(3, 0, 0)] * 20).bound("lower", 0.95) == pytest.approx(0.05 ** (1 / 20))


@given(TEXTS, st.floats(0.55, 0.99))
def test_bounds_hold_the_value_and_widen_with_confidence(parts, confidence):
    found = of(parts)
    if found.n:
        low, high = found.bound("lower", confidence), found.bound("upper", confidence)
        assert 0.0 <= low <= found.value <= high <= 1.0
        assert found.bound("lower", 0.995) <= low + 1e-12 and found.bound("upper", 0.995) >= high - 1e-12


@given(TEXTS, st.floats(0.05, 0.95), st.sampled_from(["lower", "upper"]))
def test_a_limit_is_broken_at_the_level_at_which_the_bound_passes_it(parts, limit, side):
    found, other = of(parts), "upper" if side == "lower" else "lower"
    p = found.breaks(limit, side)
    if found.n and 1e-9 < p < 0.45:
        assert found.bound(other, 1.0 - p) == pytest.approx(limit, abs=1e-6)


def texts_of(chance, n, hit):
    """Texts of up to three spans; in half of them the model is worse than ``hit``, in half better."""
    parts = []
    for _ in range(n):
        level = min(1.0, max(0.0, hit + chance.choice([-0.1, 0.1])))
        spans = chance.randint(0, 3)
        found = sum(chance.random() < level for _ in range(spans))
        parts.append((found, spans - found, spans - found))
    return parts


@pytest.mark.parametrize("hit", [0.6, 0.9])
def test_the_bound_is_beyond_the_truth_as_seldom_as_it_says(hit):
    """F1 of this model is ``hit``: of 400 samples at most 5 % and three deviations of chance have a bound above it."""
    chance = random.Random(0)
    above = sum(of(texts_of(chance, 60, hit)).bound("lower", 0.95) > hit for _ in range(400))
    below = sum(of(texts_of(chance, 60, hit)).bound("upper", 0.95) < hit for _ in range(400))
    assert max(above, below) <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)
    assert min(above, below) >= 1  # and they are not so wide that they never are


def test_weights_are_how_often_a_text_stands_for_one():
    assert of([(1, 0, 0), (0, 1, 1)], [3.0, 1.0]).value == of([(1, 0, 0)] * 3 + [(0, 1, 1)]).value


def loss(mine, theirs):
    return SpanF1Loss(candidate=counts(mine), champion=counts(theirs), weights=(1.0,) * len(mine))


def test_the_loss_is_the_difference_of_the_two():
    found = loss([(0, 0, 1), (1, 0, 0)], [(1, 0, 0), (1, 0, 0)])
    assert found.value == pytest.approx(1.0 - 2 / 3) and found.n == 2


def test_the_same_answers_on_few_texts_may_still_differ():
    same = [(1, 0, 0)] * 30
    assert loss(same, same).bound("upper", 0.95) == pytest.approx(1 - 0.05 ** (1 / 30))
    assert loss(same, same).bound("lower", 0.95) == pytest.approx(-(1 - 0.05 ** (1 / 30)))
    assert loss(same[:1], same[:1]).bound("upper", 0.95) == 1.0


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_the_loss_is_beyond_its_bound_as_seldom_as_it_says(gap):
    chance, beyond = random.Random(1), {"upper": 0, "lower": 0}
    for _ in range(400):
        mine, theirs = [], []
        for _ in range(80):
            spans, luck = chance.randint(0, 3), [chance.random() for _ in range(3)]
            for parts, level in ((mine, 0.85 - gap), (theirs, 0.85)):
                found = sum(x < level if chance.random() < 0.7 else chance.random() < level for x in luck[:spans])
                parts.append((found, spans - found, spans - found))
        made = loss(mine, theirs)
        beyond["upper"] += made.bound("upper", 0.95) < gap
        beyond["lower"] += made.bound("lower", 0.95) > gap
    assert max(beyond.values()) <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95) and min(beyond.values()) >= 1


@given(TEXTS, TEXTS)
def test_a_loss_is_the_other_s_gain(a, b):
    n = min(len(a), len(b))
    one, other = loss(a[:n], b[:n]), loss(b[:n], a[:n])
    if not math.isnan(one.value):
        assert one.bound("upper", 0.9) == pytest.approx(-other.bound("lower", 0.9))
        assert one.breaks(0.1, "upper") == pytest.approx(other.breaks(-0.1, "lower"))


def test_the_gate_judges_by_their_bounds_and_says_how_many_more_would_decide():
    good, few = of([(2, 0, 0)] * 60), of([(2, 0, 0)] * 8)
    demand = [Criterion(measure="span_f1", at_least=0.9, confidence=0.95)]
    assert assess({"span_f1": good}, demand).decision == "promote"
    verdict = assess({"span_f1": few}, demand)
    assert verdict.decision == "hold" and 15 <= verdict.findings[0].more <= 25
    assert assess({"span_f1": of([(1, 1, 1)] * 60)}, demand).decision == "reject"
    assert assess({"span_f1": None}, demand).decision == "hold"


def test_a_loss_that_had_its_labels_and_is_still_open_fails():
    chance = random.Random(2)
    limit = Criterion(measure="span_f1_loss", at_most=0.1, confidence=0.9)
    parts = texts_of(chance, 400, 0.8)
    worse = [(max(0, b - (i % 8 == 0)), e, m + (b > 0 and i % 8 == 0)) for i, (b, e, m) in enumerate(parts)]
    made = loss(worse, parts)
    assert 0.0 < made.value < 0.12
    assert assess({"span_f1_loss": loss(parts, parts)}, [limit]).decision == "promote"
    few = loss(parts[:5], parts[:5])
    found = assess({"span_f1_loss": few}, [limit]).findings[0]
    assert found.outcome == "missing" and found.more >= 10
    assert np.isfinite(made.breaks(0.02, "upper")) and made.breaks(0.0, "upper") < 0.05
    tight = Criterion(measure="span_f1_loss", at_most=made.value, confidence=0.9)
    assert assess({"span_f1_loss": made}, [tight]).decision == "reject"
