"""Which input is to blame, by a teacher that fails as a script says. ``asked`` are the batches in order."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.errors import TeacherError, UnansweredError, UnavailableError
from components.contracts.records import Input, SoftLabel
from components.contracts.spec import Factory, Payload, Spec
from components.contracts.spec import Label as LabelSection
from components.label.asking import Asking
from components.label.intake import Work
from components.label.isolate import isolate
from components.stream.contract import Record

SPEC = Spec(
    name="w", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"), payload=Payload(decoder="text"),
    label=LabelSection(reuse=0),
)  # fmt: skip


class Teacher:
    name, digest, task, space, classes, size_bytes = "t", "1", "classification", "s@1", ("a", "b"), 1

    def __init__(self, bad=(), away=()):
        self.bad, self.away, self.asked = set(bad), set(away), []

    def label(self, payloads):
        self.asked.append(list(payloads))
        if len(self.asked) in self.away or self.bad & set(payloads):
            raise TeacherError("t", "fails")
        return [SoftLabel.of(self.space, self.classes, [0.9, 0.1]) for _ in payloads]


def work(n):
    entry = Input(workload="w", id=f"i{n}", key="k", time=1.0, payload=b"%d" % n)
    return Work(Record("w.inputs", 0, n, b"k", b"", {}, 1.0), entry, f"key{n}", f"c{n}", n)


def sought(teacher, n, known=True, waiting=()):
    asking = Asking(SPEC, teacher)
    if known:
        asking.label([work(-1)])
    return isolate(asking, [work(i) for i in range(n)], lambda: [work(i) for i in waiting])


def ids(found):
    return [x.payload for x, _ in found]


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_every_input_is_labelled_or_blamed_and_only_the_bad_ones_are(case):
    n, bad = case
    found = sought(Teacher(bad), n)
    assert sorted(ids(found.refused)) == sorted(bad)
    assert sorted(ids(found.labels)) == sorted(set(range(n)) - bad)
    assert {e.reason for _, e in found.refused} <= {"teacher_failed"}


class Unanswered(Teacher):
    """A remote teacher, whose server gives a batch with a bad input no answer; it says which input that was."""

    def __init__(self, bad):
        super().__init__(bad)
        self.entered = []

    @contextlib.contextmanager
    def past_breaker(self, once):
        self.entered.append(once)
        yield

    def label(self, payloads):
        self.asked.append(list(payloads))
        if found := tuple(p for p in payloads if p in self.bad):
            raise UnansweredError("teacher t", "url", "HTTP 500", found)
        return [SoftLabel.of(self.space, self.classes, [0.9, 0.1]) for _ in payloads]


def test_inputs_that_a_server_does_not_answer_are_blamed_and_asked_for_apart_at_once():
    teacher = Unanswered({13, 40})
    found = sought(teacher, 64)
    assert sorted(ids(found.refused)) == [13, 40] and len(found.labels) == 62
    rest = [n for n in range(64) if n not in (13, 40)]
    assert teacher.asked[1:7] == [list(range(64)), [-1], rest, [13, 40], [0], [13]]
    assert teacher.entered == [True, False], "sought by single requests, and blamed after all attempts"


def test_an_outage_that_says_nothing_of_an_input_ends_the_search():
    teacher = Unanswered(set())
    asking = Asking(SPEC, teacher)
    asking.label([work(-1)])

    def away(payloads):
        raise UnavailableError("teacher t", "url", "nobody listens")

    teacher.label = away
    with pytest.raises(UnavailableError, match="nobody listens"):
        isolate(asking, [work(0), work(1)])


def test_one_bad_input_costs_a_few_calls():
    teacher = Teacher({13})
    sought(teacher, 64)
    assert len(teacher.asked) < 30


@given(st.sets(st.integers(2, 30)), st.booleans())
def test_a_teacher_that_is_away_now_and_then_blames_nobody(away, known):
    """Whichever calls fail, good inputs are labelled or asked for again, unless one fails alone twice."""
    teacher = Teacher(away=away)
    try:
        found = sought(teacher, 8, known)
    except TeacherError:
        return
    for blamed in ids(found.refused):
        lone = [i for i, batch in enumerate(teacher.asked, 1) if batch == [blamed]]
        assert len(lone) == 2 and set(lone) <= away


def test_the_end_of_an_outage_blames_nobody():
    for last in range(2, 20):
        teacher = Teacher(away=range(2, last))
        try:
            assert sought(teacher, 8).refused == []
        except TeacherError:
            continue


def test_the_end_of_an_outage_blames_nobody_where_nothing_was_answered_before():
    for last in range(1, 20):
        try:
            assert sought(Teacher(away=range(1, last)), 8, known=False).refused == []
        except TeacherError:
            continue


def test_where_nothing_is_proven_nobody_is_blamed():
    teacher = Teacher({0})
    with pytest.raises(TeacherError):
        sought(teacher, 1, known=False)
    teacher = Teacher(range(64))
    with pytest.raises(TeacherError):
        sought(teacher, 64, known=False)
    assert len(teacher.asked) < 12


def test_an_input_that_waits_proves_that_the_teacher_answers():
    teacher = Teacher({0, 7})
    found = sought(teacher, 1, known=False, waiting=[7, 8, 9])
    assert ids(found.refused) == [0] and [9] not in [[int(p) for p in asked] for asked in teacher.asked]


def test_inputs_that_wait_blame_nobody_in_an_outage():
    with pytest.raises(TeacherError):
        sought(Teacher(range(20)), 1, known=False, waiting=range(10, 20))
    for last in range(1, 20):
        try:
            assert sought(Teacher(away=range(1, last)), 1, known=False, waiting=[5, 6]).refused == []
        except TeacherError:
            continue
