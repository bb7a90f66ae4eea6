"""Answers that came with their inputs: which become labels, at what chance, and what becomes of the others."""

import math

import msgspec
import numpy as np
import pytest

from components.contracts.given import ANSWER, Given, headers_of
from components.contracts.records import Input, Label, SoftLabel, content_hash, decode, encode
from components.contracts.sampling import bucket
from components.contracts.signing import Signer, new_key
from components.contracts.spec import Budget as Limits
from components.contracts.spec import Factory, Payload, Policy, Probe, Spec
from components.contracts.spec import Label as LabelSection
from components.control.teachers import teacher_state
from components.label.asking import Company
from components.label.labeler import Labeler
from components.query.budget import Budget
from components.query.selector import Selector
from components.stream.contract import TopicPartition
from components.stream.memory import MemoryBroker
from components.teacher_watch.guard import Guard
from drift.reweight import hajek, stratum_weights
from tests.clock import Clock

NOW = 1_700_000_000.0
BY = "parity@" + "d" * 64


class Parity:
    """Whether a text's length is even."""

    name, digest, task, space = "parity", "d" * 64, "classification", "parity@1"
    classes, size_bytes = ("even", "odd"), 1

    def __init__(self):
        self.asked = []

    def label(self, payloads):
        self.asked += payloads
        return [soft(p) for p in payloads]


def soft(text, space="parity@1"):
    p = 0.9 if len(text) % 2 == 0 else 0.2
    return SoftLabel(task="classification", space=space, distribution={"even": p, "odd": 1 - p})


def given(entry, **changes):
    made = Given(
        workload="w", input_id=entry.id, content=content_hash(entry.payload), teacher=BY,
        soft=soft(entry.payload.decode()), answered_at=NOW - 5.0,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def entry(id_, text="text"):
    return Input(workload="w", id=id_, key="k", time=NOW, payload=text.encode())


class Stage:
    def __init__(self, store, tmp_path, **options):
        probe = options.pop("probe", Probe(size=0))
        self.spec = Spec(
            name="w", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"),
            payload=Payload(decoder="text", max_bytes=100),
            label=LabelSection(batch=10, linger_seconds=0.0, probe=probe, **options),
        )  # fmt: skip
        self.broker, self.teacher, self.store, self.clock = MemoryBroker(), Parity(), store, Clock(NOW, step=0.001)
        self.broker.ensure_topics(self.spec.topics)
        self.budget = Budget(self.spec.label.budget, "w", store, clock=self.clock)
        self.guard = None
        if probe.size:
            where = f"file://{tmp_path}/artifacts"
            self.guard = Guard(self.spec, self.teacher, store, self.broker, where, budget=self.budget, clock=self.clock)
        company = Company(guard=self.guard, selector=Selector(self.spec, self.budget, self.clock))
        self.labeler = Labeler(self.spec, self.teacher, self.broker, clock=self.clock, company=company)

    def put(self, one, headers=None, topic="inputs.urgent"):
        self.broker.producer().send(f"w.{topic}", "k", encode(one), headers)

    def work(self):
        while self.labeler.lag():
            self.labeler.step(0.0)
        return {x.input.id: x for x in self.labels()}

    def labels(self, topic="labels"):
        return [decode(Label, r.value) for r in self.broker.logs[TopicPartition(f"w.{topic}", 0)]]

    @property
    def answers(self):
        return dict(self.labeler.asking.receipts.counts)


@pytest.fixture
def stage(store, tmp_path):
    return lambda **options: Stage(store, tmp_path, **options)


def test_an_answer_that_came_with_its_input_is_the_label_and_costs_no_call(stage):
    one = stage()
    one.put(entry("a", "answered"), headers_of(given(entry("a", "answered"))))
    one.put(entry("b", "not answered"))
    found = one.work()
    assert one.teacher.asked == ["not answered"] and one.answers == {"taken": 1}
    assert found["a"].soft == soft("answered") and found["a"].labelled_at == NOW - 5.0
    assert (found["a"].policy, found["a"].probability, found["a"].teacher) == ("priority", 1.0, BY)
    assert found["a"].key != found["b"].key and one.labeler.counts["labelled"] == 2
    assert one.labeler.gauge()["answers_taken"] == 1 and one.labeler.gauge()["chosen_answered"] == 1


def test_the_same_content_costs_no_call_either(stage):
    one = stage()
    one.put(entry("a", "same"))
    one.put(entry("b", "same"), headers_of(given(entry("b", "same"))))
    one.put(entry("c", "same"), topic="inputs")
    assert set(one.work()) == {"a", "b", "c"} and one.teacher.asked == []


def test_an_input_that_is_delivered_again_gets_no_second_label(stage):
    one = stage()
    for _ in range(2):
        one.put(entry("a"), headers_of(given(entry("a"))))
        one.work()
    assert len(one.labels()) == 1 and one.labeler.counts["duplicates"] == 1 and one.teacher.asked == []


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"workload": "other"}, "another_input"),
        ({"input_id": "b"}, "another_input"),
        ({"content": content_hash(b"other")}, "another_input"),
        ({"teacher": "parity@" + "e" * 64}, "another_teacher"),
        ({"teacher": BY + "#1"}, "another_teacher"),
        ({"answered_at": NOW + 3_600.0}, "future_time"),
        ({"soft": soft("x", space="parity@2")}, "invalid"),
        ({"soft": SoftLabel(task="classification", space="parity@1", distribution={"zebra": 1.0})}, "invalid"),
        ({"soft": SoftLabel(task="regression", space="parity@1", value=1.0, scale=1.0)}, "invalid"),
        (b"\xc1 no answer", "undecodable"),
    ],
)
def test_an_answer_that_does_not_verify_is_ignored_and_the_teacher_asked(stage, change, outcome):
    one = stage()
    headers = {ANSWER: change} if isinstance(change, bytes) else headers_of(given(entry("a"), **change))
    one.put(entry("a"), headers)
    assert one.work()["a"].soft == soft("text") and one.teacher.asked == ["text"] and one.answers == {outcome: 1}


def test_where_labels_are_signed_answers_must_be(stage):
    private, public = new_key()
    one = stage(signed_by=public)
    for name, signer in (("none", None), ("other", Signer(new_key()[0])), ("own", Signer(private))):
        one.put(entry(name, f"text {name}"), headers_of(given(entry(name, f"text {name}")), signer))
    assert set(one.work()) == {"none", "other", "own"}
    assert one.teacher.asked == ["text none", "text other"] and one.answers == {"unsigned": 2, "taken": 1}


def test_one_account_counts_a_call_once_and_skips_nothing_that_was_answered(stage):
    one = stage(budget=Limits(per_hour=5, reserve=0.0, paced=False), audit_share=0.0)
    reserved = one.budget.reserve(3, 0)  # as the teacher behind the gateway does before it answers
    one.budget.settle(reserved, 3)
    for n in range(3):
        one.put(entry(f"g{n}", f"g{n}"), headers_of(given(entry(f"g{n}", f"g{n}"))))
    for n in range(4):
        one.put(entry(f"i{n}", f"i{n}"))
    found = one.work()
    assert {f"g{n}" for n in range(3)} <= set(found) and len(found) == 5 and len(one.teacher.asked) == 2
    spent = one.budget.spending()["hour"]
    assert (spent.calls, spent.skipped, one.budget.unsettled()) == (5, 2, 0)
    assert all(found[f"g{n}"].probability == 1.0 for n in range(3))
    assert {x.probability for x in found.values()} == {1.0, 0.5}, "two of the four others were drawn"


def test_a_batch_that_is_asked_for_again_keeps_what_was_answered(stage, monkeypatch):
    from components.contracts.errors import TeacherError

    one = stage()
    one.put(entry("a", "answered"), headers_of(given(entry("a", "answered"))))
    one.put(entry("b", "asked"))
    right = Parity.label
    monkeypatch.setattr(Parity, "label", lambda self, payloads: (_ for _ in ()).throw(TeacherError("parity", "down")))
    with pytest.raises(TeacherError):
        one.work()
    monkeypatch.setattr(Parity, "label", right)
    assert set(one.work()) == {"a", "b"} and one.teacher.asked == ["asked"] and len(one.labels()) == 2


def test_labels_of_a_teacher_under_suspicion_go_to_quarantine_whoever_asked(stage, store):
    one = stage(probe=Probe(size=3, repeats=2, share=1.0))
    for n in range(4):
        one.put(entry(f"i{n}", "x" * (n + 1)))
    one.work()
    assert teacher_state(store, "w", BY)[1].probes
    changed = soft("xx")  # of content that has an odd length: the teacher behind the gateway says otherwise now
    again = entry("again", "x")
    one.put(again, headers_of(given(again, soft=changed)))
    one.work()
    (label,) = one.labels("labels.quarantine")
    assert label.input.id == "again" and label.labelled_at == NOW - 5.0
    assert teacher_state(store, "w", BY)[1].status == "suspect" and one.guard.counts["incidents"] == 1


def test_where_all_is_answered_through_the_gateway_the_watch_still_gets_its_probes(stage, store):
    one = stage(probe=Probe(size=3, repeats=2, share=1.0))
    for n in range(4):
        again = entry(f"i{n}", "x" * (n + 1))
        one.put(again, headers_of(given(again)))
    one.work()
    assert len(teacher_state(store, "w", BY)[1].probes) == 3


@pytest.mark.parametrize("told", [0.0, 0.6, 1.0])
def test_estimates_over_labels_are_those_of_the_traffic_whatever_part_the_gateway_had_answered(stage, told):
    """Deferred by doubt, and the more often ``odd``: a wrong chance would pull the mean towards them."""
    one = stage(policy=Policy(kind="random", share=0.25), audit_share=0.05)
    dice, odd, n = np.random.default_rng(7), [], 3_000
    for k in range(n):
        doubtful = dice.uniform() < 0.3
        odd.append(dice.uniform() < (0.8 if doubtful else 0.2))
        each = entry(f"i{k}", "x" * (2 * int(dice.integers(1, 20)) - odd[-1]) + "")
        answered = doubtful and bucket("w", "told", each.id) < told
        one.put(each, headers_of(given(each)) if answered else None, "inputs.urgent" if doubtful else "inputs")
    found = list(one.work().values())
    values = [float(x.soft.label == "odd") for x in found]
    chances, audits = [x.probability for x in found], [x.audit for x in found]
    rest = [(v, p) for v, p, a in zip(values, chances, audits, strict=True) if not a]
    truth = sum(odd) / n
    estimate = hajek(*zip(*rest, strict=True))
    assert abs(estimate.value - truth) < 0.025 and estimate.lower < truth < estimate.upper
    weights = stratum_weights(chances, audits)
    assert abs(math.fsum(v * w for v, w in zip(values, weights, strict=True)) / math.fsum(weights) - truth) < 0.025
    assert abs(sum(values) / len(values) - truth) > 0.1, "without the chances it would be far off"
