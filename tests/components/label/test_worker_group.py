"""A labeler that runs: its threads, several of them at once, outages, and the end."""

import contextlib
import itertools
import threading
import time
from collections import deque

import msgspec
import pytest
from sqlalchemy.exc import OperationalError

from components.contracts.errors import FencedError, LostPositionsError, TeacherError, UnavailableError
from components.contracts.records import DeadLetter, Input, Label, SoftLabel, decode, encode
from components.contracts.spec import Factory, Payload, Spec
from components.contracts.spec import Label as LabelSection
from components.control.leases import Leases
from components.label import worker_group as groups
from components.label.asking import Asking
from components.label.intake import Intake
from components.label.labeler import Labeler
from components.stream.contract import TopicPartition
from components.stream.memory import MemoryBroker, MemoryTransactions
from tests.waiting import wait_for

PARTITIONS = 4


class Teacher:
    name, digest, task, space, classes, size_bytes = "t", "1", "classification", "s@1", ("a", "b"), 1

    def __init__(self, seconds=0.0, fails=lambda: False):
        self.seconds, self.fails, self.asked, self.busy = seconds, fails, [], threading.Lock()

    def label(self, payloads):
        assert self.busy.acquire(blocking=False), "one thread asks at a time"
        try:
            time.sleep(self.seconds)
            if self.fails():
                raise TeacherError("t", "away")
            self.asked += payloads
            return [SoftLabel.of(self.space, self.classes, [0.9, 0.1]) for _ in payloads]
        finally:
            self.busy.release()


@pytest.fixture
def spec():
    return Spec(
        name="w",
        teacher=Factory(factory="t:T"),
        features=Factory(factory="f:F"),
        payload=Payload(decoder="text"),
        label=LabelSection(batch=8, linger_seconds=0.0),
        partitions=PARTITIONS,
    )


@pytest.fixture
def broker(spec):
    broker = MemoryBroker()
    broker.ensure_topics(spec.topics, PARTITIONS)
    return broker


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Quick to try again, and to look; not to give up: whatever a machine does, what was asked for is committed."""
    monkeypatch.setattr("components.label.labeler.DRAIN_SECONDS", 80.0)
    monkeypatch.setattr(groups, "RETRY_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(groups, "REOPEN_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(groups, "BLAME_SECONDS", 0.2)
    monkeypatch.setattr("components.label.labeler.TEND_SECONDS", 0.01)


@pytest.fixture
def at_work(spec, broker):
    """Labelers that run until the test ends; ``error`` is what ended one."""
    with contextlib.ExitStack() as stack:

        def start(teacher=None, leases=None, **changes):
            changed = msgspec.structs.replace(spec, label=msgspec.structs.replace(spec.label, **changes))
            labeler, stop = Labeler(changed, teacher or Teacher(), broker, leases=leases), threading.Event()
            labeler.error, labeler.reasons = None, []

            def work():
                try:
                    labeler.run(stop, on_batch=lambda: labeler.reasons.append(labeler.paused))
                except Exception as error:
                    labeler.error = error

            thread = threading.Thread(target=work)

            def end():
                stop.set()
                thread.join(90)
                assert not thread.is_alive()

            labeler.end, labeler.stop = end, stop
            thread.start()
            stack.callback(end)
            return labeler

        yield start


def put(broker, numbers, topic="w.inputs"):
    producer = broker.producer()
    for n in numbers:
        entry = Input(workload="w", id=f"i{n}", key=f"k{n}", time=1.0, payload=b"text %d" % n)
        producer.send(topic, entry.key, encode(entry))


def labels(broker):
    places = [TopicPartition("w.labels", n) for n in range(PARTITIONS)]
    return [decode(Label, r.value).input.id for p in places for r in list(broker.logs[p])]


def exactly(broker, n):
    found = labels(broker)
    assert len(found) == len(set(found)) and set(found) == {f"i{k}" for k in range(n)}


def test_every_input_gets_one_label_and_the_end_lets_go(broker, at_work):
    put(broker, range(300))
    labeler = at_work()
    wait_for(lambda: labeler.counts["labelled"] == 300)  # counted once they are there
    exactly(broker, 300)
    wait_for(lambda: labeler.gauge()["ready"])
    assert labeler.counts == {"labelled": 300, "duplicates": 0, "dead": 0, "deferred": 0, "skipped": 0}
    assert labeler.gauge()["shares"] == PARTITIONS and labeler.paused == ""
    labeler.end()
    assert labeler.error is None
    assert not [t for t in threading.enumerate() if t.name.startswith(("worker-w-", "asker"))], "nobody is at work"


class Held(Teacher):
    """Answers one batch, and the next ones only once it may."""

    def __init__(self):
        super().__init__()
        self.may = threading.Event()

    def label(self, payloads):
        assert not self.asked or self.may.wait(90)
        return super().label(payloads)


def test_what_the_teacher_was_asked_for_is_committed_at_the_end_and_nothing_else_is_asked(broker, at_work):
    put(broker, range(200))
    labeler = at_work(teacher := Held())
    wait_for(lambda: teacher.asked and labeler.gauge()["ready"])
    shifts = [*labeler._group._shifts.values()]
    labeler.stop.set()
    wait_for(lambda: all(shift.ending for shift in shifts))
    teacher.may.set()
    labeler.end()
    assert len(labels(broker)) == len(teacher.asked) < 200
    again = at_work()
    wait_for(lambda: len(labels(broker)) == 200)
    exactly(broker, 200)
    assert again.counts["duplicates"] == 0


def test_no_more_is_held_than_a_few_batches(broker, at_work):
    put(broker, range(2000))
    gate = threading.Event()
    teacher = Teacher()
    teacher.fails = lambda: not gate.is_set()
    labeler = at_work(teacher)
    wait_for(lambda: labeler.gauge()["ready"] and labeler.paused == "teacher")
    workers, most = labeler._group.workers.values(), PARTITIONS * 8 * (groups.IN_FLIGHT + 1)

    def fetched():
        return sum(sum(worker._bulk.positions().values()) for worker in workers)

    wait_for(lambda: fetched() >= most)
    assert fetched() == most and labels(broker) == []
    gate.set()
    wait_for(lambda: len(labels(broker)) == 2000)
    exactly(broker, 2000)


def test_a_teacher_outage_pauses_and_loses_nothing(broker, at_work):
    put(broker, range(50))
    away, failed = threading.Event(), []
    away.set()
    labeler = at_work(Teacher(fails=lambda: failed.append(1) or away.is_set()))
    wait_for(lambda: labeler.paused == "teacher")
    put(broker, range(50, 60))
    wait_for(lambda: len(failed) > 5)
    assert labels(broker) == [] and labeler.error is None
    away.clear()
    wait_for(lambda: len(labels(broker)) == 60)
    exactly(broker, 60)
    wait_for(lambda: labeler.paused == "")


def test_an_end_during_an_outage_does_not_wait_for_its_end(broker, at_work, monkeypatch):
    monkeypatch.setattr(groups, "RETRY_SECONDS", (100_000.0, 100_000.0))
    put(broker, range(5))
    labeler = at_work(Teacher(fails=lambda: True))
    wait_for(lambda: labeler.paused == "teacher")
    labeler.end()
    assert labels(broker) == []


def test_a_broker_outage_pauses_and_loses_nothing(broker, at_work, monkeypatch):
    put(broker, range(50))
    commit, failures = MemoryTransactions.commit, iter(range(6))

    def flaky(self, timeout=30.0):
        if next(failures, None) is not None:
            raise UnavailableError("Kafka", "here", "away")
        commit(self, timeout)

    monkeypatch.setattr(MemoryTransactions, "commit", flaky)
    labeler = at_work()
    wait_for(lambda: len(labels(broker)) == 50)
    exactly(broker, 50)
    assert labeler.error is None


def test_a_broker_that_is_away_is_the_reason_of_the_pause(broker, at_work, monkeypatch):
    labeler = at_work()
    wait_for(lambda: labeler.gauge()["ready"])

    def away(*_):
        raise UnavailableError("Kafka", "here", "away")

    with monkeypatch.context() as broken:
        broken.setattr(broker, "transactional_producer", away)
        broken.setattr(MemoryTransactions, "begin", away)
        put(broker, range(40))
        wait_for(lambda: labeler.paused == "broker")
        assert not labeler.gauge()["ready"]
    wait_for(lambda: len(labels(broker)) == 40)
    wait_for(lambda: labeler.paused == "" and labeler.gauge()["ready"])


def test_a_database_that_is_away_ends_no_labeler_and_doubles_nothing(broker, at_work):
    topic, away = Asking.topic, threading.Event()

    def asked(*args):
        if away.is_set():
            raise OperationalError("SELECT", {}, Exception("connection refused"))
        return topic(*args)

    labeler = at_work()
    wait_for(lambda: labeler.gauge()["ready"])
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(Asking, "topic", asked)
        away.set()
        put(broker, range(40))
        wait_for(lambda: labeler.paused == "database")
        away.clear()
        wait_for(lambda: len(labels(broker)) >= 40)
    wait_for(lambda: labeler.paused == "" and labeler.gauge()["ready"])
    exactly(broker, 40)
    assert labeler.error is None


def test_a_bug_ends_the_labeler(broker, at_work, monkeypatch):
    put(broker, range(3))
    monkeypatch.setattr(Intake, "sort", lambda *_: 1 / 0)
    labeler = at_work()
    wait_for(lambda: labeler.error is not None)
    assert isinstance(labeler.error, ZeroDivisionError) and labels(broker) == []


def test_a_bug_in_passing_loses_no_batch(broker, at_work, monkeypatch):
    put(broker, range(20))
    label, calls = Asking.label, iter(range(100))
    with monkeypatch.context() as broken:
        broken.setattr(Asking, "label", lambda *a: label(*a) if next(calls) != 3 else 1 / 0)
        first = at_work(batch=1, reuse=0)
        wait_for(lambda: first.error is not None)
    at_work(Teacher())
    wait_for(lambda: len(labels(broker)) >= 20)
    exactly(broker, 20)


class Choking(Teacher):
    """Fails on every batch that holds one of these texts."""

    def __init__(self, *on):
        super().__init__()
        self.on = set(on)

    def label(self, payloads):
        if self.on & set(payloads):
            raise KeyError("no such token")
        return super().label(payloads)


def dead(broker):
    places = [TopicPartition("w.inputs.dlq", n) for n in range(PARTITIONS)]
    return [decode(DeadLetter, r.value) for p in places for r in list(broker.logs[p])]


def test_inputs_that_a_teacher_always_fails_on_become_letters_and_hold_up_nothing(broker, at_work):
    put(broker, range(60))
    labeler = at_work(Choking("text 17", "text 18", "text 40"))
    wait_for(lambda: labeler.counts["labelled"] + labeler.counts["dead"] == 60)
    wait_for(lambda: labeler.paused == "")
    letters = dead(broker)
    assert {x.reason for x in letters} == {"teacher_failed"} and "KeyError" in letters[0].detail
    assert {decode(Input, x.value).id for x in letters} == {"i17", "i18", "i40"}
    assert set(labels(broker)) == {f"i{n}" for n in range(60)} - {"i17", "i18", "i40"}


def test_an_input_that_comes_alone_is_blamed_only_where_the_teacher_has_answered_another(broker, at_work):
    labeler = at_work(Choking("text 1"), batch=1)
    put(broker, [1])
    wait_for(lambda: labeler.reasons.count("teacher") > 10)
    assert dead(broker) == []


def test_the_first_input_of_all_is_blamed_when_another_that_waits_is_answered(broker, at_work):
    labeler = at_work(Choking("text 1"), batch=1)
    put(broker, [1])
    wait_for(lambda: labeler.reasons.count("teacher") > 10)
    put(broker, range(2, 10))
    wait_for(lambda: len(dead(broker)) == 1 and len(labels(broker)) == 8)


def test_an_input_that_comes_alone_is_blamed_where_it_has(broker, at_work):
    labeler = at_work(Choking("text 1"), batch=1)
    put(broker, [0])
    wait_for(lambda: labels(broker) == ["i0"])
    put(broker, [1, 2])
    wait_for(lambda: len(dead(broker)) == 1 and len(labels(broker)) == 2)
    wait_for(lambda: labeler.counts["dead"] == 1)


def test_a_teacher_that_fails_on_some_inputs_for_a_moment_blames_none(broker, at_work, monkeypatch):
    monkeypatch.setattr(groups, "BLAME_SECONDS", 600.0)
    teacher, failed = Choking("text 3", "text 7"), []
    label = teacher.label

    def well_after_a_while(payloads):
        if len(failed) > 3 * groups.TOGETHER:
            teacher.on.clear()
        failed.extend(teacher.on & set(payloads))
        return label(payloads)

    teacher.label = well_after_a_while
    put(broker, range(20))
    at_work(teacher)
    wait_for(lambda: len(labels(broker)) == 20)
    assert dead(broker) == [] and len(failed) > 3 * groups.TOGETHER


def test_an_outage_blames_no_input(broker, at_work):
    put(broker, range(20))
    teacher = Teacher()
    labeler = at_work(teacher)
    wait_for(lambda: len(labels(broker)) == 20)
    teacher.fails = lambda: True
    put(broker, range(20, 60))
    wait_for(lambda: labeler.reasons.count("teacher") > 40)
    assert dead(broker) == [] and len(labels(broker)) == 20
    teacher.fails = lambda: False
    wait_for(lambda: len(labels(broker)) == 60)
    exactly(broker, 60)
    assert dead(broker) == []


def test_without_leases_whoever_is_fenced_ends(broker, at_work):
    put(broker, range(20))
    first = at_work()
    wait_for(lambda: len(labels(broker)) == 20)
    second = at_work()
    wait_for(lambda: second.gauge()["ready"])
    put(broker, range(20, 60))
    wait_for(lambda: len(labels(broker)) == 60)
    wait_for(lambda: isinstance(first.error, FencedError))
    exactly(broker, 60)
    wait_for(lambda: second.counts["labelled"] == 40)


def test_whoever_is_fenced_opens_nothing_again_before_that_is_known(broker, at_work, monkeypatch):
    """Else it would fence the one that took over."""
    monkeypatch.setattr(groups.random, "uniform", lambda *_: 0.0)
    first = at_work()
    wait_for(lambda: first.gauge()["ready"])
    opened = dict(broker.epochs)
    assert len(opened) == PARTITIONS
    for name in opened:
        broker.transactional_producer(name)
    put(broker, range(40))
    wait_for(lambda: isinstance(first.error, FencedError))
    assert broker.epochs == {name: epoch + 1 for name, epoch in opened.items()}


def test_lost_positions_end_a_labeler_that_was_told_so_and_it_says_why(broker, at_work):
    broker.groups["w.labeler"] = {TopicPartition("w.inputs", 0): 9}
    with pytest.raises(LostPositionsError):
        at_work(on_lost_positions="stop")
    broker.groups.clear()
    labeler = at_work(on_lost_positions="stop", leases=None)
    wait_for(lambda: labeler.gauge()["ready"])
    with broker.grown:
        broker.groups["w.labeler"] = {TopicPartition("w.inputs", 0): 9}
    shift = labeler._group._shifts[0]
    shift.end()
    wait_for(lambda: labeler.error is not None)
    assert isinstance(labeler.error, LostPositionsError) and labeler.reasons[-1] == "lost_positions"


class GivenShares:
    """Leases that are what the test says."""

    def __init__(self, *mine):
        self.mine = set(mine)

    def tend(self, shares, busy):
        return self.mine

    def leave(self):
        pass


def test_workers_that_come_while_the_asker_looks_through_them_do_not_end_it(broker, at_work, monkeypatch):
    looking, may_go_on = threading.Event(), threading.Event()

    class Waiting(deque):
        def __bool__(self):
            looking.set()
            assert may_go_on.wait(90)
            return len(self) > 0

    monkeypatch.setattr(groups, "deque", Waiting)
    labeler = at_work(leases=(leases := GivenShares(0)))
    put(broker, range(40))
    assert looking.wait(90)
    leases.mine = set(range(PARTITIONS))
    wait_for(lambda: labeler.gauge()["shares"] == PARTITIONS)
    may_go_on.set()
    wait_for(lambda: len(labels(broker)) == 40)
    exactly(broker, 40)


class Member(Leases):
    """A labeler's leases; while it is ``deaf`` it hears nothing, and goes on with what it had."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.deaf, self.turn = False, threading.Lock()

    def tend(self, shares, busy):
        with self.turn:
            return set(self._mine) if self.deaf else super().tend(shares, busy)

    def hear(self, whether):
        with self.turn:
            self.deaf = not whether


@pytest.fixture
def lease(store, monkeypatch):
    """A member's leases: renewed at every look, on a clock that only looks move; ``lease.later()`` ends all of them."""
    monkeypatch.setattr("components.control.leases.RENEWALS", 10**9)
    looks, ahead = itertools.count(), []
    store.clock = lambda: 1_700_000_000.0 + next(looks) * 1e-4 + sum(ahead)

    def make(name):
        return Member(store, "w", name, seconds=60.0)

    make.later = lambda: ahead.append(61.0)
    return make


def test_labelers_divide_the_partitions_as_they_come_and_go_and_nothing_is_done_twice(broker, at_work, lease):
    teachers = {name: Teacher(seconds=0.005) for name in "abc"}

    def join(name):
        return at_work(teachers[name], leases=lease(name))

    sent = 0

    def send(n):
        nonlocal sent
        put(broker, range(sent, sent + n))
        sent += n

    send(400)
    first = join("a")
    wait_for(lambda: len(labels(broker)) > 40)
    second = join("b")
    send(400)
    wait_for(lambda: first.gauge()["shares"] == second.gauge()["shares"] == 2)
    third = join("c")
    send(400)
    wait_for(lambda: third.gauge()["shares"] == 1 and third.gauge()["ready"])
    second.end()
    send(400)
    wait_for(lambda: len(labels(broker)) == sent)
    exactly(broker, sent)
    assert {x.gauge()["shares"] for x in (first, third)} == {2}
    assert not any(x.error for x in (first, second, third))
    asked = [p for t in teachers.values() for p in t.asked]
    assert len(asked) == len(set(asked)) == sent, "no input was asked for twice"


def test_a_labeler_that_dies_is_replaced_when_its_leases_run_out(broker, at_work, lease):
    dead = lease("dead")
    assert dead.tend(set(range(PARTITIONS)), set()) == set(range(PARTITIONS))
    put(broker, range(20))
    alive = at_work(leases=lease("alive"))
    wait_for(lambda: len(alive.reasons) > 20)
    assert labels(broker) == [] and alive.gauge()["shares"] == 0
    lease.later()
    wait_for(lambda: len(labels(broker)) == 20)
    assert alive.gauge()["shares"] == PARTITIONS


def test_leases_that_ran_out_too_early_do_no_harm(broker, at_work, lease):
    """A labeler that could not renew works on until it is fenced, and then keeps off what is no longer its own."""
    first = at_work(leases=(stuck := lease("stuck")))
    put(broker, range(100))
    wait_for(lambda: len(labels(broker)) == 100)
    wait_for(lambda: first.gauge()["ready"])
    stuck.hear(False)  # for a while
    lease.later()
    second = at_work(leases=lease("second"))
    wait_for(lambda: second.gauge()["shares"] == PARTITIONS and second.gauge()["ready"])
    put(broker, range(100, 300))
    wait_for(lambda: len(labels(broker)) == 300)
    stuck.hear(True)
    wait_for(lambda: first.gauge()["shares"] == second.gauge()["shares"] == 2)
    put(broker, range(300, 400))
    wait_for(lambda: len(labels(broker)) == 400)
    exactly(broker, 400)
    assert first.error is None and second.error is None


def test_the_wait_after_any_number_of_failures_is_within_its_limit():
    assert 0 <= groups._wait((0.2, 15.0), 5000) <= 15
