import msgspec
import numpy as np
import pytest

from components.contracts.errors import ArtifactError, ConfigError, EpochChangedError, TeacherError, TeacherHeldError
from components.contracts.records import SoftLabel
from components.contracts.spec import Probe
from components.control.teachers import clean_rounds, decide, incidents, put_teacher, teacher_state, teachers
from components.teacher_watch.probes import PASS
from tests.components.teacher_watch.conftest import Changing, labels_on

DECLARED = "parity@" + "d" * 64


def test_probes_are_the_first_inputs_and_their_payloads_are_kept_by_content(begin, store, tmp_path):
    loop = begin()
    loop.many(60)
    _, state = teacher_state(store, "w", DECLARED)
    assert len(state.probes) == 60 and (state.status, state.epoch, state.space) == ("trusted", 0, "parity@1")
    assert sum(p["anchor"] for p in state.probes) == 30
    kept = list((tmp_path / "artifacts" / "w" / "probes").iterdir())
    assert {p.name for p in kept} == {p["content"] for p in state.probes}
    assert all(len(p["answers"]) == 2 for p in state.probes)


def test_probes_cost_the_share_that_the_spec_says(begin):
    loop = begin(share=0.1, rotate=0)
    loop.many(60)
    before = loop.guard.counts["probed"]
    loop.many(1000)
    assert loop.guard.counts["probed"] - before == pytest.approx(100, abs=2)
    assert before == 60 * 2, "making the set costs its size times the repeats"


def test_the_same_teacher_is_left_alone_through_restarts(begin, store):
    for _ in range(5):
        assert begin().many(300) == 300
    assert list(store.alarms("w")) == [] and incidents(store, "w") == []


def test_a_teacher_names_its_classes_as_scikit_learn_does(begin, store, stream):
    class Fitted(Changing):
        classes = tuple(np.array(["even", "odd"]))

    assert begin(Fitted()).many(100) == 100
    _, state = teacher_state(store, "w", DECLARED)
    assert state.classes == ("even", "odd") and {type(name) for name in state.classes} == {str}
    assert {x.soft.label for x in labels_on(stream, "w.labels")} == {"even", "odd"}


def test_a_class_that_is_no_text_is_refused_by_name(begin):
    class Numbered(Changing):
        classes = tuple(np.array([0, 1]))

    with pytest.raises(ConfigError, match=r"teacher.classes.*no text"):
        begin(Numbered())


def test_answers_within_the_tolerance_are_the_same_teachers(begin, store):
    begin().many(100)

    class Rounded(Changing):
        def answer(self, text):
            p = super().answer(text).distribution["even"] + 1e-3
            return SoftLabel.of(self.space, self.classes, [p, 1 - p])

    assert begin(Rounded()).many(300) == 300


def test_a_teacher_that_changed_while_the_labeler_was_down_labels_nothing_for_training(begin, store, stream):
    begin().many(300)
    made = len(labels_on(stream, "w.labels"))
    assert begin(Changing(share=0.05)).many(100) == 10
    assert len(labels_on(stream, "w.labels")) == made
    assert len(labels_on(stream, "w.labels.quarantine")) == 10


def test_a_change_on_the_way_is_found_within_a_round_and_named(begin, store, stream):
    teacher = Changing()
    loop = begin(teacher)
    loop.many(400)
    changed_at = loop.clock.now
    teacher.share = 0.2
    assert loop.many(1000) <= 60 / 0.5
    (incident,) = incidents(store, "w")
    assert incident.suspect_from < changed_at, "no label of the changed teacher is left out"
    labels = labels_on(stream, "w.labels")
    suspects = [x for x in labels if x.labelled_at >= incident.suspect_from]
    assert all(x in suspects for x in labels if x.labelled_at > changed_at)
    assert incident.detail["suspects"] == len(suspects) <= 2 * 60 / 0.5
    assert incident.detail["first"] == {
        "key": suspects[0].key, "input": suspects[0].input.id, "labelled_at": suspects[0].labelled_at,
        "at": f"w.labels-0@{labels.index(suspects[0])}",
    }  # fmt: skip
    (alarm,) = store.alarms("w")
    assert alarm.kind == "teacher" and alarm.detail["first"]["key"] == suspects[0].key
    assert 1 <= alarm.detail["moved"] <= 30 and alarm.detail["probes"] == 60


def test_a_change_found_at_a_start_is_suspect_since_the_last_clean_round(begin, store):
    loop = begin()
    loop.many(400)
    clean = clean_rounds(store, "w", DECLARED, 0)["labeler"].at
    begin(Changing(share=1.0)).many(10)
    assert incidents(store, "w")[0].suspect_from == clean


def test_all_labelers_of_a_workload_are_told(begin, store):
    first, teacher = begin(), Changing()
    second = begin(teacher, member="second")
    first.many(100)
    second.many(100)
    teacher.share = 1.0
    second.many(100)
    assert first.step(["one more"]) == "w.labels.quarantine"
    assert len(incidents(store, "w")) == 1


def test_two_that_find_it_at_once_open_one_incident(begin, store, monkeypatch):
    monkeypatch.setattr("components.teacher_watch.guard.REFRESH_SECONDS", 1e9)
    first, second = begin(), begin(member="second")
    first.many(100)
    second.guard._refresh_now()
    first.guard._refresh_now()
    first.guard.teacher.share = second.guard.teacher.share = 1.0
    first.many(100)
    second.many(100)
    assert len(incidents(store, "w")) == 1 and len(store.alarms("w")) == 1
    assert second.guard.state.status == "suspect"


def test_newer_inputs_become_probes_and_the_anchors_stay(begin, store):
    loop = begin()
    loop.many(60)
    first = {p["content"]: p["anchor"] for p in teacher_state(store, "w", DECLARED)[1].probes}
    loop.many(600)
    later = {p["content"]: p["anchor"] for p in teacher_state(store, "w", DECLARED)[1].probes}
    assert len(later) == 60 and {c for c, a in first.items() if a} == {c for c, a in later.items() if a}
    assert 4 <= len(later.keys() - first.keys()) <= 30


def test_the_payloads_of_probes_that_were_rotated_out_are_deleted(begin, store, tmp_path):
    loop = begin()
    loop.many(660)
    _, state = teacher_state(store, "w", DECLARED)
    kept = {p.name for p in (tmp_path / "artifacts" / "w" / "probes").iterdir()}
    assert loop.guard.counts["probed"] > 60 and kept == {p["content"] for p in state.probes}


def test_a_probe_that_is_rotated_out_of_one_teacher_stays_while_another_has_it(begin, store, tmp_path):
    loop = begin()
    loop.many(60)
    _, state = teacher_state(store, "w", DECLARED)
    put_teacher(store, "w", "other@1", 0, state)
    loop.many(600)
    kept = {p.name for p in (tmp_path / "artifacts" / "w" / "probes").iterdir()}
    later = {p["content"] for p in teacher_state(store, "w", DECLARED)[1].probes}
    assert kept == later | {p["content"] for p in state.probes} and kept > later


def test_a_labeler_starts_while_another_rotates_probes_out(begin, store, monkeypatch):
    first = begin()
    first.many(60)
    revisions = []

    def late(*asked):
        """What was read before the other went on."""
        found = teacher_state(*asked)
        revisions.append(found[0])
        if len(revisions) == 1:
            first.many(600)
        return found

    with monkeypatch.context() as patched:
        patched.setattr("components.teacher_watch.guard.teacher_state", late)
        second = begin(member="second")
    assert revisions[0] < revisions[-1] and second.guard.state == teacher_state(store, "w", DECLARED)[1]


def test_a_probe_whose_payload_is_gone_stops_a_start(begin, store, tmp_path):
    begin().many(60)
    content = teacher_state(store, "w", DECLARED)[1].probes[0]["content"]
    (tmp_path / "artifacts" / "w" / "probes" / content).unlink()
    with pytest.raises(ArtifactError, match=content):
        begin()


def test_a_small_workload_has_a_small_set_that_grows(begin, store, clock):
    loop = begin()
    loop.step(["a", "b", "c"])
    assert not loop.guard.state.probes
    clock.now += 60
    loop.step(["d"])
    assert len(loop.guard.state.probes) == 4
    loop.many(200)
    assert len(loop.guard.state.probes) > 20


def test_a_set_of_size_zero_turns_the_watch_off(begin, store):
    teacher = Changing()
    loop = begin(teacher, size=0)
    loop.many(100)
    teacher.share = 1.0
    assert loop.many(100) == 100 and loop.guard.counts["probed"] == 0
    assert teachers(store, "w")[0].state["space"] == "parity@1", "the trainer needs the space all the same"


def test_an_outage_is_an_outage(begin, store):
    teacher = Changing()
    loop = begin(teacher)
    loop.many(100)
    teacher.fails = True
    with pytest.raises(TeacherError, match="down"):
        loop.step(["x"])
    teacher.fails = False
    assert loop.many(100) == 100 and incidents(store, "w") == []


def test_probes_that_the_teacher_cannot_take_stop_no_inputs(begin):
    class Picky(Changing):
        def label(self, payloads):
            if len(payloads) > 10:
                raise TeacherError(self.name, "one of them is against the rules")
            return super().label(payloads)

    loop = begin(Picky())
    loop.many(60)
    assert loop.many(100) == 100 and loop.guard.counts["probe_failures"] > 0


@pytest.mark.parametrize("space, classes", [("parity@2", ("even", "odd")), ("parity@1", ("zebra", "odd"))])
def test_answers_that_nobody_may_learn_from_are_a_failure_and_no_change(begin, store, space, classes):
    begin().many(100)
    teacher = Changing()
    loop, right = begin(teacher), teacher.answer
    teacher.answer = lambda text: SoftLabel.of(space, classes, [1.0, 0.0])
    for _ in range(3):
        with pytest.raises(TeacherError, match="answered"):
            loop.step(["x"])
    teacher.answer = right
    assert loop.many(300) == 300 and incidents(store, "w") == []


def test_answers_that_are_not_one_each_are_a_failure(begin):
    class Short(Changing):
        def label(self, payloads):
            return super().label(payloads)[:-1]

    with pytest.raises(TeacherError, match="gave 0 labels for 1"):
        begin(Short()).step(["x"])


def test_another_label_space_than_the_declared_one_is_refused(begin, watched):
    loop = begin()
    with pytest.raises(ConfigError, match="teacher_space"):
        type(loop.guard)(
            msgspec.structs.replace(watched, teacher_space="parity@2"), Changing(), loop.guard.store, loop.broker, "x"
        )


# Decisions


@pytest.fixture
def changed(begin):
    """A workload whose teacher changed half of its answers; the labeler that found it."""
    teacher = Changing()
    loop = begin(teacher)
    loop.many(200)
    teacher.share = 0.5
    loop.many(200)
    assert loop.guard.state.status == "suspect"
    return loop


def test_an_accepted_behaviour_is_the_reference_in_a_new_epoch(changed, store):
    decide(store, "w", "accept", "ada", "the vendor told us")
    assert changed.step(["next"]) == "w.labels"
    assert changed.guard.reference == DECLARED + "#1"
    assert changed.many(300) == 300 and len(incidents(store, "w")) == 1
    state = changed.guard.state
    assert (state.epoch, state.behaviour, state.until(0)) == (1, 1, None)


def test_a_rejected_teacher_labels_nothing_until_it_is_back(changed, store, clock):
    decide(store, "w", "reject", "ada", "not ours")
    with pytest.raises(TeacherHeldError, match="cohobate teacher accept"):
        changed.step(["next"])
    calls = len(changed.guard.teacher.calls)
    with pytest.raises(TeacherHeldError):
        changed.step(["next"])
    assert len(changed.guard.teacher.calls) == calls, "it is not asked all the time"
    changed.guard.teacher.share = 0.0
    clock.now += 6
    assert changed.step(["next"]) == "w.labels"
    state = changed.guard.state
    assert (state.status, state.epoch, state.behaviour) == ("trusted", 1, 0)
    assert state.until(0) == incidents(store, "w")[0].suspect_from
    assert changed.many(200) == 200


def test_a_held_teacher_can_still_be_accepted(changed, store):
    decide(store, "w", "reject", "ada", "not ours")
    with pytest.raises(TeacherHeldError):
        changed.step(["next"])
    decide(store, "w", "accept", "ada", "it will not come back")
    assert changed.step(["next"]) == "w.labels" and changed.guard.reference == DECLARED + "#2"
    assert changed.many(200) == 200


def test_labels_made_before_a_decision_are_made_again(changed, store):
    before = changed.guard.reference
    stale = labels_on(changed.broker, "w.labels.quarantine")[-1:]
    decide(store, "w", "accept", "ada", "fine")
    with pytest.raises(EpochChangedError, match=f"{before}: a person decided"):
        changed.guard.route(stale)


def test_a_teacher_that_moves_once_more_makes_the_incident_mixed(changed, store, clock):
    changed.guard.teacher.share = 0.9
    clock.now += 10
    for n in range(20):
        changed.step([f"m{n}-{k}" for k in range(10)])
    (incident,) = incidents(store, "w")
    assert incident.mixed
    decide(store, "w", "accept", "ada", "as it is now")
    assert changed.many(300) == 300, "what it answered last is the reference"


def test_a_restart_under_suspicion_goes_on_in_quarantine(changed, begin, store):
    again = begin(Changing(share=0.5))
    assert again.step(["x"]) == "w.labels.quarantine"
    assert len(incidents(store, "w")) == 1 and not incidents(store, "w")[0].mixed


def test_probes_take_the_room_of_a_batch_one_pass_in_an_interval(begin):
    loop = begin(size=100, share=0.01, interval=300, rotate=0)
    loop.many(100)
    before = loop.guard.counts["probed"]
    loop.many(600, batch=5)
    assert loop.guard.counts["probed"] - before == pytest.approx(2 * PASS, abs=2)
    assert max(loop.guard.teacher.calls[-120:]) <= 10, "no call is larger than a batch"


@pytest.mark.parametrize("batch", [5, 10])
def test_by_default_probes_cost_at_most_one_call_in_twenty_however_slow_the_traffic(begin, clock, batch):
    loop = begin(**{name: getattr(Probe(), name) for name in Probe.__struct_fields__})
    loop.many(190)
    before = loop.guard.counts["probed"]
    for _ in range(30):
        clock.now += 86_400
        loop.many(100, batch=batch)
    rotated = loop.guard.counts["probed"] - before
    assert 0.03 <= rotated / 3_000 <= 0.05


def test_full_batches_take_the_share_alone(begin):
    loop = begin(size=100, share=0.01, interval=300, rotate=0)
    loop.many(100)
    before = loop.guard.counts["probed"]
    loop.many(600, batch=10)
    assert loop.guard.counts["probed"] - before == pytest.approx(6, abs=1)


def test_an_interval_passes_in_time_too_and_one_pass_is_all_that_is_made_up_for(begin, clock):
    loop = begin(size=100, share=0.01, interval=10_000, interval_seconds=600.0, rotate=0)
    loop.many(100)
    before = loop.guard.counts["probed"]
    clock.now += 6_000
    loop.many(60, batch=2)
    assert loop.guard.counts["probed"] - before == pytest.approx(PASS, abs=2)


def test_a_change_of_one_in_twenty_is_found_within_an_interval(begin):
    teacher = Changing()
    loop = begin(teacher, size=180, interval=300, rotate=0)
    loop.many(190)
    teacher.share = 0.05
    assert loop.many(600, batch=5) <= 300


def test_one_that_stands_aside_finds_a_change_and_leaves_whole_sets_to_the_labelers(begin, store):
    labeler = begin()
    labeler.many(300)
    teacher = Changing()
    gateway = begin(teacher, member="gateway", aside=True, share=0.25)
    gateway.many(400)
    assert gateway.guard.counts["probed"] == 100, "neither a set at the start nor one of newer inputs, only the share"
    teacher.share = 0.2
    assert gateway.many(1_000) <= 60 / 0.25
    (incident,) = incidents(store, "w")
    assert incident.detail["member"] == "gateway" and incident.candidate == []
    assert gateway.guard.counts["probed"] <= 100 + 60
    labeler.guard.teacher.share = 0.2
    labeler.many(10)
    (incident,) = incidents(store, "w")
    assert len(incident.candidate) == 60 and not incident.mixed, "a labeler has measured what a person may accept"


def test_a_teacher_that_was_rejected_is_not_asked_for_callers_either(begin, store):
    begin().many(100)
    assert begin(Changing(share=0.5)).many(20) == 10
    decide(store, "w", "reject", "ada", "wrong")
    gateway = begin(Changing(), member="gateway", aside=True)
    with pytest.raises(TeacherHeldError):
        gateway.step(["text"])
    begin().step(["a labeler sees that it is back"])
    assert gateway.step(["text"]) == "w.labels"


def test_an_answer_that_contradicts_an_earlier_one_is_a_probe_that_moved(begin, store):
    loop = begin()
    loop.many(100)
    known, calls = Changing().answer("seen"), len(loop.guard.teacher.calls)
    near = SoftLabel.of(
        "parity@1", ("even", "odd"), [known.distribution[c] + d for c, d in (("even", 1e-4), ("odd", -1e-4))]
    )
    loop.guard.contradicted("c" * 64, known, near)
    assert incidents(store, "w") == [] and len(loop.guard.teacher.calls) == calls, "comparing costs nothing"
    loop.guard.contradicted("c" * 64, known, Changing(share=1.0).answer("seen"))
    (incident,) = incidents(store, "w")
    assert incident.detail["worst"] == "c" * 64 and loop.step(["next"]) == "w.labels.quarantine"


def test_an_answer_contradicts_nothing_where_there_are_no_probes_or_the_teacher_is_noisy(begin, store):
    known, other = Changing().answer("seen"), Changing(share=1.0).answer("seen")
    begin().guard.contradicted("c" * 64, known, other)
    assert incidents(store, "w") == []


def test_a_teacher_that_fails_keeps_no_label_that_was_given_waiting(begin):
    loop = begin()
    loop.many(100)
    again = begin(Changing())  # it has its set to ask about
    again.guard.teacher.fails = True
    again.guard.given((), ())
    assert not again.guard.teacher.calls
    again.guard.teacher.fails = False
    again.guard.given((), ())
    assert sum(again.guard.teacher.calls) == 60
