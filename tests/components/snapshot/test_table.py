import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.records import SoftLabel
from components.snapshot.table import (
    completed,
    input_table,
    label_table,
    parquet_bytes,
    snapshot_schema,
    snapshot_table,
    soft_of,
    split_of,
)


def test_rows_are_in_order_whatever_the_order_of_the_labels(make_label):
    labels = [make_label(i, time=1_000.0 + i // 2) for i in range(6)]
    table = snapshot_table(labels, {}, 0.25)
    assert table.schema == snapshot_schema()
    assert table["input_id"].to_pylist() == [f"i{i:04d}" for i in range(6)]
    assert parquet_bytes(snapshot_table(labels[::-1], {}, 0.25)) == parquet_bytes(table)


def test_another_row_gives_other_bytes(make_label):
    one = parquet_bytes(snapshot_table([make_label(1)], {}, 0.25))
    truth = {"i0001": {"truth_label": "a", "truth_value": None, "truth_known_at": 5.0}}
    assert parquet_bytes(snapshot_table([make_label(2)], {}, 0.25)) != one
    assert parquet_bytes(snapshot_table([make_label(1)], truth, 0.25)) != one


def test_a_row_says_what_the_teacher_said(make_label):
    label = make_label(3)
    (row,) = snapshot_table([label], {}, 0.25).to_pylist()
    assert soft_of(row["soft"]) == label.soft
    assert (row["label"], row["confidence"]) == ("a", 0.75)
    assert row["entropy"] == label.soft.entropy
    assert row["content"] == hashlib.sha256(b"payload 3").hexdigest()
    assert (row["truth_label"], row["truth_value"], row["truth_known_at"]) == (None, None, None)


def test_a_regression_row_has_no_class(make_label):
    soft = SoftLabel(task="regression", space="kWh", value=2.5, scale=0.5)
    (row,) = snapshot_table([make_label(1, soft=soft)], {}, 0.25).to_pylist()
    assert (row["label"], row["space"], soft_of(row["soft"]).value) == (None, "kWh", 2.5)


@given(st.binary(min_size=1, max_size=50), st.floats(0.01, 0.49), st.floats(0.01, 0.49))
def test_the_holdout_of_a_smaller_share_is_part_of_that_of_a_larger(content, one, two):
    content = hashlib.sha256(content).hexdigest()
    smaller, larger = sorted((one, two))
    assert split_of(content, smaller) == "train" or split_of(content, larger) == "holdout"


def test_the_holdout_has_its_share():
    splits = [split_of(hashlib.sha256(str(i).encode()).hexdigest(), 0.2) for i in range(5_000)]
    assert splits.count("holdout") / 5_000 == pytest.approx(0.2, abs=0.02)


def test_descriptors_become_columns_of_their_kind(make_label):
    labels = [make_label(1, entity="ada"), make_label(2)]
    table = input_table(labels, [{"size": 3, "kind": "x", "code": 7.0}, {"size": 2.5, "kind": "y", "code": "none"}])
    assert table["size"].to_pylist() == [3.0, 2.5]
    assert table["code"].to_pylist() == ["7.0", "none"]
    assert table["key"].to_pylist() == ["ada", "k"]
    assert label_table(labels)["event_time"].to_pylist()[0].timestamp() == labels[0].labelled_at


def test_a_row_says_how_it_was_chosen_and_the_audit_slice_is_held_out(make_label):
    labels = [
        msgspec.structs.replace(make_label(i), policy="margin", probability=0.125, audit=i % 2 == 0) for i in range(40)
    ]
    rows = snapshot_table(labels, {}, 0.25).to_pylist()
    assert {(r["policy"], r["probability"]) for r in rows} == {("margin", 0.125)}
    assert all((r["split"] == "holdout") if r["audit"] else (r["split"] == split_of(r["content"], 0.25)) for r in rows)
    assert sum(r["audit"] for r in rows) == 20 and any(r["split"] == "train" for r in rows)


def test_a_snapshot_from_before_says_what_was_true_then(make_label):
    table = snapshot_table([make_label(1), make_label(2)], {}, 0.25)
    old = table.drop_columns(["policy", "probability", "audit"])
    assert completed(old) == table and completed(table) is table
