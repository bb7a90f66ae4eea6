import pytest

from components.contracts.records import SoftLabel
from components.student.parity import parity


def soft(**distribution):
    return SoftLabel(task="classification", space="s", distribution=distribution)


def value(v, scale=1.0):
    return SoftLabel(task="regression", space="u", value=v, scale=scale)


def test_equal_answers_have_no_gap():
    found = parity([soft(a=1.0), soft(b=1.0)], [soft(a=1.0), soft(b=1.0)])
    assert (found.gap, found.largest) == (0.0, 0.0)


def test_counts_labels_and_finds_the_largest_difference():
    found = parity([soft(a=0.6, b=0.4), soft(a=0.9, b=0.1)], [soft(a=0.4, b=0.6), soft(a=0.8, c=0.2)])
    assert found.gap == 0.5
    assert found.largest == pytest.approx(0.2)


def test_regression_answers_are_compared_in_scales_of_the_reference():
    found = parity([value(10.0, 2.0), value(10.0, 2.0)], [value(10.1, 9.0), value(10.5, 9.0)])
    assert found.gap == 0.5
    assert found.largest == pytest.approx(0.25)


def test_of_nothing_nothing_is_known():
    assert parity([], []) is None


def test_refuses_sequences_of_different_lengths():
    with pytest.raises(ValueError, match="shorter"):
        parity([soft(a=1.0), soft(a=1.0)], [soft(a=1.0)])
