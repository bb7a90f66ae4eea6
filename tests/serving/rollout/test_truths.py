import random

import pytest

from components.contracts.records import Truth
from serving.rollout.evidence import Audited, Pending, Told
from serving.rollout.truths import Answer, Held, Match, TruthCounts, counts, judge


def truth(name, what="a", known_at=1.0, time=1.0):
    told = {"label": what} if isinstance(what, str) else {"value": what}
    return Truth(workload="w", input_id=name, time=time, known_at=known_at, source="desk", **told)


def answer(name, time=1.0, before=False, **labels):
    given = Pending(id=f"r-{name}", content="c", weight=0.0, **(labels or {"champion": "a", "candidate": "b"}))
    return Answer(name, time, given, before)


def held(**limits):
    made = Held(**limits)
    made.anew(0.0, TruthCounts(), 0.0)
    return made


@pytest.mark.parametrize("first", ["answer", "truth"])
def test_whichever_comes_first_waits_for_the_other(first):
    one = held()
    steps = [lambda: one.hold({}, [answer("i")]), lambda: one.learn(truth("i"), False)]
    if first == "truth":
        steps.reverse()
    assert steps[0]() == []
    assert steps[1]() == [Match(answer("i").given, "a")]


def test_a_truth_counts_once_and_what_comes_after_it_is_told_apart():
    one = held()
    one.hold({}, [answer("i")])
    found = [one.learn(truth("i", what), False) for what in ("a", "a", "b", "b", "a")]
    assert [len(matches) for matches in found] == [1, 0, 0, 0, 0]
    assert one.counted == TruthCounts(repeated=2, contradicting=2)
    assert one.hold({}, [answer("i")]) == []


def test_of_truths_before_the_answer_the_one_known_last_counts():
    one = held()
    for known_at, what in ((2.0, "new"), (1.0, "old")):
        one.learn(truth("i", what, known_at), False)
    assert one.hold({}, [answer("i")])[0].truth == "new"


def test_what_was_read_before_a_restart_is_held_and_counts_no_more():
    one = held()
    one.hold({}, [answer("counted", before=True), answer("waits", before=True)])
    assert one.learn(truth("counted"), True) == []
    assert [m.given.id for m in one.learn(truth("waits"), False)] == ["r-waits"]
    one.learn(truth("counted"), False)
    assert one.counted == TruthCounts(repeated=1)
    one.learn(truth("new"), True)
    assert len(one.hold({}, [answer("new")])) == 1


def test_memory_is_bounded_and_truths_that_come_too_late_are_counted():
    one = held(answers=10, truths=5)
    for n in range(35):
        one.hold({"p:0": n}, [answer(f"i{n}", time=float(n))])
    assert (len(one), one.since(), one.given_up_until) == (10, {"p:0": 25}, 24.0)
    for n in range(25):
        assert one.learn(truth(f"i{n}", time=float(n)), False) == []
    one.learn(truth("i3", time=3.0), False)
    one.learn(truth("never asked", time=50.0), False)
    assert one.counted == TruthCounts(late=26)
    one.hold({}, [answer("i-back", time=50.0)])
    assert len(one.learn(truth("i-back"), False)) == 1


def test_holding_again_from_since_gives_the_same_answers():
    chance, one = random.Random(0), held(answers=50)
    names, told = [f"i{n}" for n in range(300)], []
    for n, name in enumerate(names):
        one.hold({"p:0": n}, [answer(name)])
        if chance.random() < 0.5:
            told.append(f"i{chance.randrange(n + 1)}")
            one.learn(truth(told[-1]), False)
    again, at = held(answers=50), one.since()["p:0"]
    again.hold({"p:0": at}, [answer(name, before=True) for name in names[at:]])
    assert len(one) == len(again) == 50
    assert not any(again.learn(truth(name), True) for name in told)
    late = [[each.learn(truth(name), False) for name in names] for each in (one, again)]
    assert late[0] == late[1] and 10 < sum(map(len, late[0])) < 50


def test_what_is_known_of_a_former_rollout_s_answers_goes_with_it():
    one = held()
    one.hold({"p:0": 0}, [answer("i")])
    one.anew(5.0, TruthCounts(counted=3), 4.0)
    assert (len(one), one.since(), one.counted.counted) == (0, None, 3)
    assert one.learn(truth("i"), False) == [] and one.counted.late == 0


@pytest.mark.parametrize(
    ("given", "does"),
    [
        ({"champion": "a", "candidate": "b", "weight": 0.0}, True),
        ({"champion": "a", "candidate": "b", "weight": None}, True),
        ({"champion": "a", "weight": 0.0}, False),
        ({"champion": "a", "weight": 0.2}, True),
        ({"candidate": "a", "weight": 0.2}, True),
        ({"candidate": "a", "weight": None}, False),
    ],
)
def test_only_what_can_be_compared_is_held(given, does):
    assert counts(Pending(id="r", content="c", **given)) is does


def test_a_class_is_compared_by_name_and_a_value_by_the_teachers_scale():
    given = Pending(id="r", content="c", champion="a", candidate="b", weight=0.0)
    assert judge(Match(given, "a"), None) == Audited(id="r", champion=False, candidate=True, weight=0.0, by="truth")
    one = Pending(id="r", content="c", candidate="12.1", weight=0.2)
    assert judge(Match(one, 10.0), Told("t", "9.0", 1.0)) == Audited(id="r", candidate=True, weight=0.2, by="truth")
    assert judge(Match(one, 10.2), Told("t", "9.0", 1.0)).candidate is False
    assert judge(Match(one, 10.0), None) is None
