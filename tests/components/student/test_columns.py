import math

import numpy as np
import pytest

from components.contracts.errors import ConfigError, RecordError
from components.student.columns import MixedColumns

FEATURES = MixedColumns(
    numbers=[{"name": "age", "mean": 40, "scale": 10}, {"name": "sum"}],
    categories=[{"name": "colour", "values": ["red", "blue"]}, {"name": "open", "values": [True, 2, 2.5]}],
)


def test_numbers_are_scaled_and_missing_ones_flagged():
    found = FEATURES.encode([{"age": 60, "sum": -1.5}, {"age": None}, {"age": "50", "sum": 1e9}])
    assert found["numbers"].tolist() == [[2.0, -1.5], [0.0, 0.0], [1.0, 8.0]]
    assert found["missing"].tolist() == [[0, 0], [1, 1], [0, 0]]
    assert found["numbers"].dtype == found["missing"].dtype == np.float32


def test_no_two_columns_share_an_id_and_missing_and_unseen_have_their_own():
    rows = [{}, {"colour": "mauve", "open": "no"}, {"colour": "red", "open": True}, {"colour": "blue", "open": 2.0}]
    assert FEATURES.encode(rows)["categories"].tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert FEATURES.encode([{"open": "2.5"}])["categories"].tolist() == [[0, 8]]
    assert FEATURES.signature["categories"].below == 9


def test_a_kind_that_has_no_columns_has_no_array():
    assert set(MixedColumns(numbers=[{"name": "x"}]).signature) == {"numbers", "missing"}
    only = MixedColumns(categories=[{"name": "x", "values": ["a"]}])
    assert set(only.signature) == set(only.encode([{}])) == {"categories"}
    assert FEATURES.encode([])["categories"].shape == (0, 2) and FEATURES.encode([])["numbers"].shape == (0, 2)


def test_describes_a_row_by_its_columns():
    found = FEATURES.describe({"age": 60, "colour": "mauve", "open": True})
    assert found["age"] == 60 and math.isnan(found["sum"])
    assert (found["colour"], found["open"]) == ("(unseen)", "true")
    assert FEATURES.describe({})["colour"] == "(missing)"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([1, 2], "expected a JSON object, not a list"),
        ("text", "not a str"),
        ({"age": "old"}, "column 'age' is not a number"),
        ({"sum": [1]}, "column 'sum' is not a number"),
        ({"colour": ["red"]}, "column 'colour' is neither text"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(row, said):
    for method in (lambda r: FEATURES.encode([r]), FEATURES.describe):
        with pytest.raises(RecordError, match=said) as error:
            method(row)
        assert error.value.reason == "invalid"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "features.options is"),
        ({"numbers": [{"mean": 1}]}, "features.options.numbers"),
        ({"numbers": [{"name": "x", "scale": 0}]}, "every scale must be > 0"),
        ({"categories": [{"name": "x"}]}, "features.options.categories"),
        ({"categories": [{"name": "x", "values": []}]}, "features.options.categories"),
        ({"categories": [{"name": "x", "values": ["a", "a"]}]}, "each once"),
        ({"numbers": [{"name": "x"}], "categories": [{"name": "x", "values": ["a"]}]}, "every column once"),
    ],
)
def test_refuses_columns_that_say_nothing(options, field):
    with pytest.raises(ConfigError, match=field):
        MixedColumns(**options)
