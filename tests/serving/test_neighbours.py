import dataclasses

import msgspec
import numpy as np
import pytest

from components.contracts.records import SoftLabel
from components.contracts.spec import Deferral, Factory
from components.student.features import featuriser
from serving.neighbours import PLACES, Neighbours


def words():
    """A featuriser of text."""
    return featuriser(Factory(factory="components.student.text:TextNgrams", options={"buckets": 4_096}))


def soft(label, p=0.9):
    classes = ("bank", "travel")
    return SoftLabel.of("s@1", classes, [p if c == label else 1.0 - p for c in classes])


BANK = ["what is my account balance", "transfer money to my account", "freeze my bank account now"]
TRAVEL = ["book a flight to rome", "is my flight to paris late", "which gate is the flight from rome"]


@pytest.fixture
def near():
    return Neighbours(words(), 100)


def shown(near, times=1):
    """It has seen the student wrong and the neighbours right."""
    for n in range(times):
        near.learn([*BANK, *TRAVEL], [soft("bank")] * 3 + [soft("travel", 0.8)] * 3, ["other"] * 6)
        near.learn([f"{t} please {n}" for t in (*BANK, *TRAVEL)], [soft("bank")] * 3 + [soft("travel")] * 3, ["x"] * 6)
    return near


def test_an_input_is_given_what_the_teacher_said_of_the_nearest(near):
    answers = shown(near).answers(["the balance of my account", "a flight from paris to rome"])
    assert [a.label for a in answers] == ["bank", "travel"]
    assert all(a in (soft("bank"), soft("travel"), soft("travel", 0.8)) for a in answers), "its soft label as it was"


def test_it_says_nothing_while_it_has_shown_nothing(near):
    near.learn([*BANK, *TRAVEL], [soft("bank")] * 3 + [soft("travel")] * 3, ["other"] * 6)
    assert near.answers([BANK[0]]) == [None], "the neighbours had said nothing before these were known"
    assert near.answers([]) == []


def test_it_does_not_speak_over_a_student_that_is_right(near):
    assert shown(near).answers(["request 7 for my account"]) != [None]
    for n in range(30):  # which of the two it is does not show in the words
        label = "bank" if n % 2 else "travel"
        near.learn([f"request {n}"], [soft(label)], [label])
    assert near.answers(["request 7 for my account"]) == [None]


def test_a_student_whose_answer_is_not_known_judges_nobody(near):
    near.learn(BANK, [soft("bank")] * 3, ["x"] * 3)
    before = near.tracking
    near.learn([f"{t} please" for t in BANK], [soft("bank")] * 3, [""] * 3)
    assert near.tracking == before


def test_what_has_nothing_in_common_has_no_neighbour(near):
    assert shown(near).answers([""]) == [None]


def test_unrelated_texts_are_no_neighbours_by_chance():
    """Of 2,000 of other letters some sketch is always a little alike."""
    chance = np.random.default_rng(0)
    texts, others = (
        [" ".join("".join(chance.choice(list(letters), 6)) for _ in range(8)) for _ in range(n)]
        for letters, n in (("abcdefghijklm", 2_000), ("nopqrstuvwxyz", 100))
    )
    near = Neighbours(featuriser(Factory(factory="components.student.text:TextNgrams")), 2_000)
    near.learn(texts, [soft("bank")] * 2_000, [""] * 2_000)
    near.tracking = dataclasses.replace(near.tracking, weight=0.9)
    assert near.answers(others).count(None) >= 99
    assert near.answers([f"{text} please" for text in texts[:50]]) == [soft("bank")] * 50


def test_the_oldest_go_first(near):
    few = Neighbours(words(), 6)
    shown(few)
    few.learn([f"route {n} by train" for n in range(6)], [soft("travel")] * 6, ["x"] * 6)
    assert [a.label for a in few.answers(["what is my account balance"]) if a] in ([], ["travel"])
    assert [a.label for a in shown(near).answers(["what is my account balance"])] == ["bank"]


def test_all_is_forgotten_at_once(near):
    shown(near).forget()
    assert near.tracking.weight < 0.5 and near.answers(BANK) == [None] * 3


def test_sketches_are_fine_enough_to_find_the_nearest():
    """Of texts that differ in one word of six the nearest is nearly always the one with the same others."""
    chance = np.random.default_rng(0)
    vocabulary = [f"w{n:03d}" for n in range(300)]
    texts = [" ".join(chance.choice(vocabulary, 6, replace=False)) for _ in range(300)]
    near = Neighbours(words(), 300)
    classes = tuple(f"c{n}" for n in range(300))
    said = [SoftLabel.of("s@1", classes, [float(n == m) for m in range(300)]) for n in range(300)]
    near.learn(texts, said, [""] * 300)
    near.tracking = dataclasses.replace(near.tracking, weight=0.9)
    found = near.answers([" ".join([*t.split()[:5], "other"]) for t in texts])
    assert sum(f.label == s.label for f, s in zip(found, said, strict=True)) >= 295
    assert PLACES == 1_024


def test_a_spec_that_wants_none_has_none(spec):
    assert Neighbours.of(spec) is None
    wanted = msgspec.structs.replace(spec, serve=msgspec.structs.replace(spec.serve, deferral=Deferral(neighbours=5)))
    assert Neighbours.of(wanted) is not None
