from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift.learning_curve import Point, fit

COUNTS = (0, 10, 50, 100, 200, 400, 1_000, 5_000)


def points(*measured, rows=100):
    return [Point(labels=n, wrong=share * rows, rows=rows) for n, share in measured]


def test_a_curve_passes_near_what_was_measured():
    curve = fit(points((0, 0.95), (100, 0.2), (300, 0.08), rows=150))
    assert [curve.error(n) for n in (0, 100, 300)] == pytest.approx([0.95, 0.2, 0.08], abs=0.04)
    assert 0.02 < curve.error(1_000) < 0.08


@settings(max_examples=20)
@given(
    measured=st.lists(st.tuples(st.integers(0, 3_000), st.floats(0, 1), st.integers(1, 500)), max_size=4),
    past=st.lists(st.tuples(st.integers(0, 3_000), st.floats(0, 1)), max_size=2),
)
def test_more_labels_never_make_a_student_worse_whatever_was_measured(measured, past):
    mine = [Point(labels=n, wrong=share * rows, rows=rows) for n, share, rows in measured]
    curve = fit(mine, [points(one) for one in past])
    errors = [curve.error(n) for n in COUNTS]
    assert all(0.0 <= after <= before <= 1.0 for before, after in pairwise(errors))
    for n in COUNTS:
        low, high = curve.interval(n)
        assert 0.0 <= low <= high <= 1.0


def test_a_measurement_makes_surer_and_one_of_many_rows_no_surer_than_the_form_is():
    def width(curve):
        low, high = curve.interval(100)
        return high - low

    blind, some, many = (fit(points(*([(100, 0.1)] * bool(n)), rows=n)) for n in (0, 20, 200))
    assert width(blind) > 2 * width(some) > 2 * width(many)
    assert width(fit(points((100, 0.1), rows=100_000))) == pytest.approx(width(many))


def test_a_new_regime_is_foreseen_by_how_fast_the_past_ones_were_learnt():
    new = points((0, 0.95))
    fast, slow = points((0, 0.95), (100, 0.03)), points((0, 0.95), (100, 0.7))
    errors = {name: fit(new, past).error(100) for name, past in (("none", []), ("fast", [fast]), ("slow", [slow]))}
    assert errors["fast"] < 0.5 * errors["none"] and errors["none"] < errors["slow"]
    # what is measured of the regime itself counts more
    assert fit(points((0, 0.95), (100, 0.7)), [fast]).error(100) > 0.6
    # the more regimes there were, the less is left of the prior
    assert fit(new, [fast] * 8).error(100) < errors["fast"]


@pytest.mark.parametrize(
    "wrong", [{"labels": -1}, {"wrong": 11}, {"wrong": -1}, {"rows": float("nan")}, {"labels": float("inf")}]
)
def test_counts_that_can_be_none_are_refused(wrong):
    with pytest.raises(ValueError, match="Point"):
        Point(**{"labels": 1, "wrong": 1, "rows": 10, **wrong})
