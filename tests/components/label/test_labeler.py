import threading
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from components.contracts.admission import LETTER_BYTES
from components.contracts.errors import (
    ConfigError,
    FencedError,
    FinderError,
    LostPositionsError,
    TeacherError,
    UnavailableError,
)
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
from components.contracts.spec import Budget as Limits
from components.contracts.spec import Factory, Masking, Payload, Spec
from components.contracts.spec import Label as LabelSection
from components.label import partition_worker as partition_workers
from components.label import worker_group
from components.label.asking import Company
from components.label.labeler import Labeler
from components.query.budget import Budget
from components.query.selector import Selector
from components.stream.contract import TopicPartition
from components.stream.memory import MemoryBroker
from components.telemetry.metrics import LabelerMetrics

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
    assert first.key == label_key(first.input, first.teacher, "length@1")
    assert [r.key for r in broker.logs[TopicPartition("w.labels", 0)]] == [first.key.encode(), second.key.encode()]
    assert committed(broker) == 2 and labeler.counts == {
        "labelled": 2,
        "duplicates": 0,
        "dead": 0,
        "deferred": 0,
        "skipped": 0,
    }
    assert labeler.step(0.0) == 0 and labeler.lag() == 0


def test_after_a_pause_inputs_are_looked_for_every_half_second(start, monkeypatch):
    """However short the slices are in which a thread waits."""
    now, looks = 1_000.0, []

    def wait(seconds):
        nonlocal now
        now += seconds

    def poll(_room, seconds):
        looks.append(now)
        wait(seconds)
        return []

    labeler = start()
    labeler._open_workers()
    worker = next(iter(labeler._workers.values()))
    monkeypatch.setattr(partition_workers, "time", SimpleNamespace(monotonic=lambda: now, sleep=wait))
    monkeypatch.setattr(worker, "_poll", poll)
    while now < 1_010.0:
        worker.fetch(0.2)
    assert np.diff(looks) == pytest.approx(partition_workers.IDLE_LOOK_SECONDS)


def test_the_teacher_is_asked_in_batches(start, broker):
    put(broker, *[entry(f"i{n}", f"text {n}") for n in range(9)])
    labeler, sizes = start(teacher := Teacher()), []
    while labeler.lag():
        sizes.append(labeler.step(0.0))
    assert sizes == [4, 4, 1] and [len(a) for a in teacher.asked] == sizes


def test_repeated_content_costs_one_call_and_every_input_gets_its_label(start, broker):
    put(broker, entry("a", "same"), entry("b", "same"), entry("c", "other"))
    labeler = start(teacher := Teacher())
    labeler.step(0.0)
    put(broker, entry("d", "same"))
    assert labeler.step(0.0) == 1 and committed(broker) == 4
    assert labeler.counts == {"labelled": 4, "duplicates": 0, "dead": 0, "deferred": 0, "skipped": 0}
    assert teacher.asked == [["same", "other"]], "it is not even asked again"
    assert [x.input.id for x in labels(broker)] == ["a", "b", "c", "d"]
    assert len({x.key for x in labels(broker)}) == 4
    assert {content_hash(x.input.payload) for x in labels(broker)} == {content_hash(b"same"), content_hash(b"other")}


def test_the_teacher_may_be_asked_every_time(start, broker, spec):
    put(broker, entry("a", "same"), entry("b", "same"))
    start(teacher := Teacher(), label=msgspec.structs.replace(spec.label, reuse=0)).step(0.0)
    assert teacher.asked == [["same", "same"]]


def test_answers_are_kept_for_the_newest_contents_only(start, broker, spec):
    labeler = start(teacher := Teacher(), label=msgspec.structs.replace(spec.label, reuse=2, batch=1))
    for id_, text in enumerate(["one", "two", "one", "three", "two", "one"]):
        put(broker, entry(f"i{id_}", text))
        labeler.step(0.0)
    assert teacher.asked == [["one"], ["two"], ["three"], ["two"], ["one"]]


def test_an_input_that_is_delivered_again_gets_no_second_label(start, broker):
    put(broker, entry("a", "one"), entry("a", "one"), entry("a", "other content"))
    labeler = start()
    labeler.step(0.0)
    put(broker, entry("a", "one"))
    labeler.step(0.0)
    assert [x.input.payload for x in labels(broker)] == [b"one", b"other content"]
    assert labeler.counts == {"labelled": 2, "duplicates": 2, "dead": 0, "deferred": 0, "skipped": 0}
    again = start(teacher := Teacher())
    put(broker, entry("a", "one"))
    assert again.step(0.0) == 1 and teacher.asked == [], "a new labeler reads back what was labelled"


POISON = {
    "undecodable": b"not msgpack",
    "unknown_schema": msgspec.msgpack.encode({"schema": 99}),
    "invalid": msgspec.msgpack.encode({"schema": 1, "workload": "w"}),
    "wrong_workload": entry("x", "text", workload="other"),
    "future_time": entry("x", "text", time=NOW + 86_400.0 + 1),
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
    assert (
        labeler.counts == {"labelled": 2, "duplicates": 0, "dead": 1, "deferred": 0, "skipped": 0}
        and committed(broker) == 3
    )


def test_a_tombstone_becomes_a_dead_letter_that_says_so_and_stops_nothing(start, broker):
    put(broker, entry("before", "good"))
    for topic in ("w.inputs", "w.inputs.urgent", "w.labels", "w.labels.quarantine", "w.inputs.dlq"):
        broker.producer().send(topic, "k", None, {"traceparent": None})
    put(broker, entry("after", "also good"))
    labeler = start()
    while labeler.step(0.0):
        pass
    made = [decode(Label, r.value).input.id for r in broker.logs[TopicPartition("w.labels", 0)] if r.value is not None]
    assert made == ["before", "after"]
    found = [decode(DeadLetter, r.value) for r in broker.logs[TopicPartition("w.inputs.dlq", 0)] if r.value is not None]
    assert {(x.topic, x.reason, x.tombstone, x.value) for x in found} == {
        ("w.inputs", "empty", True, b""), ("w.inputs.urgent", "empty", True, b""),
    }  # fmt: skip
    broker.groups.clear()
    again = start()
    while again.step(0.0):
        pass
    assert again.counts["dead"] == again.counts["labelled"] == 0, "what is visible already gets no second letter"


def test_an_input_whose_headers_have_no_values_is_labelled(start, broker):
    put(broker, entry("a", "good"), headers={"traceparent": None, "tracestate": None, "cohobate-attempts": None})
    assert start().step(0.0) == 1 and [x.input.id for x in labels(broker)] == ["a"]


def test_a_null_byte_in_a_key_is_a_byte_like_others(start, broker):
    value = encode(Input(workload="w", id="i\0d", key="a\0b", time=NOW, payload=b"a\0text"))
    broker.producer().send("w.inputs", b"a\0b", value)
    broker.producer().send("w.inputs", b"\0", b"poison")
    assert start().step(0.0) == 2
    (label,), (letter,) = labels(broker), letters(broker)
    assert (label.input.id, label.input.key, letter.key) == ("i\0d", "a\0b", b"\0")


def test_a_time_zone_ahead_is_no_poison(start, broker):
    put(broker, entry("a", "text", time=NOW + 86_400.0))
    assert start().step(0.0) == 1 and len(labels(broker)) == 1


def test_a_huge_record_is_cut_in_its_letter(start, broker):
    put(broker, b"\xc1" * (LETTER_BYTES + 10))
    start().step(0.0)
    (letter,) = letters(broker)
    assert len(letter.value) == LETTER_BYTES and str(LETTER_BYTES + 10) in letter.detail


PLACES = [f"labeler.{n}" for n in range(1, 11)]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("place", PLACES)
def test_a_crash_after_any_step_loses_and_doubles_nothing(start, broker, monkeypatch, place):
    """The crash is an exception here; that a killed process leaves no more is the broker's part (tests/chaos)."""
    put(broker, entry("a", "one"), b"poison", entry("b", "two"))
    passed = []

    def crash(name):
        passed.append(name)
        if name == place:
            raise Killed(name)

    with monkeypatch.context() as broken:
        broken.setattr(partition_workers, "failpoint", crash)
        with pytest.raises(Killed):
            start().step(0.0)
    done = place == "labeler.10"
    assert passed[-1] == place and passed == PLACES[: len(passed)]
    assert (len(labels(broker)), len(letters(broker)), committed(broker)) == ((2, 1, 3) if done else (0, 0, 0))
    again = start(teacher := Teacher())
    assert again.step(0.0) == (0 if done else 3) and committed(broker) == 3
    assert [x.input.id for x in labels(broker)] == ["a", "b"] and len(letters(broker)) == 1
    assert len(teacher.asked) == (0 if done else 1)


def test_a_batch_that_was_not_confirmed_comes_again(start, broker, monkeypatch):
    put(broker, entry("a", "one"), b"poison")
    labeler = start()

    def lost(self, timeout=30.0):
        raise UnavailableError("Kafka", "here", "records were not confirmed")

    with monkeypatch.context() as broken:
        broken.setattr("components.stream.memory.MemoryTransactions.commit", lost)
        with pytest.raises(UnavailableError):
            labeler.step(0.0)
    assert committed(broker) == 0 and labeler.counts["labelled"] == 0
    put(broker, entry("c", "three"))
    assert labeler.step(0.0) == 3 and committed(broker) == 3, "nothing was skipped"
    assert [x.input.id for x in labels(broker)] == ["a", "c"] and len(letters(broker)) == 1


def test_a_batch_that_the_teacher_failed_on_is_asked_for_again(start, broker):
    put(broker, entry("a", "one"))
    teacher = Teacher(lambda p: 1 / 0 if len(teacher.asked) == 1 else teacher.right(p))
    labeler = start(teacher)
    with pytest.raises(TeacherError, match="raised ZeroDivisionError"):
        labeler.step(0.0)
    put(broker, entry("b", "two"))
    assert labeler.lag() == 2 and labeler.step(0.0) == 1 and labeler.step(0.0) == 1
    assert [x.input.id for x in labels(broker)] == ["a", "b"]


def test_what_waits_for_a_teacher_that_is_away_lags(start, broker):
    put(broker, *[entry(f"i{n}", f"text {n}") for n in range(3)])
    teacher = Teacher(lambda p: 1 / 0)
    labeler = start(teacher)
    with pytest.raises(TeacherError):
        labeler.step(0.0)
    assert labeler.lag() == 3, "they were fetched, and have no label"
    teacher.answer = teacher.right
    assert labeler.step(0.0) == 3 and labeler.lag() == 0


def test_whoever_comes_later_fences_whoever_was_there(start, broker):
    put(broker, entry("a", "one"))
    first = start()
    second = start()
    with pytest.raises(FencedError, match=r"w\.labeler\.0"):
        first.step(0.0)
    assert labels(broker) == [] and second.step(0.0) == 1 and len(labels(broker)) == 1


def test_urgent_inputs_go_first_and_starve_nobody(start, broker, spec):
    put(broker, *[entry(f"bulk{n}", f"b{n}") for n in range(12)])
    for n in range(12):
        broker.producer().send("w.inputs.urgent", "k", entry(f"urgent{n}", f"u{n}"))
    labeler = start()
    while labeler.lag():
        labeler.step(0.0)
    order = ["u" if x.input.id.startswith("urgent") else "b" for x in labels(broker)]
    assert "".join(order) == "uuub" * 4 + "bbbb" * 2
    assert broker.groups["w.labeler"] == {INPUTS: 12, TopicPartition("w.inputs.urgent", 0): 12}


def test_a_batch_is_bounded_by_bytes(start, broker, spec):
    put(broker, *[entry(f"i{n}", "x" * 90) for n in range(4)])
    labeler = start(
        label=msgspec.structs.replace(spec.label, batch_bytes=2 * (partition_workers.RECORD_OVERHEAD + 300))
    )
    assert [labeler.step(0.0) for _ in range(3)] == [2, 2, 0]
    tiny = start(label=msgspec.structs.replace(spec.label, batch_bytes=1))
    put(broker, entry("big", "x" * 90), entry("bigger", "x" * 95))
    assert [tiny.step(0.0) for _ in range(3)] == [1, 1, 0], "one at least"


def test_labels_lie_in_the_partition_of_their_inputs(spec):
    broker = MemoryBroker()
    broker.ensure_topics(spec.topics, partitions=3)
    for n in range(30):
        broker.producer().send("w.inputs", f"key {n}", entry(f"i{n}", f"text {n}"))
    labeler = Labeler(spec, Teacher(), broker, clock=lambda: NOW)
    while labeler.lag():
        labeler.step(0.0)
    for n in range(3):
        ids = [[decode(kind, r.value) for r in broker.logs[TopicPartition(f"w.{topic}", n)]]
               for kind, topic in ((Input, "inputs"), (Label, "labels"))]  # fmt: skip
        assert [i.id for i in ids[0]] == [x.input.id for x in ids[1]] and len(ids[0]) > 1


def test_lost_positions_are_read_again_counted_and_forget_what_was_labelled(start, broker):
    put(broker, entry("a", "one"))
    labeler = start()
    labeler.step(0.0)
    broker.groups["w.labeler"][INPUTS] = 9
    again = start()
    assert again.gauge()["lost_positions"] == 0
    again.step(0.0)
    assert again.gauge()["lost_positions"] == 1 and len(labels(broker)) == 1, "its label is still there"


def test_offsets_without_a_record_are_no_lag_once_all_before_them_is_labelled(start, broker):
    def fails(payload):
        raise TeacherError("length", "it is away")

    teacher = Teacher(fails)
    put(broker, entry("a", "one"), entry("b", "two"), entry("c", "three"))
    broker.erased[INPUTS] = {1, 2}
    labeler = start(teacher)
    with pytest.raises(TeacherError):
        labeler.step(0.0)
    assert labeler.lag() == 3, "what waits for the teacher is not passed by"
    teacher.answer = None
    assert labeler.step(0.0) == 1 and labeler.lag() == 0 and committed(broker) == 1


def test_a_batch_from_before_positions_were_lost_hides_no_input_that_is_read_again(start, broker):
    def answer(payload):
        if payload == "later" and not consumer.resets:
            consumer.resets, consumer._next[INPUTS] = 1, 0
            labeler._workers[0].fetch(0.0)  # as the thread that fetches does meanwhile
        return teacher.right(payload)

    teacher = Teacher(answer)
    labeler = start(teacher, label=LabelSection(batch=2, linger_seconds=0.0))
    consumer = labeler._workers[0]._bulk
    put(broker, *(entry(f"i{n}", "text") for n in range(4)), entry("x", "later"))
    assert [labeler.step(0.0) for _ in range(3)] == [2, 2, 1]
    assert labeler.lag() == 5, "all of them are read again, and two of them are under way"


def test_lost_positions_stop_a_labeler_that_was_told_so(start, broker, spec):
    broker.groups["w.labeler"] = {INPUTS: 9}
    with pytest.raises(LostPositionsError, match=r"w\.inputs-0 has no offset 9"):
        start(label=msgspec.structs.replace(spec.label, on_lost_positions="stop"))


def test_memory_of_labelled_content_is_bounded(start, broker):
    bounded = LabelSection(batch=4, linger_seconds=0.0, remember=2)
    put(broker, *[entry(f"i{n}", f"text {n}") for n in range(4)])
    labeler = start(label=bounded)
    labeler.step(0.0)
    put(broker, entry("i3", "text 3"), entry("i0", "text 0"))
    labeler.step(0.0)
    assert labeler.counts == {"labelled": 5, "duplicates": 1, "dead": 0, "deferred": 0, "skipped": 0}
    put(broker, entry("i0", "text 0"), entry("i1", "text 1"))
    again = start(label=bounded)
    again.step(0.0)
    assert again.counts == {"labelled": 1, "duplicates": 1, "dead": 0, "deferred": 0, "skipped": 0}, (
        "read back: the last ones only"
    )


def test_another_teacher_labels_the_same_content_anew(start, broker):
    put(broker, entry("a", "same"))
    start().step(0.0)
    other = Teacher()
    other.digest = "e" * 64
    put(broker, entry("a", "same"))
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


@pytest.mark.parametrize("classes", [(True, False), (0, 1), "ab", (None, "b"), ("a", "")])
def test_a_teacher_whose_classes_are_no_names_is_refused_at_the_start(start, classes):
    teacher = Teacher()
    teacher.classes = classes
    with pytest.raises(ConfigError, match=r"teacher\.classes"):
        start(teacher)


@pytest.mark.parametrize(
    ("distribution", "says"),
    [
        ({"lo\ud800ng": 0.5, "short": 0.5}, "surrogates"),
        ({"long": np.float32(0.5), "short": np.float32(0.5)}, "float32"),
        ({"long": "0.5"}, ""),
    ],
)
def test_no_label_leaves_that_no_reader_could_read(start, broker, distribution, says):
    teacher = Teacher(lambda p: forged(distribution))
    teacher.classes = (*Teacher.classes, "lo\ud800ng")
    put(broker, entry("a", "text"))
    with pytest.raises(TeacherError, match=f"no reader of labels could read.*{says}"):
        start(teacher).step(0.0)
    assert labels(broker) == []


def forged(distribution):
    """A soft label past its own checks."""
    soft = SoftLabel.of("length@1", Teacher.classes, [0.5, 0.5])
    soft.distribution.clear()
    soft.distribution.update(distribution)
    return soft


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


def test_the_gauge_and_the_metrics_say_who_was_chosen_and_what_the_budget_has_left(spec, broker, store, monkeypatch):
    monkeypatch.setattr("components.label.labeler.SELECTION_SECONDS", 0.0)
    metrics = LabelerMetrics("w")
    spec = msgspec.structs.replace(
        spec, label=msgspec.structs.replace(spec.label, budget=Limits(per_hour=100, audits=0.3))
    )
    budget = Budget(spec.label.budget, "w", store, clock=lambda: NOW)
    company = Company(selector=Selector(spec, budget, lambda: NOW), metrics=metrics)
    labeler = Labeler(spec, Teacher(), broker, clock=lambda: NOW, company=company)
    put(broker, *(entry(f"i{n}", f"text {n}") for n in range(4)))
    labeler.step(0.0)
    asked, gauge = len(labels(broker)), labeler.gauge()
    assert (gauge["budget_left_hour"], gauge["budget_kept_hour"]) == (100 - asked, 30)
    assert sum(n for name, n in gauge.items() if name.startswith("chosen_")) == 4

    def sample(name, **names):
        return metrics.registry.get_sample_value(f"cohobate_{name}", {"workload": "w", **names})

    assert sample("label_budget_left", unit="calls", window="hour") == 70 - asked, "what all may spend"
    assert sum(sample("label_decisions_total", reason=r) or 0 for r in ("drawn", "not_drawn", "audit", "priority")) == 4

    def away():
        raise OperationalError("SELECT", None, Exception("gone"))

    budget._database = type("Away", (), {"session": staticmethod(away)})()
    assert labeler.gauge()["budget_left_hour"] == 100 - asked, "a database that is away stops no labelling"


def test_what_a_producer_wrote_unmasked_is_labelled_masked_and_no_letter_keeps_it(spec, start, broker):
    masking = Masking(entities=("EMAIL",))
    bad = encode(Input(workload="w", id="bad", key="k", time=NOW, payload=b"\xff ada@example.com"))
    put(broker, entry("a", "write to ada@example.com"), entry("b", "ada@example.com", workload="v"), bad, b"Ada's")
    labeler = start(teacher := Teacher(), masking=masking)
    labeler.step(0.0)
    assert teacher.asked == [["write to [EMAIL]"]]
    (label,) = labels(broker)
    assert label.input.payload == b"write to [EMAIL]"
    assert label.key == label_key(label.input, label.teacher, "length@1")
    found = letters(broker)
    assert [letter.reason for letter in found] == ["wrong_workload", "undecodable", "undecodable"]
    assert decode(Input, found[0].value).payload == b"[EMAIL]" and [x.value for x in found[1:]] == [b"", b""]
    assert [(x.cut, x.digest is None) for x in found] == [(False, False), (True, True), (True, True)], (
        "replayed, what was not searched is read from its own place"
    )
    start(Teacher(), masking=masking).step(0.0)
    assert len(letters(broker)) == 3, "delivered again they have their letters"


FINDER = """
import pathlib

STATE = pathlib.Path(__file__).with_name("state")


def find(text):
    if STATE.read_text() == "away" or "poison" in text:
        raise OSError(text)
    return [("NAME", text.index("Ada"), text.index("Ada") + 3)] if "Ada" in text else []


def made():
    return find
"""


@pytest.fixture
def finder(tmp_path):
    """What a spec has to name, and what says how the finder is."""
    (tmp_path / "finder.py").write_text(FINDER)
    state = (tmp_path / "state").write_text
    state("works")
    masking = Masking(entities=("NAME",), finder=Factory(factory="finder.py:made"))
    return SimpleNamespace(spec={"masking": masking, "source": str(tmp_path / "w.yaml")}, state=state)


def test_while_the_finder_fails_nothing_is_labelled_lost_or_lettered_and_then_it_goes_on(start, broker, finder):
    put(broker, entry("a", "Ada came"), entry("b", "nobody"))
    labeler = start(teacher := Teacher(), **finder.spec)
    finder.state("away")
    for _ in range(5):
        with pytest.raises(FinderError):
            labeler.step(0.0)
    assert (labels(broker), letters(broker), committed(broker), teacher.asked) == ([], [], 0, [])
    finder.state("works")
    assert labeler.step(0.0) == 2
    assert [label.input.payload for label in labels(broker)] == [b"[NAME] came", b"nobody"] and committed(broker) == 2


def test_an_input_that_the_finder_alone_fails_on_becomes_a_letter_without_its_bytes(start, broker, finder):
    put(broker, entry("a", "poison of Ada"), entry("b", "Ada came"))
    labeler = start(**finder.spec)
    for _ in range(2):
        with pytest.raises(FinderError):
            labeler.step(0.0)
    labeler.step(0.0)
    (letter,) = letters(broker)
    assert (letter.reason, letter.value, letter.cut) == ("mask_failed", b"", True)
    assert [label.input.payload for label in labels(broker)] == [b"[NAME] came"]


def test_a_labeler_that_runs_says_that_it_waits_for_the_finder_and_heals_by_itself(start, broker, finder, monkeypatch):
    monkeypatch.setattr(worker_group, "RETRY_SECONDS", (0.0, 0.0))
    put(broker, entry("a", "Ada came"))
    labeler, stop, told = start(**finder.spec), threading.Event(), []
    finder.state("away")

    def look():
        told.append(labeler.paused)
        if "masking" in told:
            finder.state("works")
        if (told[-1] == "" and labels(broker)) or len(told) > 100:
            stop.set()

    labeler.run(stop, look)
    assert "masking" in told and told[-1] == "" and letters(broker) == []
    assert [label.input.payload for label in labels(broker)] == [b"[NAME] came"]
