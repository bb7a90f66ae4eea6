from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from components.distill.replay import balanced_sample

LABELS = st.lists(st.sampled_from("abcde"), max_size=60)


@given(LABELS, st.integers(0, 80), st.integers(0, 5))
def test_takes_as_many_distinct_rows_as_there_are_up_to_the_limit(labels, rows, seed):
    chosen = balanced_sample(labels, rows, seed)
    assert len(chosen) == min(rows, len(labels))
    assert chosen == sorted(set(chosen)) and all(0 <= i < len(labels) for i in chosen)


@given(LABELS, st.integers(0, 80), st.integers(0, 5))
def test_no_class_gets_more_than_one_row_above_another_that_has_rows_left(labels, rows, seed):
    taken = Counter(labels[i] for i in balanced_sample(labels, rows, seed))
    sizes = Counter(labels)
    for small in sizes:
        for large in sizes:
            assert taken[large] <= taken[small] + 1 or taken[small] == sizes[small]


@given(LABELS, st.integers(0, 80))
def test_the_seed_decides(labels, rows):
    assert balanced_sample(labels, rows, 3) == balanced_sample(labels, rows, 3)


def test_other_seeds_take_other_rows():
    assert balanced_sample("a" * 100, 10, 0) != balanced_sample("a" * 100, 10, 1)


def test_rare_classes_are_kept_whole():
    labels = ["common"] * 500 + ["rare"] * 5
    assert set(range(500, 505)) <= set(balanced_sample(labels, 50, 0))
