"""Attacks on the labels topic: what was not made by the declared teacher or a truth source is never learnt from."""

import msgspec
import pytest

from components.contracts.errors import ConfigError, ProvenanceError
from components.contracts.records import DeadLetter, SoftLabel, decode, encode, label_key
from components.contracts.signing import HEADER, Signer, Verifier, new_key
from components.contracts.spec import Consent
from components.control.teachers import Ended, TeacherState, put_teacher, teacher_state
from components.snapshot import freeze, read
from components.snapshot.provenance import REFUSED
from components.stream.contract import TopicPartition

BASE = 1_700_000_000.0
NOW = BASE + 10_000
TEACHER = "sure@1"
SOFT = SoftLabel(task="classification", space="s@1", distribution={"a": 0.75, "b": 0.25})


@pytest.fixture
def attack(spec, tape, store, artifacts, put, make_label):
    """Freeze two good labels and a bad one; the window, and the reasons in the topic of what was refused."""

    def run(bad, *, headers=None, topic="files.labels", **declared):
        changed = msgspec.structs.replace(spec, **declared)
        put(make_label(0), make_label(1))
        tape.put(topic, encode(bad) if not isinstance(bad, bytes) else bad, headers=headers)
        return freeze(changed, tape, store, artifacts, now=NOW), refused(tape)

    return run


def refused(tape):
    return [decode(DeadLetter, r.value) for r in tape.logs.get(TopicPartition("files.labels.refused", 0), [])]


def ids(window):
    return read(window.uri, window.digest)["input_id"].to_pylist()


def relabelled(label, **changes):
    return msgspec.structs.replace(label, **changes)


def forged(label, teacher):
    """A label that names another teacher, with the key that fits it."""
    return relabelled(label, teacher=teacher, key=label_key(label.input, teacher, label.soft.space))


ATTACKS = {
    "a student's prediction dressed as a label": (lambda x: forged(x, "student@" + "5" * 64), "undeclared_teacher"),
    "a wrong digest": (lambda x: forged(x, "sure@2"), "undeclared_teacher"),
    "a name that begins like the teacher's": (lambda x: forged(x, "sure@11"), "undeclared_teacher"),
    "the right digest and a student's key": (
        lambda x: relabelled(x, key=label_key(x.input, "student@7", "s@1")), "wrong_key"),
    "the key of other content": (
        lambda x: relabelled(x, key=label_key(msgspec.structs.replace(x.input, payload=b"other"), TEACHER, "s@1")),
        "wrong_key"),
    "other content under an old key": (
        lambda x: relabelled(x, input=msgspec.structs.replace(x.input, payload=b"poison")), "wrong_key"),
    "another label space": (
        lambda x: relabelled(x, soft=msgspec.structs.replace(SOFT, space="s@2"),
                             key=label_key(x.input, TEACHER, "s@2")), "undeclared_space"),
    "an epoch that has not come": (lambda x: forged(x, TEACHER + "#1"), "unknown_epoch"),
    "an epoch in another spelling": (lambda x: forged(x, TEACHER + "#0"), "unknown_epoch"),
    "an epoch that is no number": (lambda x: forged(x, TEACHER + "#²"), "unknown_epoch"),
    "another workload": (
        lambda x: relabelled(x, input=msgspec.structs.replace(x.input, workload="mail")), "other_workload"),
    "another task": (
        lambda x: relabelled(x, soft=SoftLabel(task="regression", space="s@1", value=1.0, scale=1.0)), "other_task"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_a_forged_label_is_refused_counted_and_quarantined(name, attack, make_label, store):
    forge, reason = ATTACKS[name]
    bad = forge(make_label(2))
    window, letters = attack(bad)
    assert ids(window) == ["i0000", "i0001"]
    assert window.manifest["rejected_reasons"] == {reason: 1}
    (letter,) = letters
    assert (letter.reason, letter.value, letter.topic, letter.offset) == (reason, encode(bad), "files.labels", 2)
    assert store.gauges("files")[REFUSED].value["reasons"] == {reason: 1}


@pytest.mark.parametrize(("consent", "allowed"), [("research", True), ("marketing", False), (None, False)])
def test_only_inputs_under_an_allowed_consent_are_learnt_from(
    consent, allowed, make_label, put, tape, store, artifacts, spec
):
    label = make_label(0)
    put(relabelled(label, input=msgspec.structs.replace(label.input, consent=consent)))
    terms = Consent(required=True, allowed=("research", "all"))
    window = freeze(msgspec.structs.replace(spec, consent=terms), tape, store, artifacts, now=NOW)
    assert (window is not None) == allowed
    reason = "consent_missing" if consent is None else "consent_refused"
    assert [x.reason for x in refused(tape)] == ([] if allowed else [reason])


def test_a_truth_of_an_unknown_source_is_refused(attack, make_truth):
    bad = msgspec.structs.replace(make_truth(1, BASE + 5), source="anybody")
    window, letters = attack(bad, topic="files.truth", truth_sources=("extension",))
    assert [x.reason for x in letters] == ["unknown_source"]
    assert window.manifest["truth_rejected_reasons"] == {"unknown_source": 1} and window.manifest["with_truth"] == 0


def test_a_truth_of_a_declared_source_counts(attack, make_truth):
    window, letters = attack(make_truth(1, BASE + 5), topic="files.truth", truth_sources=("extension",))
    assert window.manifest["with_truth"] == 1 and letters == []


def test_what_is_refused_is_quarantined_once_though_it_is_read_again(attack, make_label, tape, store, spec, artifacts):
    put_again = forged(make_label(5), "student@7")
    tape.put("files.labels", encode(put_again))
    for _ in range(3):
        with pytest.raises(ProvenanceError):
            freeze(spec, tape, store, artifacts, now=NOW)
    assert len(refused(tape)) == 1 and store.gauges("files")[REFUSED].value["total"] == 1
    window, letters = attack(forged(make_label(6), "student@7"))
    assert ids(window) == ["i0000", "i0001"] and len(letters) == 2


def test_classes_that_the_teacher_does_not_have_are_refused(attack, make_label, store):
    put_teacher(store, "files", TEACHER, 0, TeacherState(space="s@1", classes=("a", "b")))
    soft = SoftLabel(task="classification", space="s@1", distribution={"a": 0.5, "z": 0.5})
    _, letters = attack(make_label(2, soft=soft))
    assert [x.reason for x in letters] == ["undeclared_class"]


# Epochs


@pytest.fixture
def epochs(store):
    """Epoch 0 became suspect at BASE + 5 and was rejected; epoch 1 is the old behaviour again."""

    def put(**changes):
        state = TeacherState(space="s@1", epoch=1, behaviour=0, ended=(Ended(epoch=0, behaviour=0, until=BASE + 5),))
        revision, _ = teacher_state(store, "files", TEACHER)
        put_teacher(store, "files", TEACHER, revision, msgspec.structs.replace(state, **changes))

    put()
    return put


def test_labels_made_under_suspicion_are_refused_and_their_second_labelling_is_taken(
    epochs, put, make_label, spec, tape, store, artifacts
):
    good, suspect = make_label(2), make_label(8)
    put(good, suspect, forged(suspect, TEACHER + "#1"))
    window = freeze(spec, tape, store, artifacts, now=NOW)
    table = read(window.uri, window.digest)
    assert table["input_id"].to_pylist() == ["i0002", "i0008"]
    assert table["teacher"].to_pylist() == [TEACHER, TEACHER], "one behaviour is one teacher for whoever learns"
    assert [x.reason for x in refused(tape)] == ["suspect_teacher"]


def test_an_accepted_behaviour_is_another_teacher(epochs, put, make_label, spec, tape, store, artifacts):
    epochs(behaviour=1)
    put(make_label(2), forged(make_label(8), TEACHER + "#1"))
    window = freeze(spec, tape, store, artifacts, now=NOW)
    assert ids(window) == ["i0008"] and window.manifest["teacher"] == TEACHER + "#1"
    assert [x.reason for x in refused(tape)] == ["other_behaviour"]
    put(forged(make_label(9), TEACHER + "#1"))
    declared = msgspec.structs.replace(spec, teacher_digest=TEACHER)
    assert freeze(declared, tape, store, artifacts, now=NOW).manifest["teacher"] == TEACHER + "#1"


# Signatures


def test_a_label_that_the_labeler_did_not_sign_is_refused(make_label, tape, spec, store, artifacts):
    private, public = new_key()
    signer, stranger = Signer(private), Signer(new_key()[0])
    signed = msgspec.structs.replace(spec, label=msgspec.structs.replace(spec.label, signed_by=public))
    values = [encode(make_label(n)) for n in range(5)]
    tape.put("files.labels", values[0], headers=signer.headers(values[0]))
    tape.put("files.labels", values[1])
    tape.put("files.labels", values[2], headers=stranger.headers(values[2]))
    tape.put("files.labels", values[3], headers=signer.headers(values[0]))
    tape.put("files.labels", values[4], headers={HEADER: b""})
    tape.put("files.labels", encode(make_label(5)), headers={HEADER: None})
    tape.put("files.labels", None)
    window = freeze(signed, tape, store, artifacts, now=NOW)
    assert ids(window) == ["i0000"] and window.manifest["rejected_reasons"] == {"unsigned": 5, "empty": 1}
    assert [x.headers for x in refused(tape)][1] == stranger.headers(values[2])


def test_keys_of_another_form_are_refused_and_not_shown():
    private, public = new_key()
    assert Signer(private).public == public
    for make in (Signer, Verifier):
        with pytest.raises(ConfigError, match="32 bytes") as caught:
            make("c2VjcmV0")
        assert "c2VjcmV0" not in str(caught.value)
        with pytest.raises(ConfigError):
            make("no base64!")
