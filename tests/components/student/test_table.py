import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.errors import ConfigError, RecordError
from components.student.table import CLIP, TableColumns

FEATURES = TableColumns([{"name": "age", "mean": 40, "scale": 10}, {"name": "pay"}])


@given(st.lists(st.tuples(st.floats(), st.floats()), min_size=1, max_size=5))
def test_column_j_has_bucket_j_and_its_standardised_value(rows):
    ids, weights = FEATURES.encode([list(r) for r in rows])
    assert ids.tolist() == [[0, 1, 2]] * len(rows)
    for row, (age, pay) in zip(weights, rows, strict=True):
        for found, value in ((row[0], (age - 40) / 10), (row[1], pay)):
            assert found == pytest.approx(0.0 if math.isnan(value) else np.clip(value, -CLIP, CLIP), rel=1e-6)
        assert row[2] == 1.0


def test_an_object_is_read_by_name_and_a_missing_value_weighs_nothing():
    _, weights = FEATURES.encode([{"pay": 2.0, "age": 50, "other": "x"}, {"pay": None}])
    assert weights.tolist() == [[1.0, 2.0, 1.0], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize("payload", [[1.0], "text", 3, {"age": "old", "pay": 1}, [10**400, 0], {"age": [], "pay": 1}])
def test_refuses_a_payload_without_these_columns(payload):
    with pytest.raises(RecordError) as caught:
        FEATURES.encode([payload])
    assert caught.value.reason == "invalid"
    with pytest.raises(RecordError):
        FEATURES.describe(payload)


def test_describes_the_columns_themselves():
    found = FEATURES.describe({"age": 41})
    assert found["age"] == 41.0 and math.isnan(found["pay"])


@pytest.mark.parametrize(
    "columns",
    [
        [],
        ["a"],
        [{"mean": 1}],
        [{"name": "a", "mean": "m"}],
        [{"name": "a", "scale": 0}],
        [{"name": "a"}, {"name": "a"}],
    ],
)
def test_refuses_columns_that_cannot_be(columns):
    with pytest.raises(ConfigError):
        TableColumns(columns)


def test_no_payload_is_an_empty_batch():
    assert FEATURES.encode([])[1].shape == (0, 3)


@given(st.lists(st.one_of(st.none(), st.floats(), st.integers(-(10**9), 10**9)), min_size=2, max_size=2))
def test_alone_or_among_others_a_payload_has_the_same_features_to_the_bit(payload):
    ids, weights = FEATURES.encode([payload])
    of_two_ids, of_two = FEATURES.encode([payload, [1.0, 2.0]])
    assert (weights.dtype, weights.shape, ids.dtype) == (of_two.dtype, (1, 3), of_two_ids.dtype)
    assert weights[0].tobytes() == of_two[0].tobytes() and ids[0].tolist() == of_two_ids[0].tolist()
