import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.records import SoftLabel
from components.distill.grow import classes_of, grow_head

NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1)


def head(classes, width=3):
    chance = np.random.default_rng(1)
    return {
        "head.weight": chance.standard_normal((len(classes), width)).astype(np.float32),
        "head.bias": chance.standard_normal(len(classes)).astype(np.float32),
        "hidden.bias": np.ones(width, np.float32),
    }


@given(NAMES, NAMES)
def test_rows_of_old_classes_are_kept_exactly_and_new_ones_start_near_zero(old, more):
    new = [*old, *(c for c in more if c not in old)]
    before = head(old)
    after = grow_head(before, "head", old, new, seed=0)
    assert after["head.weight"].shape == (len(new), 3) and after["head.weight"].dtype == np.float32
    assert np.array_equal(after["head.weight"][: len(old)], before["head.weight"])
    assert np.array_equal(after["head.bias"][: len(old)], before["head.bias"])
    assert np.abs(after["head.weight"][len(old) :]).max(initial=0) < 0.1
    assert np.allclose(after["head.bias"][len(old) :], before["head.bias"].mean())
    assert np.array_equal(after["hidden.bias"], before["hidden.bias"])


def test_a_label_space_only_grows():
    with pytest.raises(ValueError, match=r"\['b'\] would be lost"):
        grow_head(head("ab"), "head", "ab", "ac", seed=0)


def test_classes_keep_their_places_and_new_labels_follow_by_name():
    soft = [
        SoftLabel(task="classification", space="s", distribution=d)
        for d in ({"z": 0.9, "never": 0.1}, {"y": 1.0}, {"b": 1.0})
    ]
    assert classes_of(soft, ("c", "b")) == ("c", "b", "y", "z")
    assert classes_of([], ()) == ()


def test_the_classes_of_sets_are_those_that_some_answer_has():
    soft = [SoftLabel.multilabel("s", "abcd", row) for row in ([0.1, 0.9, 0.6, 0.4], [0.2, 0.7, 0.1, 0.1])]
    assert classes_of(soft, ["d"]) == ("d", "b", "c")
