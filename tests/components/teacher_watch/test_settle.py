import re

import msgspec
import pytest

from components.contracts.errors import NotFoundError, RecordError, TransitionError
from components.contracts.records import DeadLetter, Input, Label, SoftLabel, decode, encode
from components.contracts.signing import Signer, Verifier, new_key
from components.contracts.spec import Factory
from components.contracts.spec.masking import Masking
from components.control.teachers import decide, incidents
from components.ledger.ledger import entries, verify
from components.snapshot.provenance import Declared
from components.stream.contract import TopicPartition
from components.teacher_watch.label_trace import LabelTrace
from components.teacher_watch.settle import key_of, settle, status, unsettled
from tests.components.teacher_watch.conftest import Changing, labels_on


@pytest.fixture
def changed(begin):
    """A workload whose teacher changed every answer on the way, with some labels in quarantine."""
    teacher = Changing()
    loop = begin(teacher)
    loop.many(200)
    teacher.share = 0.3
    loop.many(300)
    for n in range(5):
        loop.step([f"q{n}-{k}" for k in range(10)])
    return loop


def suspects(loop, store):
    (incident,) = incidents(store, "w")
    ambiguous = [x for x in labels_on(loop.broker, "w.labels") if x.labelled_at >= incident.suspect_from]
    return incident, ambiguous, labels_on(loop.broker, "w.labels.quarantine")


def inputs_on(broker):
    return [decode(Input, r.value) for r in broker.logs[TopicPartition("w.inputs", 0)]]


def letters_on(broker):
    return [decode(DeadLetter, r.value) for r in broker.logs[TopicPartition("w.inputs.dlq", 0)]]


def carry_out(loop, store, incident, **options):
    return settle(loop.spec, loop.broker, store, incident.id, sleep=lambda _: None, **options)


def trainable(loop, store):
    """What a window takes of the labels topic: each input once, however it came there."""
    declared, taken = Declared.of(loop.spec, store, loop.guard.declared, None), []
    for record in loop.broker.logs[TopicPartition("w.labels", 0)]:
        try:
            taken.append(declared.check(record))
        except RecordError:
            continue
    return taken


def test_accepted_labels_are_released_in_the_new_epoch_and_doubtful_inputs_labelled_again(changed, store):
    incident, ambiguous, quarantined = suspects(changed, store)
    decide(store, "w", "accept", "ada", "new version")
    counts = carry_out(changed, store, incident)
    assert counts == {"released": len(quarantined), "dropped": 0, "relabelled": len(ambiguous)}
    released = labels_on(changed.broker, "w.labels")[-len(quarantined) :]
    assert {x.teacher for x in released} == {incident.teacher + "#1"}
    assert all(x.key == key_of(x) for x in released)
    assert [x.soft for x in released] == [x.soft for x in quarantined]
    assert inputs_on(changed.broker) == [x.input for x in ambiguous]
    changed.label(inputs_on(changed.broker))
    expected = sorted({x.input.id for x in (*ambiguous, *quarantined)})
    assert sorted(x.input.id for x in trainable(changed, store)) == expected


def test_rejected_labels_are_dropped_and_every_input_has_a_right_label_in_the_end(changed, store, clock):
    incident, ambiguous, quarantined = suspects(changed, store)
    decide(store, "w", "reject", "ada", "broken")
    counts = carry_out(changed, store, incident)
    both = len(ambiguous) + len(quarantined)
    assert counts == {"released": 0, "dropped": both, "relabelled": both}
    letters = letters_on(changed.broker)
    assert {x.reason for x in letters} == {"teacher_rejected"} and len(letters) == both
    changed.guard.teacher.share = 0.0
    clock.now += 10
    changed.label(inputs_on(changed.broker))
    taken = trainable(changed, store)
    everything = {x.input.id for x in labels_on(changed.broker, "w.labels")} | {x.input.id for x in quarantined}
    assert sorted(x.input.id for x in taken) == sorted(everything), "none lost, none double"
    right = Changing()
    assert all(x.soft == right.answer(x.input.payload.decode()) for x in taken)


class Crash(Exception):
    pass


@pytest.mark.parametrize("verdict", ["accept", "reject"])
@pytest.mark.parametrize(
    ("place", "time"), [("settle.2", 1), ("settle.5", 1), ("settle.5", 2), ("settle.6", 1), ("settle.6", 2)]
)
def test_after_a_crash_anywhere_nothing_is_lost_or_double(changed, store, monkeypatch, verdict, place, time):
    incident, ambiguous, quarantined = suspects(changed, store)
    decide(store, "w", verdict, "ada", "why")
    passed = []

    def dies(name):
        passed.append(name)
        if passed.count(place) == time:
            raise Crash

    monkeypatch.setattr("components.teacher_watch.settle.CHUNK", 20)
    monkeypatch.setattr("components.teacher_watch.settle.failpoint", dies)
    with pytest.raises(Crash):
        carry_out(changed, store, incident)
    assert [i.id for i in unsettled(store, "w")] == [incident.id]
    monkeypatch.setattr("components.teacher_watch.settle.failpoint", lambda _: None)
    carry_out(changed, store, incident)
    assert unsettled(store, "w") == []
    keys = [x.key for x in labels_on(changed.broker, "w.labels")]
    assert len(keys) == len(set(keys))
    again = {i.id for i in inputs_on(changed.broker)}
    places = [(x.topic, x.offset) for x in letters_on(changed.broker)]
    if verdict == "accept":
        assert again == {x.input.id for x in ambiguous} and places == []
        assert sum(x.teacher.endswith("#1") for x in labels_on(changed.broker, "w.labels")) == len(quarantined)
    else:
        assert again == {x.input.id for x in (*ambiguous, *quarantined)}
        assert len(places) == len(set(places)) == len(ambiguous) + len(quarantined)


FINDER = """
import re


def made():
    def find(text):
        if text == "q4-9":
            raise RuntimeError("of this text alone")
        return [("NUMBER", found.start(), found.end()) for found in re.finditer("[0-9]+", text)]

    return find
"""


@pytest.mark.parametrize("verdict", ["accept", "reject"])
def test_labels_of_before_masking_are_written_masked_and_one_that_cannot_be_searched_is_not(
    changed, store, tmp_path, verdict
):
    (tmp_path / "finder.py").write_text(FINDER)
    masking = Masking(entities=("NUMBER",), finder=Factory(factory="finder.py:made"))
    changed.spec = msgspec.structs.replace(changed.spec, masking=masking, source=str(tmp_path / "w.yaml"))
    incident, ambiguous, quarantined = suspects(changed, store)
    topics = ("w.labels", "w.inputs", "w.inputs.dlq")
    logs = [changed.broker.logs.setdefault(TopicPartition(topic, 0), []) for topic in topics]
    before = [len(log) for log in logs]
    decide(store, "w", verdict, "ada", "why")
    counts = carry_out(changed, store, incident)
    labels, inputs, letters = (log[n:] for log, n in zip(logs, before, strict=True))
    unsearched = [decode(DeadLetter, r.value) for r in letters if decode(DeadLetter, r.value).reason == "mask_failed"]
    assert len(unsearched) == 1 and unsearched[0].value == b""
    whole = len(ambiguous) + len(quarantined) - 1
    if verdict == "accept":
        assert counts == {"released": len(quarantined) - 1, "dropped": 1, "relabelled": len(ambiguous)}
    else:
        assert counts == {"released": 0, "dropped": whole + 1, "relabelled": whole}
    released = [decode(Label, r.value) for r in labels]
    assert all(x.key == key_of(x) and r.key == x.key.encode() for x, r in zip(released, labels, strict=True))
    rejected = [decode(DeadLetter, r.value) for r in letters if decode(DeadLetter, r.value).reason != "mask_failed"]
    written = [x.input for x in released] + [decode(Input, r.value) for r in inputs]
    written += [decode(Label, x.value).input for x in rejected]
    assert len(written) == (whole if verdict == "accept" else 2 * whole)
    assert all(b"NUMBER" in x.payload and not re.search(rb"[0-9]", x.payload) for x in written)


def test_suspect_labels_of_another_task_are_neither_counted_nor_released(changed, store):
    incident, _, quarantined = suspects(changed, store)
    other = msgspec.structs.replace(
        quarantined[0], soft=SoftLabel(task="multilabel", space="parity@1", distribution={"odd": 0.9})
    )
    changed.broker.producer().send("w.labels.quarantine", other.key, encode(other))
    changed.broker.producer().send("w.labels", other.key, encode(other))
    trace = LabelTrace(changed.spec, store, changed.broker, incident.teacher, "labeler", changed.clock)
    assert trace.first_since(other.labelled_at, {}, other.teacher) == (None, 0)
    decide(store, "w", "accept", "ada", "new version")
    assert carry_out(changed, store, incident)["released"] == len(quarantined)


def test_settling_again_changes_nothing(changed, store):
    incident, _, _ = suspects(changed, store)
    decide(store, "w", "accept", "ada", "new version")
    first, written = carry_out(changed, store, incident), len(labels_on(changed.broker, "w.labels"))
    assert carry_out(changed, store, incident) == first
    assert len(labels_on(changed.broker, "w.labels")) == written


def test_of_a_teacher_that_moved_twice_nothing_is_released(changed, store, clock):
    clock.now += 10
    changed.guard.teacher.share = 0.9
    for n in range(20):
        changed.step([f"m{n}-{k}" for k in range(10)])
    incident, ambiguous, quarantined = suspects(changed, store)
    decide(store, "w", "accept", "ada", "whatever")
    counts = carry_out(changed, store, incident)
    assert counts == {"released": 0, "dropped": 0, "relabelled": len(ambiguous) + len(quarantined)}


def test_released_labels_are_signed(changed, store):
    incident, _, quarantined = suspects(changed, store)
    private, public = new_key()
    decide(store, "w", "accept", "ada", "new version")
    carry_out(changed, store, incident, signer=Signer(private))
    records = changed.broker.logs[TopicPartition("w.labels", 0)][-len(quarantined) :]
    assert all(Verifier(public).accepts(r.value, r.headers) for r in records)


def test_a_decision_is_in_the_ledger_once_and_stands(changed, store):
    decide(store, "w", "accept", "ada", "new version")
    decide(store, "w", "accept", "ada", "new version")
    (entry,) = entries(store, "w")
    assert (entry.actor, entry.action, entry.detail["reason"]) == ("ada", "teacher-accept", "new version")
    assert verify(store) == 1
    with pytest.raises(TransitionError, match="is decided: accept"):
        decide(store, "w", "reject", "bob", "no")


def test_there_is_nothing_to_decide_about_a_teacher_that_did_not_change(begin, store):
    begin().many(100)
    with pytest.raises(NotFoundError, match="no teacher of this workload changed"):
        decide(store, "w", "accept", "ada", "why not")


def test_nothing_is_settled_before_a_decision(changed, store):
    with pytest.raises(NotFoundError, match="accept or reject"):
        settle(changed.spec, changed.broker, store, 1)


def test_status_says_what_happened(changed, store):
    _, ambiguous, _ = suspects(changed, store)
    (row,) = status(store, "w")
    assert row["now"] == "suspect" and row["first_label"] == ambiguous[0].key and row["verdict"] is None
    assert row["suspects"] == len(ambiguous) and row["settled"] is False
    msgspec.json.encode(row)
