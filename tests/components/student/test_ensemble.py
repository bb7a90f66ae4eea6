import math

import pytest

from components.contracts.records import SoftLabel
from components.student.ensemble import disagreement


def said(*shares):
    return [SoftLabel(task="classification", space="s", distribution=share) for share in shares]


def test_disagreement_tells_unknown_inputs_from_hard_ones_across_label_spaces():
    one, other = said({"a": 1.0}, {"a": 0.5, "b": 0.5}), said({"new": 1.0}, {"b": 0.5, "a": 0.5})
    assert disagreement([one, other]) == pytest.approx([math.log(2), 0.0])


def test_one_student_alone_does_not_disagree_and_values_are_not_classes():
    assert disagreement([said({"a": 1.0})]) == disagreement([[], []]) == []
    value = [SoftLabel(task="regression", space="s", value=1.0, scale=1.0)]
    assert disagreement([value, value]) == []


def test_of_sets_it_is_the_sum_over_the_classes():
    one = [SoftLabel.multilabel("s", "ab", row) for row in ([1.0, 1.0], [0.5, 0.5], [1.0, 0.3])]
    other = [SoftLabel.multilabel("s", "ab", row) for row in ([0.0, 0.0], [0.5, 0.5], [0.0, 0.3])]
    assert disagreement([one, other]) == pytest.approx([2 * math.log(2), 0.0, math.log(2)])
