import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.student.features import pad


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=5))
def test_padding_keeps_the_rows_and_adds_only_zero_weights(rows):
    made = [(np.array(r, dtype=np.int64), np.full(len(r), 0.5, dtype=np.float32)) for r in rows]
    ids, weights = pad(made)
    assert ids.shape == weights.shape == (len(rows), max([1, *map(len, rows)]))
    for row, found, weight in zip(rows, ids.tolist(), weights.tolist(), strict=True):
        assert found[: len(row)] == row and weight == [0.5] * len(row) + [0.0] * (ids.shape[1] - len(row))
