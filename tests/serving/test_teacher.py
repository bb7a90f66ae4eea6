"""The teacher behind the gateway: batches, whose turn it is, one account, and one call for answer and label."""

import asyncio
import itertools
import threading

import msgspec
import pytest

from components.contracts.errors import ConfigError, RecordError, TeacherError, TeacherHeldError, UnavailableError
from components.contracts.given import given_in
from components.contracts.records import Input, Label, Prediction, SoftLabel, decode
from components.contracts.sampling import audited
from components.contracts.settings import Settings
from components.contracts.signing import Verifier, new_key
from components.contracts.spec import Budget as Limits
from components.contracts.spec import Policy, Probe, load_spec
from components.control import forgettings
from components.control.intent import Intent
from components.control.tables import WindowRow
from components.control.teachers import decide, open_incident, teacher_state
from components.label.asking import Company
from components.label.labeler import Labeler
from components.query.budget import Budget
from components.query.selector import Selector
from components.teachers.contract import Deferred
from serving.gateway.reply import Reply
from serving.neighbours import Neighbours
from serving.teacher import FORGET_SECONDS, SPENT, Answering, TeacherService
from tests.serving.running import Running

BY = "sign@1"


class Sign:
    """The sign of ``x``; ``fails`` is what it raises."""

    name, digest, task, space, classes, size_bytes = "sign", "1", "classification", "signs@1", ("neg", "pos"), 10

    def __init__(self):
        self.asked, self.fails, self.turned = [], None, False

    def label(self, payloads):
        if self.fails is not None:
            raise self.fails
        self.asked.append([p["x"] for p in payloads])
        sure = [float((p["x"] > 0) != self.turned) for p in payloads]
        return [SoftLabel.of(self.space, self.classes, [1 - s, s]) for s in sure]

    @property
    def calls(self):
        return sum(len(batch) for batch in self.asked)


@pytest.fixture
def teacher():
    return Sign()


@pytest.fixture
def made(spec, store, broker, clock, tmp_path, monkeypatch):
    """A spec with these sections of ``label``, and the answering of its teacher, which may take its time."""
    store.clock = clock
    patient = msgspec.structs.replace(spec.serve.deferral, timeout_seconds=3_600.0)
    spec = msgspec.structs.replace(spec, serve=msgspec.structs.replace(spec.serve, deferral=patient))

    def make(teacher, key=None, audited=None, neighbours=None, **label):
        label = {"probe": Probe(size=0), **label}
        changed = msgspec.structs.replace(spec, label=msgspec.structs.replace(spec.label, **label))
        if neighbours is not None:
            deferral = msgspec.structs.replace(patient, neighbours=neighbours)
            changed = msgspec.structs.replace(changed, serve=msgspec.structs.replace(changed.serve, deferral=deferral))
        if audited is not None:
            serve = msgspec.structs.replace(changed.serve, audit_share=audited)
            changed = msgspec.structs.replace(changed, serve=serve)
        if key is not None:
            monkeypatch.setenv("COHOBATE_LABEL_SIGNING_KEY", key)
        settings = Settings(home=tmp_path)
        return changed, Answering(changed, settings, store, broker, clock=clock, teacher=teacher)

    return make


class Whole:
    """Gateway, teacher and labeler of one workload, in one process."""

    def __init__(self, spec, answering, store, broker, clock, champion):
        self.spec, self.store, self.broker, self.answering = spec, store, broker, answering
        self.service = TeacherService(spec.source, answer=answering)

        async def ask(entry, student, urgency, need, version=""):
            return await self.service.label(entry.id, entry.payload, urgency, need, student.label, version)

        self.gateway = Running(spec, store, broker, clock, ask)
        self.gateway.serve(champion)
        budget = Budget(spec.label.budget, spec.name, store, clock=clock)
        company = Company(selector=Selector(spec, budget, clock))
        self.labeler = Labeler(spec, answering.teacher, broker, clock=clock, company=company)

    def predict(self, *xs, **options):
        return self.gateway.predict(*xs, allow_defer=True, **options).json()["predictions"]

    def label(self):
        self.gateway.published()
        while self.labeler.lag():
            self.labeler.step(0.0)
        return {x.input.id: x for x in map(_label, self.broker.consumer(["signs.labels"]).poll(1_000, 0))}


def _label(record):
    return decode(Label, record.value)


@pytest.fixture
def whole(made, teacher, store, broker, clock, model):
    def make(**options):
        spec, answering = made(teacher, **options)
        return Whole(spec, answering, store, broker, clock, model("1"))

    return make


def test_one_call_answers_and_labels(whole, teacher):
    one = whole()
    answers = one.predict(0.01, 3.0, -0.02, -3.0)
    assert [a["answered_by"] for a in answers] == ["teacher", "student", "teacher", "student"]
    assert teacher.asked == [[0.01, -0.02]] or teacher.asked == [[-0.02, 0.01]]
    labels = one.label()
    assert set(labels) == {"i0", "i1", "i2", "i3"} and teacher.calls == 4, "one call for each input"
    assert [labels[f"i{n}"].soft.label for n in range(4)] == [a["label"] for a in answers]
    assert labels["i0"].teacher == BY and labels["i0"].probability == 1.0
    assert one.labeler.gauge()["answers_taken"] == 2


def test_an_answer_is_signed_where_labels_are(whole, teacher, broker):
    private, public = new_key()
    one = whole(key=private, signed_by=public)
    one.predict(0.01)
    one.gateway.published()
    (record,) = broker.consumer(["signs.inputs.urgent"]).poll(10, 0)
    assert given_in(record.headers, Verifier(public)).input_id == "i0"
    assert set(one.label()) == {"i0"} and teacher.calls == 1


def test_what_the_teacher_did_not_answer_is_published_as_ever_and_the_labeler_asks(whole, teacher):
    one = whole()
    teacher.fails = TeacherError("sign", "down")
    (answer,) = one.predict(0.01)
    assert answer["degraded"] and answer["answered_by"] == "student"
    teacher.fails = None
    assert set(one.label()) == {"i0"} and teacher.calls == 1 and one.labeler.asking.receipts.counts == {}


def test_when_the_budget_is_spent_the_answer_says_so_and_the_account_is_exact(whole, teacher):
    one = whole(budget=Limits(per_hour=2, reserve=0.0, paced=False), audit_share=0.0)
    answers = one.predict(0.01, 0.05, 0.02, 0.04)
    by = [a["answered_by"] for a in answers]
    assert by == ["teacher", "student", "teacher", "student"], "the least sure ones are asked about"
    assert all(a["degraded"] and "label budget is spent" in a["defer_reason"] for a in (answers[1], answers[3]))
    assert set(one.label()) == {"i0", "i2"} and teacher.calls == 2
    spent = one.answering.budget.spending()["hour"]
    assert (spent.calls, spent.skipped, one.answering.budget.unsettled()) == (2, 2, 0)


def test_what_the_pace_does_not_allow_is_answered_degraded_and_nobody_asks_again(whole, teacher):
    policy = Policy(kind="random", share=1e-9)
    one = whole(
        budget=Limits(per_hour=3_600, reserve=0.0, pace_deferred=True), policy=policy, audit_share=0.0, audited=0.0
    )
    answers = one.predict(0.01, 0.05, 0.02, 0.04)
    assert [a["answered_by"] for a in answers] == ["teacher", *3 * ["student"]], "the least sure one is asked about"
    assert all(a["degraded"] and "label budget is paced" in a["defer_reason"] for a in answers[1:])
    assert set(one.label()) == {"i0"} and teacher.calls == 1
    assert one.labeler.asking.selector.counts["not_drawn"] == 3, "the others are inputs as any"
    assert one.answering.budget.pacing()["share"] < 0.5


def test_what_an_update_lacks_after_an_alarm_is_asked_about_whatever_the_pace(whole, teacher, store, model):
    policy = Policy(kind="random", share=1e-9)
    one = whole(
        budget=Limits(per_hour=3_600, reserve=0.0, pace_deferred=True), policy=policy, audit_share=0.0, audited=0.0
    )
    spec = one.answering.spec
    champion = model("1")
    store.put_intent(spec.name, store.intent(spec.name)[0], Intent(champion=champion))
    store.raise_alarm(spec.name, "novelty", 100, {"champion": champion.version})
    store.put_gauge(spec.name, "trigger", {"labels": 1_000, "index": 100})
    store.put_gauge(spec.name, "monitor", {"index": 100 + spec.trigger.alarm_labels - 3})
    answers = one.predict(0.01, 0.05, 0.02, 0.04)
    assert [a["answered_by"] for a in answers] == ["teacher", "student", "teacher", "teacher"]
    store.put_gauge(spec.name, "monitor", {"index": 100 + spec.trigger.alarm_labels})
    one.gateway.clock.now += 1.0
    assert [a["answered_by"] for a in one.predict(0.015, 0.055)] != 2 * ["teacher"]


def turned(whole, teacher, **options):
    """The teacher says the contrary of what the student says, of six inputs, and then the budget is spent."""
    one = whole(budget=Limits(per_hour=6, reserve=0.0), audit_share=0.0, audited=0.0, **options)
    teacher.turned = True
    for n in (1, 2, 3):
        assert {a["answered_by"] for a in one.predict(n / 100, -n / 100)} == {"teacher"}
    return one


def test_what_the_budget_does_not_reach_for_is_told_what_the_teacher_said_of_the_nearest(whole, teacher):
    one = turned(whole, teacher)
    answers = one.predict(0.04, -0.04)
    assert [(a["label"], a["answered_by"]) for a in answers] == [("neg", "neighbour"), ("pos", "neighbour")]
    assert all(a["degraded"] and a["defer"] and "label budget is spent" in a["defer_reason"] for a in answers)
    one.label()
    labels = [_label(r) for r in one.broker.consumer(["signs.labels"]).poll(1_000, 0)]
    assert len(labels) == teacher.calls == 6, "only the teacher labels"
    assert 'cohobate_neighbour_answers_total{workload="signs"} 2.0' in one.gateway.call("GET", "/metrics").text
    told = one.gateway.published()[-2:]
    assert sorted(p.answer.label for p in told) == ["neg", "pos"] and all(p.answer.version == "1" for p in told)


def test_who_does_not_defer_gets_the_students_answer(whole, teacher):
    one = turned(whole, teacher, neighbours=100)
    answers = one.gateway.predict(0.04, -0.04).json()["predictions"]
    assert [(a["label"], a["answered_by"], a["degraded"]) for a in answers] == [
        ("pos", "student", False), ("neg", "student", False)
    ]  # fmt: skip


def test_without_neighbours_the_student_answers(whole, teacher):
    answers = turned(whole, teacher, neighbours=0).predict(0.04, -0.04)
    assert [(a["label"], a["answered_by"]) for a in answers] == [("pos", "student"), ("neg", "student")]


def test_neighbours_do_not_speak_over_a_student_that_is_right(whole, teacher):
    one = whole(budget=Limits(per_hour=6, reserve=0.0), audit_share=0.0, audited=0.0, neighbours=100)
    for n in (1, 2, 3):
        one.predict(n / 100, -n / 100)
    assert {a["answered_by"] for a in one.predict(0.04, -0.04)} == {"student"}


def test_a_teacher_that_may_have_changed_has_no_neighbours(whole, teacher, store, monkeypatch):
    monkeypatch.setattr("components.teacher_watch.guard.REFRESH_SECONDS", 0.0)
    one = turned(whole, teacher, neighbours=100, probe=Probe(size=5))
    assert {a["answered_by"] for a in one.predict(0.04, -0.04)} == {"neighbour"}
    revision, state = teacher_state(store, "signs", BY)
    open_incident(store, "signs", BY, revision, state, suspect_from=1.0, index=0, candidate=state.probes, detail={})
    assert {a["answered_by"] for a in one.predict(0.05, -0.05)} == {"student"}
    decide(store, "signs", "accept", "ada", "test")
    assert {a["answered_by"] for a in one.predict(0.06, -0.06)} == {"student"}, "what it said before is forgotten"


def test_what_is_remembered_goes_when_somebody_is_to_be_forgotten(whole, teacher, store):
    one = turned(whole, teacher, neighbours=100)
    assert {a["answered_by"] for a in one.predict(0.04, -0.04)} == {"neighbour"}
    assert {a["answered_by"] for a in one.predict(0.01, -0.01)} == {"teacher"}, "they were answered before"
    forgettings.open_order(store, "signs", "k", "ada", "asked")
    one.gateway.clock.now += FORGET_SECONDS
    assert {a["answered_by"] for a in one.predict(0.05, -0.05, 0.01, -0.01)} == {"student"}


def test_a_paid_answer_is_given_and_labels_whatever_fails_beside_it(whole, teacher, monkeypatch, caplog):
    one = whole(budget=Limits(per_hour=100, reserve=0.0), audit_share=0.0, audited=0.0, neighbours=100)

    def broken(*of):
        raise RecordError("invalid", "x")

    one.answering._near = Neighbours.of(one.spec)
    monkeypatch.setattr(one.answering._near._featuriser, "encode", broken)
    assert {a["answered_by"] for a in one.predict(0.01, -0.01)} == {"teacher"}
    one.answering.learn()
    assert "learn nothing of 2 inputs" in caplog.text
    assert set(one.label()) == {"i0", "i1"} and teacher.calls == 2
    monkeypatch.setattr(one.answering._near, "answers", broken)
    monkeypatch.setattr(one.answering, "_paced", set)  # all are
    assert {a["answered_by"] for a in one.predict(0.03)} == {"student"}
    assert "no neighbours for a batch of 1" in caplog.text


def test_a_featuriser_that_cannot_be_made_here_costs_the_neighbours_alone(whole, teacher, monkeypatch, caplog):
    def missing(spec):
        raise ConfigError("features.options.tokenizer", "/models/x", "is not on this host")

    monkeypatch.setattr("serving.teacher.Neighbours.of", missing)
    one = whole(budget=Limits(per_hour=100, reserve=0.0), audit_share=0.0, audited=0.0, neighbours=100)
    for x in (0.01, 0.02, 0.03):
        assert {a["answered_by"] for a in one.predict(x)} == {"teacher"}
    assert caplog.text.count("no neighbours answer") == 1


def test_answers_are_given_before_the_neighbours_learn_of_them(made, teacher, monkeypatch):
    spec, answering = made(teacher, budget=Limits(per_hour=100), neighbours=100)
    service, given, learnt = TeacherService(spec.source, answer=answering), threading.Event(), []

    def learn(self):
        if self._told:
            assert given.wait(30.0)
            learnt.extend(self._told)

    monkeypatch.setattr(Answering, "learn", learn)

    async def asked():
        reply = await service.label("i0", b'{"x": 1}', 0, 1.0, "pos", "1")
        assert reply.soft is not None and not learnt
        given.set()
        await service._asker

    asyncio.run(asked())
    assert [(told.student, told.version) for told in learnt] == [("pos", "1")]


def test_nothing_is_answered_again_while_nobody_can_say_who_is_to_be_forgotten(whole, teacher, monkeypatch):
    one = whole(budget=Limits(per_hour=4, reserve=0.0), audit_share=0.0, audited=0.0, neighbours=100)
    one.predict(0.01, -0.01)

    def away(*of):
        raise UnavailableError("control database", "x", "away")

    monkeypatch.setattr("components.control.forgettings.count", away)
    one.gateway.clock.now += FORGET_SECONDS
    assert {a["answered_by"] for a in one.predict(0.01, -0.01)} == {"teacher"} and teacher.calls == 4
    assert one.answering.budget.unsettled() == 0


def test_what_is_audited_is_asked_about_whatever_the_pace_so_that_the_call_answers_too(whole, teacher):
    one = whole(budget=Limits(per_hour=3_600, reserve=0.0, pace_deferred=True), audited=1.0)
    answers = one.predict(0.01, 0.05, 0.02, 0.04)
    assert [a["answered_by"] for a in answers] == 4 * ["teacher"]
    assert set(one.label()) == {"i0", "i1", "i2", "i3"} and teacher.calls == 4


def test_a_call_that_failed_counts_and_one_that_a_remote_teacher_pays_itself_does_not(made, teacher):
    spec, answering = made(teacher, budget=Limits(per_hour=100))
    service = TeacherService(spec.source, answer=answering)

    def ask(error):
        teacher.fails = error
        with pytest.raises(type(error)):
            asyncio.run(service.label("a", b'{"x": 1}'))
        return answering.budget.spending()["hour"].calls, answering.budget.unsettled()

    assert ask(TeacherError("sign", "down")) == (1, 0)
    assert ask(UnavailableError("sign", "x", "away")) == (2, 0)
    teacher.metered = lambda permit: None
    assert ask(UnavailableError("sign", "x", "away")) == (2, 0)


def questions(service, asked):
    async def run():
        return await asyncio.gather(*(service.label(*q) for q in asked), return_exceptions=True)

    return asyncio.run(run())


def test_what_waits_is_asked_in_batches_urgent_first_then_the_neediest(spec):
    spec_batches = []

    def answer(batch):
        spec_batches.append([q.input_id for q in batch])
        return [Reply(None, q.input_id) for q in batch]

    service = TeacherService(spec.source, answer=answer)
    service._spec = msgspec.structs.replace(spec, label=msgspec.structs.replace(spec.label, batch=2))
    asked = [
        ("a", b'{"x": 1}', 3, 0.4),
        ("b", b'{"x": 1}', 3, 0.5),
        ("c", b'{"x": 1}', 0, 0.1),
        ("d", b'{"x": 1}', 7, 0.9),
    ]
    found = questions(service, asked)
    assert spec_batches == [["c", "b"], ["a", "d"]]
    assert [reply.code for reply in found] == ["a", "b", "c", "d"], "each caller has its own"


def test_questions_of_one_moment_are_one_call(spec, teacher, made):
    _, answering = made(teacher)
    found = questions(TeacherService(spec.source, answer=answering), [(f"i{n}", b'{"x": %d}' % n) for n in range(32)])
    assert len(teacher.asked) == 1 and [r.soft.label for r in found] == ["neg"] + ["pos"] * 31


def test_content_that_was_answered_costs_no_second_call(spec, teacher, made):
    _, answering = made(teacher)
    service = TeacherService(spec.source, answer=answering)
    for name in ("a", "b"):
        (reply,) = questions(service, [(name, b'{"x": 1}')])
        assert given_in(reply.headers).input_id == name
    assert teacher.calls == 1


def test_an_audited_input_is_asked_about_when_deferrals_have_used_all_that_is_not_kept(spec, teacher, made):
    changed, answering = made(teacher, budget=Limits(per_hour=10, audits=0.3), audit_share=0.0, audited=0.4)
    service = TeacherService(spec.source, answer=answering)
    names = [f"i{n}" for n in range(60)]
    audits = [i for i in names if audited(changed.name, i, 0.4)]
    free = [i for i in names if i not in audits]

    def ask(*asked):
        return [(r.code, r.why) for r in questions(service, [(i, b'{"x": %s}' % x.encode()) for i, x in asked])]

    answered, spent = ("answered", ""), (SPENT.code, SPENT.why)
    storm = ask(*((i, str(n)) for n, i in enumerate(free[:20])))
    assert storm.count(answered) == 7 and storm.count(spent) == 13
    late = [(free[20], "100"), (audits[0], "101"), (audits[1], "102"), (audits[2], "103"), (free[21], "103")]
    assert ask(*late) == [spent, answered, answered, answered, answered], "the same content is one call"
    assert ask((audits[3], "104")) == [spent] and answering.budget.spending()["hour"].left == 0


def test_a_batch_that_fails_is_told_to_its_callers_and_the_next_one_is_asked(spec):
    turns = itertools.count()

    def answer(batch):
        if next(turns) == 0:
            raise TeacherError("sign", "down")
        return [Reply(None, "later") for _ in batch]

    service = TeacherService(spec.source, answer=answer)
    assert [type(e) for e in questions(service, [("a", b"{}"), ("b", b"{}")])] == [TeacherError, TeacherError]
    assert [r.code for r in questions(service, [("c", b"{}")])] == ["later"]


def test_nobody_is_asked_about_for_a_caller_that_has_gone(spec):
    asked = []

    def answer(batch):
        asked.extend(q.input_id for q in batch)
        return [Reply(None, "") for _ in batch]

    async def run():
        service = TeacherService(spec.source, answer=answer)
        gone = asyncio.create_task(service.label("gone", b"{}"))
        stays = asyncio.create_task(service.label("stays", b"{}"))
        await asyncio.sleep(0)
        gone.cancel()
        await stays

    asyncio.run(run())
    assert asked == ["stays"]


@pytest.mark.parametrize("allowed", [True, False])
def test_an_input_whose_request_is_given_up_is_published_once_and_without_an_answer(
    spec, store, broker, clock, model, allowed
):
    async def ask(entry, student, urgency, need, version=""):
        await asyncio.sleep(3_600)

    running = Running(spec, store, broker, clock, ask)
    running.serve(model("1"))

    async def run():
        from serving.gateway.wire import Item

        items = [Item(id="a", json={"x": 0.01}), Item(id="b", json={"x": 3.0})]
        task = asyncio.create_task(running.gateway.predict(items, allow_defer=allowed))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert sorted(i.id for i in running.published(Input)) == ["a", "b"]
    assert [r.headers.get("answer") for r in broker.consumer(["signs.inputs.urgent"]).poll(10, 0)] == [None, None]


def test_an_input_that_does_not_wait_is_published_at_once(spec, store, broker, clock, model):
    async def run():
        asked = asyncio.Event()

        async def ask(entry, student, urgency, need, version=""):
            asked.set()
            await asyncio.sleep(3_600)

        running = Running(spec, store, broker, clock, ask)
        running.serve(model("1"))
        from serving.gateway.wire import Item

        items = [Item(id="waits", json={"x": 0.01}), Item(id="sure", json={"x": 3.0})]
        task = asyncio.create_task(running.gateway.predict(items, allow_defer=True))
        await asked.wait()
        before = [p.input_id for p in running.published(Prediction)]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return before

    assert asyncio.run(run()) == ["sure"]


def suspected(store, spec, verdict):
    revision, state = teacher_state(store, spec.name, BY)
    open_incident(
        store, spec.name, BY, revision, state, suspect_from=1.0, index=0, candidate=state.probes, detail={}
    )  # fmt: skip
    decide(store, spec.name, verdict, "ada", "test")


def test_an_answer_of_an_ended_epoch_is_none_and_a_rejected_teacher_is_not_asked(made, teacher, store, monkeypatch):
    monkeypatch.setattr("components.teacher_watch.guard.REFRESH_SECONDS", 0.0)
    spec, answering = made(teacher, probe=Probe(size=5))
    service = TeacherService(spec.source, answer=answering)
    (first,) = questions(service, [("a", b'{"x": 1}')])
    assert given_in(first.headers).teacher == BY
    suspected(store, spec, "accept")
    (second,) = questions(service, [("b", b'{"x": 1}')])
    assert given_in(second.headers).teacher == BY + "#1" and teacher.calls == 2, "what it said before is forgotten"
    suspected(store, spec, "reject")
    (third,) = questions(service, [("c", b'{"x": 2}')])
    assert isinstance(third, TeacherHeldError) and teacher.calls == 2


def test_a_decision_in_the_middle_of_a_question_leaves_the_label_to_the_labeler(made, teacher, store, monkeypatch):
    monkeypatch.setattr("components.teacher_watch.guard.REFRESH_SECONDS", 0.0)
    spec, answering = made(teacher, probe=Probe(size=5))
    right = answering.guard.ask

    def ask(inputs, payloads):
        suspected(store, spec, "accept")
        return right(inputs, payloads)

    monkeypatch.setattr(answering.guard, "ask", ask)
    (reply,) = questions(TeacherService(spec.source, answer=answering), [("a", b'{"x": 1}')])
    assert reply.soft.label == "pos" and reply.headers == {}


def test_what_the_teacher_refuses_or_puts_off_is_no_failure(made, teacher):
    teacher.outcomes = lambda payloads: [RecordError("outside_classes", "x"), Deferred("unsure")]
    spec, answering = made(teacher)
    found = questions(TeacherService(spec.source, answer=answering), [("a", b'{"x": 1}'), ("b", b'{"x": 2}')])
    assert [(r.soft, r.code) for r in found] == [(None, "refused"), (None, "put_off")]


def test_another_teacher_than_the_declared_one_answers_nobody(made, teacher, spec, store, broker, tmp_path):
    other = msgspec.structs.replace(spec, teacher_digest="sign@2")
    with pytest.raises(ConfigError, match="teacher_digest"):
        Answering(other, Settings(home=tmp_path), store, broker, teacher=teacher)
    with pytest.raises(ConfigError, match="task"):
        Answering(
            msgspec.structs.replace(spec, task="regression"), Settings(home=tmp_path), store, broker, teacher=teacher
        )


def test_a_teacher_whose_labels_no_window_would_take_answers_nobody_until_it_is_declared(made, teacher, store):
    spec, _ = made(teacher)
    window = {"digest": "1" * 64, "workload": spec.name, "number": 1, "uri": "u", "rows": 9, "created_at": 1.0}
    store.add_window(WindowRow(**window, manifest={"teacher": "sign@0"}))
    with pytest.raises(ConfigError, match=r"teacher_digest.*windows so far are of sign@0.*on purpose"):
        made(teacher)
    spec = msgspec.structs.replace(spec, teacher_digest=BY)
    assert Answering(spec, Settings(), store, None, teacher=teacher).reference == BY


def test_an_expert_answers_and_labels_nothing(tmp_path, spec):
    text = (tmp_path / "signs.yaml").read_text().replace(
        "serve: {", "serve: {deferral: {to: [expert], expert: {factory: 'teacher.py:SignTeacher'}}, "
    )  # fmt: skip
    (tmp_path / "expert.yaml").write_text(text)
    (reply,) = questions(TeacherService(str(tmp_path / "expert.yaml"), expert=True), [("a", b'{"x": 1}')])
    assert reply.soft.label == "pos" and reply.headers == {}
    with pytest.raises(ConfigError, match="expert"):
        TeacherService(spec.source, expert=True)
    assert load_spec(tmp_path / "expert.yaml").serve.deferral.replicas == 1
