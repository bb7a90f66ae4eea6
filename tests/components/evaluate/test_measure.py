import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from components.contracts.records import SoftLabel
from components.distill.data import Rows
from components.evaluate.evidence import Answer, Evidence, Judgement, Row
from components.evaluate.measure import confusion, deferral, flat, measures, pooled, slice_accuracies
from components.evaluate.share import known

ALONE = [None] * 1000


def soft(label, p=0.9):
    return SoftLabel(task="classification", space="s", distribution={label: p, "rest": 1 - p})


def said(label, p=0.9):
    return None if label is None else Answer(label=label, confidence=p, entropy=0.3)


def rows(answers, teacher, truth, champion=ALONE, *, set="new", weights=None, p=0.9):
    return [
        Row(set=set, weight=weights[i] if weights else 1.0, truth=t, teacher=said(s), candidate=said(a, p),
            champion=said(champion[i]))
        for i, (a, s, t) in enumerate(zip(answers, teacher, truth, strict=True))
    ]  # fmt: skip


def numbers(answers, teacher, truth, champion=None, scale=1.0):
    return [
        Row(set="new", truth=t, teacher=Answer(value=s, scale=1.0), candidate=Answer(value=a, scale=scale),
            champion=Answer(value=champion[i], scale=1.0) if champion else None)
        for i, (a, s, t) in enumerate(zip(answers, teacher, truth, strict=True))
    ]  # fmt: skip


def measured(made, *, least=1, task="classification", **more):
    judgement = Judgement(workload="w", task=task, min_rows=least, **more)
    return measures(Evidence(judgement=judgement, rows=tuple(made)))


def estimates(made, **more):
    return flat(measured(made, **more), 0.95)


def test_measures_against_truth_and_teacher():
    found = estimates(rows("aaab" * 5, "aabb" * 5, "abbb" * 5), least=10)
    assert (found["rows"], found["truth_rows"]) == (20, 20)
    assert found["accuracy"] == 0.5 and found["teacher_accuracy"] == 0.75 and found["agreement"] == 0.75
    assert 0.5 < found["agreement_lower"] < 0.75 < found["agreement_upper"]
    assert 0.3 < found["ece"] < 0.4  # the plain one is 0.4; what chance adds is taken off
    assert found["worst_slice_accuracy"] == pytest.approx(1 / 3)
    assert (
        found["student_entropy"] == pytest.approx(0.3)
        and found["entropy_gap"] == 0.0
        and found["mutual_information"] is None
    )


def test_rows_without_truth_count_for_the_teacher_only():
    found = estimates(rows("aaaa", "aaab", ["a", None, None, "b"]), least=2)
    assert found["accuracy"] == 0.5 and found["truth_rows"] == 2
    assert found["agreement"] == 0.75 and found["rows"] == 4


def unsure(wrong, right, weights=None):
    """Answers of which the unsure ones disagree with the teacher and the sure ones do not."""
    made = rows("b" * wrong + "a" * right, "a" * (wrong + right), [None] * (wrong + right), weights=weights)
    return [
        replace(row, candidate=said(row.candidate.label, 0.6 if row.candidate.label == "b" else 0.9)) for row in made
    ]


def test_the_limit_leaves_out_what_disagrees():
    found = deferral(unsure(100, 300), 0.05)
    assert 0.6 < found["defer_below"] <= 0.62 and found["defer_kept"] == 0.75
    assert deferral(unsure(0, 20), 0.05) == {"defer_below": None, "defer_kept": None}


def test_a_limit_of_a_regression_is_one_of_its_scales():
    made = numbers([9.0] * 100, [0.0] * 100, [0.0] * 100, scale=4.0) + numbers([0.0] * 300, [0.0] * 300, [0.0] * 300)
    found = deferral(made, 0.05)
    assert 0.2 < found["defer_below"] <= 0.5 and found["defer_kept"] == 0.75


def test_rows_of_small_weight_certify_no_limit():
    """Many rows that a policy picked and a few that stand for nearly all of the traffic: too few to show anything."""
    assert deferral(unsure(0, 330), 0.05)["defer_below"] == 0.0
    assert deferral(unsure(0, 330, [0.01] * 300 + [1.0] * 30), 0.05)["defer_below"] is None


def test_rows_count_by_their_weights():
    made = rows("aaxx", "aaaa", ["a", "a", "a", None], "aaax", weights=[1.0, 1.0, 2.0, 4.0])
    found = estimates(made, least=2)
    assert found["accuracy"] == 0.5 and found["agreement"] == 0.25 and found["teacher_accuracy"] == 1.0
    assert found["loss"] == pytest.approx(0.5)


def test_uneven_weights_lower_the_bound():
    even = rows("a" * 30, "a" * 30, "a" * 30)
    uneven = rows("a" * 30, "a" * 30, "a" * 30, weights=[1.0] * 29 + [30.0])
    bounds = [estimates(x)["agreement_lower"] for x in (even, uneven)]
    assert bounds[1] < bounds[0] - 0.2


def test_what_is_looked_at_repeatedly_has_wider_bounds_and_needs_rows_that_count_alike():
    made = rows("a" * 60, "a" * 60, "a" * 60, "a" * 60)
    once, often = estimates(made), estimates(made, repeated=True)
    assert once["agreement_lower"] > often["agreement_lower"] > 0.85
    assert once["loss_upper"] < often["loss_upper"] < 0.3
    weighed = [msgspec.structs.replace(r, weight=2.0 - (i < 40), audit=i < 40) for i, r in enumerate(made)]
    assert measured(weighed, repeated=True)["agreement"].n == 40


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_too_few_rows_are_no_measurement(task):
    made = rows("aaa", "aaa", "aaa", "aaa") if task == "classification" else numbers([1.0], [1.0], [1.0], [1.0])
    found = measured(made, least=4, task=task)
    counts = {"rows", "truth_rows", "teacher_entropy", "student_entropy", "entropy_gap"}
    assert counts <= found.keys() and all(v is None for k, v in found.items() if k not in counts)


def test_no_rows_at_all_are_no_error():
    assert measured([])["accuracy"] is None
    assert confusion([]) == {"labels": [], "matrix": []}


def test_small_slices_are_not_judged():
    made = rows("a" * 12 + "x" * 3, "a" * 15, "a" * 12 + "b" * 3, "a" * 15)
    assert slice_accuracies(made) == {"a": 1.0}
    assert [n for n in measured(made) if n.startswith("slice_loss")] == ["slice_loss[a]"]
    assert measured(rows("aaa", "aaa", "aaa"))["worst_slice_accuracy"] is None


def test_regression_has_errors_in_its_unit_and_agreement_within_the_teacher_s_scales():
    made = numbers([1.0, 2.0, 9.0, 4.0], [1.5, 3.9, 3.0, 4.0], [1.0, 4.0, 9.0, 4.0])
    found = estimates(made, task="regression", least=2)
    assert found["rmse"] == 1.0 and found["mae"] == 0.5
    assert found["agreement"] == 0.75 and found["coverage"] == 0.75
    assert found["rmse_upper"] > 1.0 and "accuracy" not in found


def test_loss_is_what_the_champion_had_more():
    assert estimates(rows("aaxx", "aaaa", "aaaa", "aaax"), least=4)["loss"] == 0.25
    assert estimates(rows("aaax", "aaaa", "aaaa", "aaxx"), least=4)["loss"] == -0.25
    assert estimates(rows("aaax", "aaaa", "aaaa", "aaxx"), least=5)["loss"] is None


def test_loss_of_a_regression_is_the_relative_rise_of_its_error():
    truth = [0.0, 0.0]

    def loss(mine, theirs, name="loss"):
        return estimates(numbers(mine, truth, truth, theirs), task="regression")[name]

    assert loss([2.0, 2.0], [1.0, 1.0]) == 1.0 and loss([1.0, 1.0], [2.0, 2.0]) == -0.5
    assert loss([3.0, 0.0], [1.0, 1.0], "mae_loss") == 0.5
    assert loss([1.0, 1.0], truth) > 1e6 and loss(truth, truth) == 0.0


def test_forgetting_is_the_worst_regime_s_and_each_has_its_own():
    fine = rows("aaaa", "aaaa", "aaaa", "aaax", set="regime window 1")
    forgot = rows("xxaa", "aaaa", "aaaa", "aaaa", set="regime window 2")
    found = estimates(fine + forgot, least=4)
    assert (found["forgetting"], found["forgetting[window 1]"], found["forgetting[window 2]"]) == (0.5, -0.25, 0.5)
    assert found["forgetting[window 2]_upper"] > 0.9
    assert measured(fine, least=4)["forgetting"] == -0.25


def test_what_was_not_looked_at_may_be_forgotten():
    fine = rows("aaaa", "aaaa", "aaaa", "aaaa", set="regime window 1")
    small = rows("a", "a", "a", "a", set="regime window 2")
    found = measured(fine + small, least=4)
    assert found["forgetting"] is None and found["forgetting[window 2]"] is None
    assert measured([], least=4)["forgetting"] is None


def test_robustness_is_the_loss_of_agreement_against_the_undisturbed_input():
    made = rows("aaxa", "aaaa", [None] * 4, "aaax", set="noise typos") + rows(
        "xx", "aa", [None] * 2, "aa", set="attack"
    )
    found = measured(made)
    assert (found["noise_loss[typos]"].lost, found["noise_loss[typos]"].won) == (1, 1)
    assert found["attack_loss"].value == 1.0


def window(truths):
    return Rows(payloads=[b"x"] * len(truths), soft=[soft("a")] * len(truths), truth=list(truths))


@given(st.lists(st.lists(st.sampled_from(["a", None]), max_size=8), max_size=8), st.integers(1, 6))
def test_pooling_keeps_all_rows_in_order_and_makes_no_small_group(windows, least):
    groups = [g for _, g in pooled([(str(i), window(w)) for i, w in enumerate(windows)], least)]
    assert [t for g in groups for t in g.truth] == [t for w in windows for t in w]
    counts = [sum(t is not None for t in g.truth) for g in groups]
    assert len(groups) <= 1 or min(counts) >= least
    assert groups or not any(windows)


def test_windows_that_are_large_enough_stay_by_themselves_and_groups_are_named():
    parts = ["aaa", "aa", "a", "aaaa", "a"]
    groups = pooled([(f"window {i}", window(w)) for i, w in enumerate(parts, start=1)], 3)
    assert [(n, len(g)) for n, g in groups] == [("window 1", 3), ("window 2-window 3", 3), ("window 4-window 5", 5)]


def test_confusion_counts_truth_or_the_teacher_s_label_by_answer():
    made = rows("abba", "abba", ["a", "b", "a", None])
    assert len(known(made)) == 3
    assert confusion(made) == {"labels": ["a", "b"], "matrix": [[1, 1], [0, 1]]}
    assert confusion(made, by_teacher=True) == {"labels": ["a", "b"], "matrix": [[2, 0], [0, 2]]}
