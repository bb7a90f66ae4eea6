from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.verdict import Labelled, Letter, Produced, Verdict, check

IN, URGENT = "w.inputs", "w.inputs.urgent"
INPUTS = [Produced("a", IN, 0, 0, "red"), Produced("b", URGENT, 0, 0, "blue"), Produced("p", IN, 1, 0, None)]
LABELS = [Labelled("a", "red"), Labelled("b", "blue")]
LETTERS = [Letter(IN, 1, 0)]


def test_one_label_or_letter_for_each_input_is_good():
    verdict = check(INPUTS, LABELS, LETTERS)
    assert verdict == Verdict() and verdict.good


def test_what_has_neither_is_lost():
    assert check(INPUTS, LABELS[1:], []) == Verdict(lost=("a", "p"))


def test_two_labels_two_letters_or_one_of_each_are_duplicates():
    assert check(INPUTS, [*LABELS, LABELS[0]], LETTERS * 2) == Verdict(duplicated=("a", "p"))
    both = check(INPUTS, LABELS, [*LETTERS, Letter(URGENT, 0, 0)])
    assert both.duplicated == ("b",) and both.misfiled == ("b",)


def test_poison_with_a_label_and_a_good_input_among_the_dead_are_misfiled():
    verdict = check(INPUTS, [LABELS[0], Labelled("p", "red")], [Letter(URGENT, 0, 0)])
    assert verdict == Verdict(misfiled=("b", "p")) and not verdict.good


def test_a_label_that_the_teacher_did_not_give_is_wrong():
    assert check(INPUTS, [Labelled("a", "blue"), LABELS[1]], LETTERS) == Verdict(wrong=("a",))


def test_labels_and_letters_of_what_nobody_produced_are_unknown():
    verdict = check(INPUTS, [*LABELS, Labelled("x", "red")], [*LETTERS, Letter(IN, 7, 3)])
    assert verdict == Verdict(unknown=("w.inputs-7@3", "x"))


def test_an_input_that_stands_twice_in_its_topic_needs_one_label():
    twice = [*INPUTS, Produced("a", IN, 0, 9, "red")]
    assert check(twice, LABELS, LETTERS).good
    assert check(twice, [*LABELS, LABELS[0]], LETTERS).duplicated == ("a",)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=30))
def test_times_seen_decide(cases):
    inputs = [Produced(str(n), IN, n % 3, n, None if poison else "red") for n, (poison, _) in enumerate(cases)]
    seen = [p for p, (_, times) in zip(inputs, cases, strict=True) for _ in range(times)]
    labels = [Labelled(p.id, "red") for p in seen if p.answer]
    letters = [Letter(p.topic, p.partition, p.offset) for p in seen if not p.answer]
    verdict = check(inputs, labels, letters)
    assert set(verdict.lost) == {str(n) for n, (_, times) in enumerate(cases) if times == 0}
    assert set(verdict.duplicated) == {str(n) for n, (_, times) in enumerate(cases) if times > 1}
    assert not (verdict.misfiled or verdict.wrong or verdict.unknown)
