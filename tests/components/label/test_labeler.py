import threading

import msgspec
import pytest

from components.contracts.errors import ConfigError, TeacherError, UnavailableError
from components.contracts.records import (
    DeadLetter,
    Input,
    Label,
    SoftLabel,
    content_hash,
    decode,
    encode,
    label_key,
)
from components.contracts.spec import Factory, Payload, Spec
from components.contracts.spec import Label as LabelSection
from components.label.labeler import FUTURE_SECONDS, LETTER_BYTES, Labeler
from components.stream.contract import TopicPartition
from components.stream.memory import MemoryBroker

NOW = 1_700_000_000.0
INPUTS = TopicPartition("w.inputs", 0)


class Teacher:
    """Says whether a text is long; remembers what it was asked."""

    name, digest, task, space = "length", "d" * 64, "classification", "length@1"
    classes, size_bytes = ("long", "short"), 1

    def __init__(self, answer=None):
        self.asked, self.answer = [], answer

    def label(self, payloads):
        self.asked.append(list(payloads))
        return [self.answer(p) if self.answer else self.right(p) for p in payloads]

    def right(self, payload):
        p = 0.9 if len(payload) > 5 else 0.1
        return SoftLabel.of(self.space, self.classes, [p, 1 - p])


@pytest.fixture
def spec():
    return Spec(
        name="w",
        teacher=Factory(factory="t:T"),
        features=Factory(factory="f:F"),
        payload=Payload(decoder="text", max_bytes=100),
        label=LabelSection(batch=4, linger_seconds=0.0),
    )


@pytest.fixture
def broker(spec):
    broker = MemoryBroker()
    broker.ensure_topics(spec.topics)
    return broker


@pytest.fixture
def start(spec, broker):
    def make(teacher=None, **changes):
        return Labeler(msgspec.structs.replace(spec, **changes), teacher or Teacher(), broker, clock=lambda: NOW)

    return make


def entry(id_, text, *, workload="w", time=NOW):
    return encode(Input(workload=workload, id=id_, key="k", time=time, payload=text.encode()))


def put(broker, *values, headers=None):
    for value in values:
        broker.producer().send("w.inputs", "k", value, headers)


def labels(broker):
    return [decode(Label, r.value) for r in broker.logs[TopicPartition("w.labels", 0)]]


def letters(broker):
    return [decode(DeadLetter, r.value) for r in broker.logs[TopicPartition("w.inputs.dlq", 0)]]


def committed(broker):
    return broker.groups.get("w.labeler", {}).get(INPUTS, 0)


def test_every_input_gets_the_teachers_soft_label(start, broker):
    put(broker, entry("a", "hi"), entry("b", "hello there"))
    labeler = start()
    assert labeler.step(0.0) == 2
    first, second = labels(broker)
    assert (first.soft.label, second.soft.label) == ("short", "long")
    assert second.soft.distribution == pytest.approx({"long": 0.9, "short": 0.1})
    assert first.teacher == "length@" + "d" * 64 and first.labelled_at == NOW and first.input.id == "a"
    assert first.key == label_key(b"hi", first.teacher, "length@1")
    assert [r.key for r in broker.logs[TopicPartition("w.labels", 0)]] == [first.key.encode(), second.key.encode()]
    assert committed(broker) == 2 and labeler.counts == {"labelled": 2, "duplicates": 0, "dead": 0}
    assert labeler.step(0.0) == 0 and labeler.lag() == 0


def test_the_teacher_is_asked_in_batches(start, broker):
    put(broker, *[entry(f"i{n}", f"text {n}") for n in range(9)])
    labeler, sizes = start(teacher := Teacher()), []
    while labeler.lag():
        sizes.append(labeler.step(0.0))
    assert sizes == [4, 4, 1] and [len(a) for a in teacher.asked] == sizes


def test_repeated_content_is_labelled_once(start, broker):
    put(broker, entry("a", "same"), entry("b", "same"), entry("c", "other"))
    labeler = start(teacher := Teacher())
    labeler.step(0.0)
    put(broker, entry("d", "same"))
    assert labeler.step(0.0) == 1 and committed(broker) == 4
    assert labeler.counts == {"labelled": 2, "duplicates": 2, "dead": 0}
    assert teacher.asked == [["same", "other"]], "it is not even asked again"
    assert {content_hash(x.input.payload) for x in labels(broker)} == {content_hash(b"same"), content_hash(b"other")}


POISON = {
    "undecodable": b"not msgpack",
    "unknown_schema": msgspec.msgpack.encode({"schema": 99}),
    "invalid": msgspec.msgpack.encode({"schema": 1, "workload": "w"}),
    "wrong_workload": entry("x", "text", workload="other"),
    "future_time": entry("x", "text", time=NOW + FUTURE_SECONDS + 1),
    "empty": entry("x", ""),
    "oversize": entry("x", "y" * 101),
}


@pytest.mark.parametrize("reason", POISON)
def test_poison_becomes_a_dead_letter_and_stops_nothing(start, broker, reason):
    put(broker, entry("before", "good"))
    put(broker, POISON[reason], headers={"trace": b"7"})
    put(broker, entry("after", "also good"))
    labeler = start()
    assert labeler.step(0.0) == 3
    assert [x.input.id for x in labels(broker)] == ["before", "after"]
    (letter,) = letters(broker)
    assert letter.reason == reason and letter.detail and letter.at == NOW
    assert (letter.topic, letter.partition, letter.offset) == ("w.inputs", 0, 1)
    assert (letter.key, letter.value, letter.headers) == (b"k", POISON[reason], {"trace": b"7"})
    assert labeler.counts == {"labelled": 2, "duplicates": 0, "dead": 1} and committed(broker) == 3


def test_a_time_zone_ahead_is_no_poison(start, broker):
    put(broker, entry("a", "text", time=NOW + FUTURE_SECONDS))
    assert start().step(0.0) == 1 and len(labels(broker)) == 1


def test_a_huge_record_is_cut_in_its_letter(start, broker):
    put(broker, b"\xc1" * (LETTER_BYTES + 10))
    start().step(0.0)
    (letter,) = letters(broker)
    assert len(letter.value) == LETTER_BYTES and str(LETTER_BYTES + 10) in letter.detail


def test_a_crash_between_produce_and_commit_doubles_no_label(start, broker, monkeypatch):
    put(broker, entry("a", "one"), entry("b", "two"))
    labeler = start()

    def crash():
        raise RuntimeError("killed")

    monkeypatch.setattr(labeler._inputs, "commit", crash)
    with pytest.raises(RuntimeError, match="killed"):
        labeler.step(0.0)
    assert len(labels(broker)) == 2 and committed(broker) == 0
    again = start(teacher := Teacher())
    assert again.step(0.0) == 2 and committed(broker) == 2
    assert len(labels(broker)) == 2 and teacher.asked == []
    assert again.counts == {"labelled": 0, "duplicates": 2, "dead": 0}


def test_a_batch_that_was_not_confirmed_is_taken_again(start, broker, monkeypatch):
    put(broker, entry("a", "one"), b"poison")
    labeler = start()

    def lost(timeout=30.0):
        raise UnavailableError("Kafka", "here", "records were not confirmed")

    with monkeypatch.context() as broken:
        broken.setattr(labeler._producer, "flush", lost)
        broken.setattr(labeler._producer, "send", lambda *_: None)
        with pytest.raises(UnavailableError):
            labeler.step(0.0)
    assert committed(broker) == 0 and labeler.counts["labelled"] == 0
    put(broker, entry("c", "three"))
    assert labeler.step(0.0) == 2 and committed(broker) == 2, "the same batch, and nothing was skipped"
    assert labeler.step(0.0) == 1
    assert [x.input.id for x in labels(broker)] == ["a", "c"] and len(letters(broker)) == 1


def test_memory_of_labelled_content_is_bounded(start, broker):
    bounded = LabelSection(batch=4, linger_seconds=0.0, remember=2)
    put(broker, *[entry(f"i{n}", f"text {n}") for n in range(4)])
    labeler = start(label=bounded)
    labeler.step(0.0)
    put(broker, entry("new", "text 3"), entry("old", "text 0"))
    labeler.step(0.0)
    assert labeler.counts == {"labelled": 5, "duplicates": 1, "dead": 0}
    assert list(start(label=bounded)._keys) == [x.key for x in labels(broker)][-2:], "read back: the last ones only"


def test_another_teacher_labels_the_same_content_anew(start, broker):
    put(broker, entry("a", "same"))
    start().step(0.0)
    other = Teacher()
    other.digest = "e" * 64
    put(broker, entry("b", "same"))
    assert start(other).step(0.0) == 1
    assert [x.teacher[-1] for x in labels(broker)] == ["d", "e"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda p: SoftLabel.of("length@1", ("long", "short"), [0.9, 0.9]), "sum to one"),
        (lambda p: SoftLabel.of("length@1", ("long", "short"), [float("nan"), 0.5]), "sum to one"),
        (lambda p: SoftLabel.of("length@2", ("long", "short"), [0.5, 0.5]), "space 'length@2'"),
        (lambda p: SoftLabel.of("length@1", ("huge", "short"), [0.5, 0.5]), "huge"),
        (lambda p: SoftLabel(task="regression", space="length@1", value=1.0, scale=1.0), "not a soft label for class"),
        (lambda p: {"long": 1.0}, "not a soft label"),
    ],
)
def test_an_answer_that_is_no_soft_label_stops_the_labeler(start, broker, answer, says):
    put(broker, entry("a", "text"))
    with pytest.raises(TeacherError, match=says):
        start(Teacher(answer)).step(0.0)
    assert labels(broker) == letters(broker) == [] and committed(broker) == 0


def test_a_missing_answer_stops_the_labeler(start, broker):
    teacher = Teacher()
    teacher.label = lambda payloads: []
    put(broker, entry("a", "text"))
    with pytest.raises(TeacherError, match="0 labels for 1 inputs"):
        start(teacher).step(0.0)


def test_the_declared_teacher_or_none(start):
    start(teacher_digest="length@" + "d" * 64)
    with pytest.raises(ConfigError, match="teacher_digest"):
        start(teacher_digest="length@" + "0" * 64)
    with pytest.raises(ConfigError, match="task"):
        start(task="regression")


def test_it_runs_until_it_is_stopped_and_lets_go(start, broker):
    put(broker, *[entry(f"i{n}", f"text {n}") for n in range(10)])
    labeler, stop, closed = start(), threading.Event(), []
    labeler._inputs.close = lambda: closed.append(True)
    labeler.run(stop, on_batch=lambda: stop.set() if labeler.counts["labelled"] == 10 else None)
    assert len(labels(broker)) == 10 and closed == [True]


def test_an_error_in_a_run_lets_go_too(start, broker):
    put(broker, entry("a", "text"))
    labeler, closed = start(Teacher(lambda p: None)), []
    labeler._inputs.close = lambda: closed.append(True)
    with pytest.raises(TeacherError):
        labeler.run(threading.Event())
    assert closed == [True]
