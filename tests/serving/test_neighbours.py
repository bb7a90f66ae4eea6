from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from components.contracts.records import SoftLabel
from components.contracts.spec import Deferral, Factory, Label
from components.contracts.spec.label import Budget
from components.student.features import TensorSpec, featuriser
from drift.tracking import Tracking
from serving.neighbours import PLACES, VERSIONS, Asked, Neighbours

ALWAYS = Tracking(weights=(1.0, *[0.0] * (len(Tracking().weights) - 1)))
"""The second is followed whatever the score."""


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


def learn(near, texts, said, students, need=0.9, version="1"):
    near.learn([Asked(t, s, student, version, need) for t, s, student in zip(texts, said, students, strict=True)])


def asked(near, *texts, need=0.9, version="1"):
    return near.answers(texts, [need] * len(texts), [version] * len(texts))


def shown(near, times=1):
    """It has seen the student wrong and the neighbours right."""
    for n in range(times):
        learn(near, [*BANK, *TRAVEL], [soft("bank")] * 3 + [soft("travel", 0.8)] * 3, ["other"] * 6)
        again = [f"{t} please {n}" for t in (*BANK, *TRAVEL)]
        learn(near, again, [soft("bank")] * 3 + [soft("travel")] * 3, ["x"] * 6)
    return near


def test_an_input_is_given_what_the_teacher_said_of_the_nearest(near):
    answers = asked(shown(near), "the balance of my account", "a flight from paris to rome")
    assert [a.label for a in answers] == ["bank", "travel"]
    assert all(a in (soft("bank"), soft("travel"), soft("travel", 0.8)) for a in answers), "its soft label as it was"


def test_it_says_nothing_while_it_has_shown_nothing(near):
    learn(near, [*BANK, *TRAVEL], [soft("bank")] * 3 + [soft("travel")] * 3, ["other"] * 6)
    assert asked(near, BANK[0]) == [None], "the neighbours had said nothing before these were known"
    assert asked(near) == []


def test_it_does_not_speak_over_a_student_that_is_right(near):
    assert asked(shown(near), "request 7 for my account") != [None]
    for n in range(30):  # which of the two it is does not show in the words
        label = "bank" if n % 2 else "travel"
        learn(near, [f"request {n}"], [soft(label)], [label])
    assert asked(near, "request 7 for my account") == [None]


def test_what_it_showed_where_the_student_was_not_sure_says_little_of_where_it_is(near):
    """The teacher is asked about what the student is not sure of, and others are to be answered."""
    assert asked(shown(near, 5), "freeze my account please", need=0.8) == [soft("bank")]
    assert asked(near, "freeze my account please", need=0.05) == [None]


def test_it_speaks_where_it_was_right_and_not_where_it_was_wrong(near):
    for n in range(40):  # where the need is little the student knows, and else the neighbours do
        label = "bank" if n % 2 else "travel"
        learn(near, [f"request {n}"], [soft(label)], [label], need=0.6)
        shown(near)
    assert asked(near, BANK[0], need=0.9) == [soft("bank")]
    assert asked(near, BANK[0], need=0.5) == [None]


def test_a_neighbour_that_is_less_alike_speaks_for_less(near):
    likely, far = "book a flight to rome", "a seat on the flight to oslo"
    assert [a and a.label for a in asked(shown(near, 5), likely, far, need=0.5)] == ["travel", None]
    assert [a and a.label for a in asked(near, far, need=1.0)] == ["travel"], "where the need is greater"


def test_a_student_whose_answer_is_not_known_judges_nobody(near):
    learn(near, BANK, [soft("bank")] * 3, ["x"] * 3)
    before = near.tracking("1")
    learn(near, [f"{t} please" for t in BANK], [soft("bank")] * 3, [""] * 3)
    assert near.tracking("1") == before


def test_what_one_version_did_says_nothing_of_another(near):
    """A candidate that is wrong, or a champion that is no more, takes no answer from the champion that serves."""
    shown(near, 5)
    assert asked(near, BANK[0], version="1") == [soft("bank")]
    assert asked(near, BANK[0], version="2") == [None]
    assert near.answers([BANK[0]] * 2, [0.9] * 2, ["2", "1"]) == [None, soft("bank")]
    for n in range(VERSIONS):
        learn(near, BANK, [soft("bank")] * 3, ["x"] * 3, version=f"new-{n}")
    assert near.tracking("1") == Tracking(), "who did nothing lately is no more known"


def test_an_input_whose_features_are_not_finite_silences_nobody():
    numbers = SimpleNamespace(
        signature={"x": TensorSpec(dtype="float32", shape=("batch", 2))},
        encode=lambda payloads: {"x": np.array(payloads, dtype=np.float32)},
    )
    near = Neighbours(numbers, 50)
    good = [(1.0, 2.0), (1.1, 2.1), (0.9, 1.9)]
    learn(near, [(np.inf, 1.0), (np.nan, 1.0)], [soft("travel")] * 2, ["x"] * 2)
    for _ in range(4):
        learn(near, good, [soft("bank")] * 3, ["x"] * 3)
    assert asked(near, (1.0, 2.0), (np.inf, 0.0)) == [soft("bank"), None]


def test_what_has_nothing_in_common_has_no_neighbour(near):
    assert asked(shown(near), "") == [None]


def test_unrelated_texts_are_no_neighbours_by_chance():
    """Of 2,000 of other letters some sketch is always a little alike."""
    chance = np.random.default_rng(0)
    texts, others = (
        [" ".join("".join(chance.choice(list(letters), 6)) for _ in range(8)) for _ in range(n)]
        for letters, n in (("abcdefghijklm", 2_000), ("nopqrstuvwxyz", 100))
    )
    near = Neighbours(featuriser(Factory(factory="components.student.text:TextNgrams")), 2_000)
    learn(near, texts, [soft("bank")] * 2_000, [""] * 2_000)
    near._tracking["1"] = ALWAYS
    assert asked(near, *others).count(None) >= 99
    assert asked(near, *[f"{text} please" for text in texts[:50]]) == [soft("bank")] * 50


def test_the_oldest_go_first(near):
    few = Neighbours(words(), 6)
    shown(few)
    learn(few, [f"route {n} by train" for n in range(6)], [soft("travel")] * 6, ["x"] * 6)
    assert [a.label for a in asked(few, "what is my account balance") if a] in ([], ["travel"])
    assert [a.label for a in asked(shown(near), "what is my account balance")] == ["bank"]


def test_all_is_forgotten_at_once(near):
    shown(near).forget()
    assert near.tracking("1") == Tracking() and asked(near, *BANK) == [None] * 3


def test_sketches_are_fine_enough_to_find_the_nearest():
    """Of texts that differ in one word of six the nearest is nearly always the one with the same others."""
    chance = np.random.default_rng(0)
    vocabulary = [f"w{n:03d}" for n in range(300)]
    texts = [" ".join(chance.choice(vocabulary, 6, replace=False)) for _ in range(300)]
    near = Neighbours(words(), 300)
    classes = tuple(f"c{n}" for n in range(300))
    said = [SoftLabel.of("s@1", classes, [float(n == m) for m in range(300)]) for n in range(300)]
    learn(near, texts, said, [""] * 300)
    near._tracking["1"] = ALWAYS
    found = asked(near, *[" ".join([*t.split()[:5], "other"]) for t in texts])
    assert sum(f.label == s.label for f, s in zip(found, said, strict=True)) >= 295
    assert PLACES == 1_024


def test_a_spec_has_them_where_there_is_a_budget_and_it_does_not_say_otherwise(spec):
    assert Neighbours.of(spec) is None, "it has no budget"
    limited = msgspec.structs.replace(spec, label=Label(budget=Budget(per_day=9.0)))
    assert Neighbours.of(limited) is not None
    none = msgspec.structs.replace(spec.serve, deferral=Deferral(neighbours=0))
    assert Neighbours.of(msgspec.structs.replace(limited, serve=none)) is None
    wanted = msgspec.structs.replace(spec.serve, deferral=Deferral(neighbours=5))
    assert Neighbours.of(msgspec.structs.replace(spec, serve=wanted)) is not None
