import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contracts.errors import TeacherError
from components.teachers.answers import distributions, softmax

CLASSES = ("a", "b", "c")


def ask(values, asked=1, kind="probabilities"):
    return distributions("t", "s@1", CLASSES, values, asked, kind)


def test_rows_flat_or_nested():
    flat = ask([0.2, 0.3, 0.5, 1.0, 0.0, 0.0], 2)
    assert flat == ask([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], 2)
    assert flat[0].distribution == pytest.approx({"a": 0.2, "b": 0.3, "c": 0.5}) and flat[1].distribution == {"a": 1.0}
    assert ask([], 0) == []


@pytest.mark.parametrize(
    ("values", "asked", "says"),
    [
        ([0.5, 0.5], 1, "2 numbers, not 1 rows of 3 classes"),
        ([0.2, 0.3, 0.5], 2, "3 numbers, not 2 rows"),
        ([0.2, math.nan, 0.8], 1, "NaN or infinity for 1 of 1"),
        ([math.inf, 0.0, 0.0], 1, "NaN or infinity"),
        ([0.2, None, 0.8], 1, "NaN or infinity|no number"),
        (["a", "b", "c"], 1, "no number"),
        ([[0.2, 0.3, 0.5], [0.2]], 2, "no number"),
        ([0.2, 0.3, 0.6], 1, "sum to 1.1 .*output_kind: logits"),
        ([-0.2, 0.7, 0.5], 1, "least of -0.2"),
        ([0.2, 0.3, 0.5, 3.0, 1.0, -2.0], 2, "sum to 2"),
        ({"a": 1}, 1, "no number"),
    ],
)
def test_what_is_no_distribution_names_the_remedy(values, asked, says):
    with pytest.raises(TeacherError, match=says):
        ask(values, asked)


@settings(deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3))
def test_logits_of_any_size(logits):
    (soft,) = ask(logits, kind="logits")
    assert math.isclose(math.fsum(soft.distribution.values()), 1.0, abs_tol=1e-9)
    assert soft.distribution[soft.label] >= 1 / 3 - 1e-9
    assert softmax(np.array([logits])) == pytest.approx(softmax(np.array([logits]) + 5.0), abs=1e-9)
