import pytest

from components.snapshot.table import snapshot_table, truth_table
from components.snapshot.truth import known_truths, with_truth

FROZEN = {"i0001": {"truth_label": "old", "truth_value": None, "truth_known_at": 50.0}}


@pytest.fixture
def table(make_label):
    return snapshot_table([make_label(i) for i in range(3)], FROZEN, 0.25)


def labels(table):
    return table["truth_label"].to_pylist()


def test_late_truth_is_joined_at_the_cut(table, make_truth):
    truths = truth_table([(make_truth(0, 100.0, "x"), 1), (make_truth(0, 200.0, "y"), 2), (make_truth(2, 300.0), 3)])
    assert labels(with_truth(table, truths, 99.0)) == [None, "old", None]
    assert labels(with_truth(table, truths, 100.0)) == ["x", "old", None]
    assert labels(with_truth(table, truths, 250.0)) == ["y", "old", None]
    assert labels(with_truth(table, truths, 999.0)) == ["y", "old", "a"]
    assert labels(table) == [None, "old", None]


def test_a_newer_truth_replaces_the_frozen_one(table, make_truth):
    newer = with_truth(table, truth_table([(make_truth(1, 60.0, "new"), 1)]), 70.0)
    assert (labels(newer)[1], newer["truth_known_at"].to_pylist()[1]) == ("new", 60.0)
    assert newer.schema == table.schema


def test_before_it_was_known_a_frozen_truth_is_not_seen(table):
    assert labels(with_truth(table, truth_table([]), 49.0)) == [None, None, None]


def test_of_truths_known_at_one_time_the_one_written_last_counts(table, make_truth):
    truths = [(make_truth(0, 100.0, "second"), 2), (make_truth(0, 100.0, "first"), 1)]
    assert labels(with_truth(table, truth_table(truths), 100.0))[0] == "second"


def test_a_workload_without_windows_has_no_truths(artifacts):
    assert known_truths("files", artifacts).num_rows == 0
