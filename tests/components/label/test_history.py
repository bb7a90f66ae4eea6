import threading

import msgspec
import pytest

from components.contracts.errors import ConfigError, UnavailableError
from components.contracts.records import Input, Label, SoftLabel, Truth, decode, encode
from components.contracts.spec import Factory, Payload, Policy, Serve, Spec, build
from components.contracts.spec import Label as LabelSection
from components.control.teachers import TeacherState, decide, incidents, open_incident, put_teacher
from components.label.asking import Company
from components.label.history import label_history
from components.label.history_file import Historic
from components.label.labeler import Labeler
from components.review import reviews
from components.stream.contract import read_to_end
from components.stream.memory import MemoryBroker
from components.teacher_watch.guard import Guard
from components.teacher_watch.settle import settle
from tests.waiting import wait_for

TEACHER = """
from components.contracts.records import SoftLabel

class Letters:
    name, digest, task, space, classes, size_bytes = "letters", "1", "classification", "s@1", ("a", "b"), 10

    def label(self, payloads):
        return [SoftLabel.of(self.space, self.classes, [0.9, 0.1] if "a" in p else [0.1, 0.9]) for p in payloads]
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "user.py").write_text(TEACHER)
    return Spec(
        name="letters",
        teacher=Factory(factory="user.py:Letters"),
        features=Factory(factory="f:F"),
        payload=Payload(decoder="text"),
        source=str(tmp_path / "letters.yaml"),
    )


@pytest.fixture
def broker():
    return MemoryBroker()


def entry(i, payload, truth="a"):
    return Historic(
        input=Input(workload="letters", id=f"i{i}", key="k", time=1000.0 + i, payload=payload),
        truth=truth
        and Truth(
            workload="letters", input_id=f"i{i}", time=1000.0 + i, known_at=1000.0 + i, source="history", label=truth
        ),
    )


def on(broker, topic, kind):
    consumer = broker.consumer([f"letters.{topic}"])
    return [decode(kind, r.value) for r in read_to_end(consumer)]


def test_a_fresh_platform_is_labelled_here_and_dead_content_is_waited_for(spec, broker, store):
    entries = [entry(0, b"a"), entry(1, b"b", None), entry(2, b"a"), entry(3, b"\xff")]
    counts = label_history(spec, broker, store, entries, patience=0.0)
    assert counts == {"inputs": 4, "contents": 3, "dead": 1, "skipped": 0}
    assert [label.input.id for label in on(broker, "labels", Label)] == ["i0", "i1", "i2"]
    assert [t.input_id for t in on(broker, "truth", Truth)] == ["i0", "i2", "i3"]
    assert broker.consumer([spec.topic("inputs")], group="letters.labeler").lag() == 0


def test_the_same_history_again_is_through_at_once(spec, broker, store):
    entries = [entry(i, b"a%d" % i) for i in range(5)]
    label_history(spec, broker, store, entries, patience=0.0)
    # With this patience the test would time out if it waited for labels that do not come.
    assert label_history(spec, broker, store, entries, patience=1e9)["contents"] == 5
    assert len(on(broker, "labels", Label)) == 5


@pytest.fixture
def choosy(spec, monkeypatch):
    monkeypatch.setattr("components.label.history.LOOK_SECONDS", 0.0)

    def made(share):
        label = LabelSection(policy=Policy(kind="random", share=share), audit_share=0.0)
        return msgspec.structs.replace(spec, label=label, serve=Serve(audit_share=0.0))

    return made


def test_what_the_policy_skips_is_not_waited_for(choosy, broker, store):
    entries = [entry(i, b"a%d" % i) for i in range(40)]
    counts = label_history(choosy(0.5), broker, store, entries, patience=0.0)
    labelled = len(on(broker, "labels", Label))
    assert 0 < labelled < 40 and counts["skipped"] == 40 - labelled


def test_a_history_of_which_the_policy_leaves_nothing_is_refused(choosy, broker, store):
    with pytest.raises(ConfigError, match=r"label.*3 of 3 inputs.*cohobate budget status"):
        label_history(choosy(1e-9), broker, store, [entry(i, b"a%d" % i) for i in range(3)], patience=0.0)


def test_dead_letters_count_where_the_policy_skips_others(choosy, broker, store):
    entries = [entry(i, b"\xff%d" % i if i % 2 else b"a%d" % i) for i in range(40)]
    counts = label_history(choosy(0.5), broker, store, entries, patience=0.0)
    labelled = len(on(broker, "labels", Label))
    assert 0 < labelled < 20
    assert counts == {"inputs": 40, "contents": 40, "dead": 20, "skipped": 20 - labelled}


class Late(MemoryBroker):
    """Shows nothing of the answers until it was seen that a labeler has read all inputs."""

    hidden = False

    def consumer(self, topics, group=None, **options):
        found = super().consumer(topics, group, **options)
        if group == "letters.labeler" and "partitions" not in options and found.lag() == 0:
            self.hidden = False
        elif "letters.inputs.dlq" in topics:
            self.hidden = True
            seen = found.ends
            found.ends = lambda: found.positions() if self.hidden else seen()
        return found


def test_dead_letters_that_came_just_before_the_last_look_count(choosy, store):
    entries = [entry(0, b"a"), entry(1, b"\xff")]
    assert label_history(choosy(1.0), Late(), store, entries, patience=0.0)["dead"] == 1


@pytest.fixture
def asking_people(choosy, store):
    """A policy, and people as the teacher."""
    options = {"space": "s@1", "classes": ["a", "b"], "database_url": str(store.url)}
    people = Factory(factory="components.review.human:HumanTeacher", options=options)
    return lambda share: msgspec.structs.replace(choosy(share), teacher=people)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_what_waits_for_people_was_not_skipped(asking_people, broker, store, share):
    spec, entries = asking_people(share), [entry(i, b"a%d" % i) for i in range(40)]
    with pytest.raises(UnavailableError, match="cohobate review list") as refused:
        label_history(spec, broker, store, entries, patience=0.0)
    open_ones = reviews.waiting(store, spec.name)
    assert f"{len(open_ones)} inputs" in str(refused.value) and (0 < len(open_ones) < 40 or share == 1.0)
    for row in open_ones:
        reviews.answer(store, broker, spec.name, row.key, "a", "ada")
    assert label_history(spec, broker, store, entries, patience=0.0)["skipped"] == 40 - len(open_ones)


def test_a_question_to_an_earlier_teacher_is_not_waited_for(asking_people, choosy, broker, store):
    entries = [entry(i, b"a%d" % i) for i in range(3)]
    with pytest.raises(UnavailableError):
        label_history(asking_people(1.0), broker, store, entries, patience=0.0)
    declared = msgspec.structs.replace(choosy(1e-9), teacher_digest="letters@1")
    with pytest.raises(ConfigError, match="3 of 3 inputs"):
        label_history(declared, broker, store, entries, patience=0.0)


@pytest.fixture
def suspected(broker, store, tmp_path):
    """Puts a spec's teacher under suspicion, and gives what makes its labelers."""

    def made(spec):
        teacher = build(spec.teacher, spec.source)
        state = TeacherState(space=teacher.space, classes=teacher.classes, since=0.0)
        put_teacher(store, spec.name, "letters@1", 0, state)
        open_incident(
            store, spec.name, "letters@1", 1, state, suspect_from=1.0, index=0, candidate=[], detail={}
        )  # fmt: skip
        return lambda: Labeler(
            spec, teacher, broker, company=Company(guard=Guard(spec, teacher, store, broker, f"file://{tmp_path}/a"))
        )

    return made


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_what_lies_in_quarantine_was_not_skipped(choosy, broker, store, suspected, share):
    spec, entries = choosy(share), [entry(i, b"a%d" % i) for i in range(40)]
    make = suspected(spec)
    with pytest.raises(UnavailableError, match="cohobate teacher status") as refused:
        label_history(spec, broker, store, entries, patience=0.0, make=make)
    apart = len(on(broker, "labels.quarantine", Label))
    assert f"{apart} inputs" in str(refused.value) and (0 < apart < 40 or share == 1.0)
    accepted = decide(store, spec.name, "accept", "ada", "a better one")
    settle(spec, broker, store, accepted.id, grace=0.0)
    assert label_history(spec, broker, store, entries, patience=0.0, make=make)["skipped"] == 40 - apart


def test_what_was_in_quarantine_may_be_skipped_when_it_is_asked_for_again(choosy, broker, store, suspected):
    entries = [entry(i, b"a%d" % i) for i in range(3)]
    spec = choosy(1.0)
    with pytest.raises(UnavailableError):
        label_history(spec, broker, store, entries, patience=0.0, make=suspected(spec))
    decide(store, spec.name, "reject", "ada", "a worse one")
    (incident,) = incidents(store, spec.name)
    settle(spec, broker, store, incident.id, grace=0.0)
    with pytest.raises(ConfigError, match="3 of 3 inputs"):
        label_history(choosy(1e-9), broker, store, entries, patience=0.0)


def test_it_leaves_the_labelling_to_a_labeler_that_is_at_work(spec, broker, store):
    broker.ensure_topics(spec.topics)
    labeler, stop = Labeler(spec, build(spec.teacher, spec.source), broker), threading.Event()
    thread = threading.Thread(target=labeler.run, args=(stop,))
    thread.start()
    try:
        label_history(spec, broker, store, [entry(i, b"a%d" % i) for i in range(50)], patience=1e9)
        wait_for(lambda: labeler.counts["labelled"] == 50)
    finally:
        stop.set()
        thread.join()


def test_labels_of_a_teacher_that_is_not_the_declared_one_do_not_count(spec, broker, store, tmp_path):
    label_history(spec, broker, store, [entry(0, b"a")], patience=0.0)
    (tmp_path / "newer.py").write_text(TEACHER.replace('"letters", "1"', '"letters", "2"'))
    newer = msgspec.structs.replace(spec, teacher=Factory(factory="newer.py:Letters"), teacher_digest="letters@2")
    label_history(newer, broker, store, [entry(0, b"a")], patience=0.0)
    assert [label.teacher for label in on(broker, "labels", Label)] == ["letters@1", "letters@2"]


def test_labels_of_another_task_do_not_count(spec, broker, store):
    label_history(spec, broker, store, [entry(0, b"a")], patience=0.0)
    (made,) = on(broker, "labels", Label)
    soft = SoftLabel(task="multilabel", space="letters@1", distribution={"a": 0.9})
    other = msgspec.structs.replace(made, soft=soft, input=entry(1, b"b").input)
    broker.producer().send("letters.labels", "k", encode(other))
    label_history(spec, broker, store, [entry(1, b"b")], patience=0.0)
    assert [x.soft.task for x in on(broker, "labels", Label)] == ["classification", "multilabel", "classification"]


def test_what_is_consumed_and_gets_no_label_is_an_error_that_says_so(spec, broker, store):
    broker.ensure_topics(spec.topics)
    producer, lost = broker.producer(), entry(0, b"a")

    class Forgetful(MemoryBroker):
        """Loses inputs: nothing arrives on that topic."""

        def producer(self):
            return self

        def send(self, topic, key, value, headers=None):
            if topic != "letters.inputs":
                producer.send(topic, key, value, headers)

        def flush(self, timeout=30.0):
            pass

        def close(self):
            pass

    with pytest.raises(UnavailableError, match="1 inputs of the history got no label"):
        label_history(spec, Forgetful(), store, [lost], patience=0.1)
