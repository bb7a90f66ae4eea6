"""Probes within a label budget: every call is counted before it is made, and what is too much now is asked later."""

import itertools

import pytest

from components.contracts.errors import TeacherError, TeacherHeldError
from components.contracts.records import Input
from components.contracts.spec import Budget as Limits
from components.contracts.spec import Probe as Watch
from components.control.teachers import decide, incidents
from components.label.asking import Asking, Company
from components.label.intake import Work
from components.label.isolate import isolate
from components.query.budget import Budget
from components.query.selector import Selector
from components.stream.contract import Record
from components.teacher_watch.probes import NOISY_ANSWERS
from components.teacher_watch.probing import Measurement, Prober
from tests.components.teacher_watch.conftest import NOW, Changing

HOUR = 3_600


@pytest.fixture
def budget(store, clock):
    def make(per_hour):
        return Budget(Limits(per_hour=per_hour, reserve=0.0, paced=False), "w", store, clock=clock)

    return make


def asked(teacher):
    return sum(teacher.calls)


def spent(budget):
    return budget.spending()["hour"].calls


# A measurement


def measured(watch, batch, answer, contents="abcdefg", most=99):
    measurement, companies = Measurement({c: c for c in contents}, watch, batch), []
    while piece := measurement.piece()[:most]:
        companies.append(tuple(piece))
        measurement.take(piece, [answer(c) for c in piece])
    return measurement.answers(), companies


def test_every_round_of_a_measurement_has_another_company():
    answers, companies = measured(Watch(repeats=3), 4, Changing().answer)
    assert {len(a) for a in answers.values()} == {3}
    assert companies == [
        tuple("abcd"),
        tuple("efg"),
        tuple("gf"),
        tuple("ed"),
        tuple("cb"),
        tuple("a"),
        *((c,) for c in "abcdefg"),
    ]


@pytest.mark.parametrize("most", [1, 3])
def test_a_measurement_goes_on_where_it_was_stopped(most):
    answers, companies = measured(Watch(repeats=3), 4, Changing().answer, most=most)
    assert answers == measured(Watch(repeats=3), 4, Changing().answer)[0]
    assert sum(map(len, companies)) == 3 * 7, "nothing is asked twice"


def test_a_teacher_that_repetition_moves_is_asked_more_often():
    turns = itertools.cycle(["a", "bb"])
    answers, _ = measured(Watch(repeats=2), 3, lambda c: Changing().answer(c + next(turns)))
    assert {len(a) for a in answers.values()} == {NOISY_ANSWERS}


# The budget


@pytest.mark.parametrize("per_hour", [25, 60, 333])
def test_calls_for_inputs_and_probes_together_never_exceed_the_budget(begin, budget, clock, per_hour):
    """Inputs are reserved as a labeler does it; through starts, a set, rounds, a suspicion and a decision."""
    money, teacher = budget(per_hour), Changing()
    loops = [begin(teacher, budget=money, share=0.1)]
    for hour in range(1, 13):
        before = asked(teacher)
        for n in range(60):
            granted = money.reserve(0, 10)
            try:
                if granted.calls:
                    loops[-1].step([f"{hour} {n} {i}" for i in range(granted.calls)])
            except TeacherHeldError:
                pass
            money.settle(granted, granted.calls)
            assert asked(teacher) - before <= per_hour
        if hour == 4:
            loops.append(begin(teacher, budget=money, share=0.1))
        if hour == 6:
            teacher.share = 0.5
        if hour == 10 and loops[-1].guard.state.status == "suspect":
            decide(loops[-1].guard.store, "w", "reject", "ada", "no")
        clock.now = NOW - NOW % HOUR + hour * HOUR + 1
    assert sum(loop.guard.counts["probed"] for loop in loops) > 0


def test_every_probe_is_counted(begin, budget):
    money, teacher = budget(100_000), Changing()
    for _ in range(2):
        begin(teacher, budget=money).many(300)
    teacher.share = 0.5
    begin(teacher, budget=money).many(300)
    inputs = asked(teacher) - spent(money)
    assert inputs == 610, "one batch went to quarantine"


def test_a_start_takes_half_of_what_is_left_and_asks_the_rest_later(begin, budget, clock):
    begin().many(300)
    money, teacher = budget(40), Changing()
    loop = begin(teacher, budget=money)
    loop.step(["x"])
    assert 20 <= asked(teacher) - 1 <= 40 and loop.guard.counts["probes_put_off"] > 0
    clock.now += HOUR
    loop.many(100)
    assert loop.guard.counts["probed"] >= 60


def test_a_change_found_with_little_budget_is_an_alarm_at_once_and_measured_later(begin, budget, store, clock):
    begin().many(300)
    money = budget(40)
    loop = begin(Changing(share=0.5), budget=money)
    assert loop.step(["x"]) == "w.labels.quarantine"
    (incident,) = incidents(store, "w")
    assert incident.candidate == [] and len(list(store.alarms("w"))) == 1
    for _ in range(20):
        clock.now += HOUR
        loop.step([f"{clock.now}"])
    (incident,) = incidents(store, "w")
    assert len(incident.candidate) == 60 and not incident.mixed
    decide(store, "w", "accept", "ada", "fine")
    assert loop.many(100) == 100 and len(incidents(store, "w")) == 1


def test_another_start_measures_what_was_left(begin, budget, store, clock):
    begin().many(300)
    changed = Changing(share=0.5)
    begin(changed, budget=budget(40)).step(["x"])
    assert begin(changed).step(["y"]) == "w.labels.quarantine"
    assert len(incidents(store, "w")[0].candidate) == 60


def test_a_change_that_is_accepted_before_it_is_measured_begins_a_new_set(begin, budget, store):
    begin().many(300)
    loop = begin(Changing(share=0.5), budget=budget(40))
    loop.step(["x"])
    decide(store, "w", "accept", "ada", "fine")
    assert loop.step(["y"]) == "w.labels" and not loop.guard.state.probes


def test_a_rejected_teacher_is_asked_a_batch_at_a_time_and_comes_back_within_a_small_budget(
    begin, budget, store, clock
):  # fmt: skip
    begin().many(300)
    money, teacher = budget(50), Changing(share=0.5)
    loop = begin(teacher, budget=money)
    loop.step(["x"])
    decide(store, "w", "reject", "ada", "no")
    clock.now += HOUR
    with pytest.raises(TeacherHeldError):
        loop.step(["y"])
    teacher.share = 0.0
    for _ in range(10):
        clock.now += HOUR
        try:
            loop.step([f"z{clock.now}"])
        except TeacherHeldError:
            continue
        break
    assert loop.guard.state.status == "trusted"


def test_a_rejected_teacher_that_stays_as_it_is_costs_one_batch_each_time(begin, store, clock):
    begin().many(300)
    teacher = Changing(share=0.5)
    loop = begin(teacher)
    loop.step(["x"])
    decide(store, "w", "reject", "ada", "no")
    costs = []
    for n in range(4):
        before = asked(teacher)
        with pytest.raises(TeacherHeldError):
            loop.step([f"y{n}"])
        costs.append(asked(teacher) - before)
        clock.now += 6
    assert costs == [0, 10, 10, 10], "it was measured a moment before"


def test_inputs_are_asked_again_without_probes_only_if_that_is_paid_for(budget):
    class Picky(Changing):
        def label(self, payloads):
            if "probe" in payloads:
                raise TeacherError(self.name, "against the rules")
            return super().label(payloads)

    money = budget(5)
    prober = Prober(Picky(), 10, money)
    found, answers = prober.mixed(["a", "b", "c"], ["probe"])
    assert len(found) == 3 and answers == [] and spent(money) == 3
    with pytest.raises(TeacherError, match="rules"):
        prober.mixed(["a", "b", "c"], ["probe"])
    assert spent(money) == 3


# Proof that the teacher answers


def test_a_probe_proves_that_the_teacher_answers(begin, watched):
    class Picky(Changing):
        def label(self, payloads):
            if "bad" in payloads:
                raise KeyError("no such token")
            return super().label(payloads)

    begin().many(100)
    guard = begin(Picky()).guard
    asking = Asking(guard.spec, guard.teacher, company=Company(guard=guard, selector=Selector(watched)))
    record = Record("w.inputs", 0, 0, b"k", b"", {}, NOW)
    entry = Input(workload="w", id="i", key="k", time=NOW, payload=b"bad")
    found = isolate(asking, [Work(record, entry, "key", "c", "bad")])
    assert [e.reason for _, e in found.refused] == ["teacher_failed"]
