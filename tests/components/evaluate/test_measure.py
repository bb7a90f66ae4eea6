import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.records import SoftLabel
from components.distill.data import Rows
from components.evaluate.measure import Judged, confusion, deferral, forgetting, loss, pooled, quality, slice_accuracies


def soft(label, p=0.9):
    return SoftLabel(task="classification", space="s", distribution={label: p, "rest": 1 - p})


def value(v, scale=1.0):
    return SoftLabel(task="regression", space="u", value=v, scale=scale)


def judged(answers, teacher, truth, p=0.9):
    rows = Rows(payloads=[b"x"] * len(answers), soft=[soft(t) for t in teacher], truth=list(truth))
    return Judged(rows=rows, answers=[soft(a, p) for a in answers])


def regression(answers, teacher, truth):
    rows = Rows(payloads=[b"x"] * len(answers), soft=[value(t) for t in teacher], truth=list(truth))
    return Judged(rows=rows, answers=[value(a) for a in answers])


def test_measures_against_truth_and_teacher():
    found = quality("classification", judged("aaab" * 5, "aabb" * 5, "abbb" * 5), 10)
    assert (found["rows"], found["truth_rows"]) == (20, 20)
    assert found["accuracy"] == 0.5 and found["teacher_accuracy"] == 0.75 and found["agreement"] == 0.75
    assert 0.5 < found["agreement_lower"] < 0.75
    assert found["ece"] == pytest.approx(0.4)
    assert found["worst_slice_accuracy"] == pytest.approx(1 / 3)


def test_rows_without_truth_count_for_the_teacher_only():
    found = quality("classification", judged("aaaa", "aaab", ["a", None, None, "b"]), 2)
    assert found["accuracy"] == 0.5 and found["truth_rows"] == 2
    assert found["agreement"] == 0.75 and found["rows"] == 4


def unsure(wrong, right):
    """Answers of which the unsure ones disagree with the teacher and the sure ones do not."""
    made = judged("b" * wrong + "a" * right, "a" * (wrong + right), [None] * (wrong + right))
    return dataclasses.replace(made, answers=[soft(a.label, 0.6 if a.label == "b" else 0.9) for a in made.answers])


def test_the_limit_leaves_out_what_disagrees():
    found = deferral("classification", unsure(100, 300), 0.05)
    assert 0.6 < found["defer_below"] <= 0.62 and found["defer_kept"] == 0.75
    assert deferral("classification", unsure(0, 20), 0.05) == {"defer_below": None, "defer_kept": None}


def test_rows_of_small_weight_certify_no_limit():
    """Many rows that a policy picked and a few that stand for nearly all of the traffic: too few to show anything."""
    made = unsure(0, 330)
    assert deferral("classification", made, 0.05)["defer_below"] == 0.0
    assert deferral("classification", weighed(made, [0.01] * 300 + [1.0] * 30), 0.05)["defer_below"] is None


def weighed(made, weights):
    return Judged(rows=dataclasses.replace(made.rows, weights=list(weights)), answers=made.answers)


def test_rows_count_by_their_weights():
    candidate = weighed(judged("aaxx", "aaaa", ["a", "a", "a", None]), [1.0, 1.0, 2.0, 4.0])
    found = quality("classification", candidate, 2)
    assert found["accuracy"] == 0.5 and found["agreement"] == 0.25 and found["teacher_accuracy"] == 1.0
    champion = weighed(judged("aaax", "aaaa", ["a", "a", "a", None]), candidate.rows.weights)
    assert loss("classification", candidate, champion, 2) == 0.5
    values = weighed(regression([1.0, 5.0], [1.0, 1.0], [1.0, 1.0]), [3.0, 1.0])
    found = quality("regression", values, 2)
    assert (found["rmse"], found["mae"], found["agreement"]) == (2.0, 1.0, 0.75)


def test_uneven_weights_lower_the_bound():
    even = judged("a" * 30, "a" * 30, "a" * 30)
    uneven = weighed(even, [1.0] * 29 + [30.0])
    bounds = [quality("classification", x, 5)["agreement_lower"] for x in (even, uneven)]
    assert bounds[1] < bounds[0] - 0.2


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_too_few_rows_are_no_measurement(task):
    made = judged("aaa", "aaa", "aaa") if task == "classification" else regression([1.0], [1.0], [1.0])
    found = quality(task, made, 4)
    counts = {"rows", "truth_rows"}
    assert counts <= found.keys() and all(v is None for k, v in found.items() if k not in counts)


def test_no_rows_at_all_are_no_error():
    assert quality("classification", judged("", "", ""), 1)["accuracy"] is None
    assert confusion(judged("", "", "")) == {"labels": [], "matrix": []}


def test_small_slices_are_not_judged():
    made = judged("a" * 12 + "x" * 3, "a" * 15, "a" * 12 + "b" * 3)
    assert slice_accuracies(made) == {"a": 1.0}
    assert quality("classification", judged("aaa", "aaa", "aaa"), 1)["worst_slice_accuracy"] is None


def test_regression_has_errors_in_its_unit_and_agreement_within_the_teacher_s_scales():
    found = quality("regression", regression([1.0, 2.0, 9.0, 4.0], [1.5, 3.9, 3.0, 4.0], [1.0, 4.0, 9.0, 4.0]), 2)
    assert found["rmse"] == 1.0 and found["mae"] == 0.5
    assert found["agreement"] == 0.75
    assert "accuracy" not in found


def test_loss_is_what_the_champion_had_more():
    candidate, champion = judged("aaxx", "aaaa", "aaaa"), judged("aaax", "aaaa", "aaaa")
    assert loss("classification", candidate, champion, 4) == 0.25
    assert loss("classification", champion, candidate, 4) == -0.25
    assert loss("classification", candidate, champion, 5) is None


def test_loss_of_a_regression_is_the_relative_rise_of_its_error():
    worse, better = regression([2.0, 2.0], [0.0, 0.0], [0.0, 0.0]), regression([1.0, 1.0], [0.0, 0.0], [0.0, 0.0])
    assert loss("regression", worse, better, 2) == 1.0
    assert loss("regression", better, worse, 2) == -0.5
    perfect = regression([0.0, 0.0], [0.0, 0.0], [0.0, 0.0])
    assert loss("regression", better, perfect, 2) > 1e6 and loss("regression", perfect, perfect, 2) == 0.0


def test_forgetting_is_the_worst_group_s():
    fine = (judged("aaaa", "aaaa", "aaaa"), judged("aaax", "aaaa", "aaaa"))
    forgot = (judged("xxaa", "aaaa", "aaaa"), judged("aaaa", "aaaa", "aaaa"))
    assert forgetting("classification", [fine, forgot], 4) == 0.5
    assert forgetting("classification", [fine], 4) == -0.25


def test_what_was_not_looked_at_may_be_forgotten():
    fine = (judged("aaaa", "aaaa", "aaaa"), judged("aaaa", "aaaa", "aaaa"))
    small = (judged("a", "a", "a"), judged("a", "a", "a"))
    assert forgetting("classification", [fine, small], 4) is None
    assert forgetting("classification", [], 4) is None


def rows(truths):
    return Rows(payloads=[b"x"] * len(truths), soft=[soft("a")] * len(truths), truth=list(truths))


@given(st.lists(st.lists(st.sampled_from(["a", None]), max_size=8), max_size=8), st.integers(1, 6))
def test_pooling_keeps_all_rows_in_order_and_makes_no_small_group(windows, least):
    groups = pooled([rows(w) for w in windows], least)
    assert [t for g in groups for t in g.truth] == [t for w in windows for t in w]
    known = [sum(t is not None for t in g.truth) for g in groups]
    assert len(groups) <= 1 or min(known) >= least
    assert len(groups) == max(1, len(groups)) or not any(windows)


def test_windows_that_are_large_enough_stay_by_themselves():
    assert [len(g) for g in pooled([rows("aaa"), rows("aa"), rows("a"), rows("aaaa"), rows("a")], 3)] == [3, 3, 5]


def test_confusion_counts_truth_by_answer():
    found = confusion(judged("abba", "abba", ["a", "b", "a", None]))
    assert found == {"labels": ["a", "b"], "matrix": [[1, 1], [0, 1]]}
