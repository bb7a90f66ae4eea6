from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from components.contracts.errors import ArtifactError, ProvenanceError
from components.contracts.records import SoftLabel, content_hash
from components.contracts.storage import local_path
from components.distill.data import (
    NO_TRUTH,
    Rows,
    Unit,
    arrays,
    declared_teacher,
    holdout_payloads,
    replayable,
    unit_of,
    update_rows,
    window_rows,
)
from components.snapshot.table import split_of


@pytest.fixture
def artifacts(tmp_path):
    return f"file://{tmp_path}"


def test_training_and_holdout_rows_part_the_window(letter_spec, letters, freeze_rows, artifacts):
    rows = letters("ab", 50)
    window = freeze_rows(letter_spec, rows, artifacts, 1)
    train, holdout = (window_rows(window, side, "classification", "t@1") for side in ("train", "holdout"))
    assert sorted(train.payloads + holdout.payloads) == sorted(p for p, _, _ in rows)
    assert 8 <= len(holdout) <= 32
    truths = {p: (s, t) for p, s, t in rows}
    assert all(truths[p] == (s, t) for p, s, t in zip(train.payloads, train.soft, train.truth, strict=True))


def test_refuses_a_label_of_another_teacher_wherever_it_is(letter_spec, letters, freeze_rows, artifacts):
    window = freeze_rows(letter_spec, letters("ab", 5), artifacts, 1, teacher="student@9", declared="t@1")
    with pytest.raises(ProvenanceError, match="student@9") as caught:
        update_rows(letter_spec, [window], 0)
    assert caught.value.declared == "t@1" and caught.value.input_id.startswith("w1-")
    strict = msgspec.structs.replace(letter_spec, teacher_digest="other@2")
    with pytest.raises(ProvenanceError, match="other@2"):
        update_rows(strict, [freeze_rows(letter_spec, letters("ab", 5), artifacts, 2)], 0)


def test_refuses_a_snapshot_that_was_changed(letter_spec, letters, freeze_rows, artifacts):
    window = freeze_rows(letter_spec, letters("ab", 5), artifacts, 1)
    path = local_path(window.uri)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtifactError, match="was changed"):
        update_rows(letter_spec, [window], 0)


def test_an_update_has_the_new_window_whole_and_a_balanced_replay(letter_spec, letters, freeze_rows, artifacts):
    old = freeze_rows(letter_spec, letters("a", 60) + letters("b", 10), artifacts, 1)
    new = freeze_rows(letter_spec, letters("c", 60), artifacts, 2)
    spec = msgspec.structs.replace(letter_spec, student=msgspec.structs.replace(letter_spec.student, replay_rows=12))
    made = update_rows(spec, [old, new], 0)
    replay = made.replay
    train = window_rows(new, "train", "classification", "t@1").payloads
    assert made.new.payloads == train and made.refused == made.released == 0
    assert made.labels == 130 and made.learnt == len(train) + len(window_rows(old, "train", "classification", "t@1"))
    labels = [s.label for s in replay.soft]
    assert len(replay) == 12 and labels.count("a") == labels.count("b") == 6
    held = set(window_rows(old, "holdout", "classification", "t@1").payloads)
    assert not held & set(replay.payloads)


def test_calibration_rows_are_new_ones_that_are_learnt_from_too(letter_spec, letters, freeze_rows, artifacts):
    seen = letters("a", 100)
    old = freeze_rows(letter_spec, seen, artifacts, 1)
    new = freeze_rows(letter_spec, seen[:50] + letters("c", 300), artifacts, 2)
    made = update_rows(letter_spec, [old, new], 0)
    assert made.calibration.payloads == [made.new.payloads[i] for i in made.aside]
    assert 60 <= len(made.aside) < len(made.new) / 2
    assert not set(made.calibration.payloads) & {p for p, _, _ in seen}, "what was learnt from calibrates nothing"
    few = update_rows(letter_spec, [freeze_rows(letter_spec, letters("c", 90), artifacts, 3)], 0)
    assert 0.15 < len(few.aside) / len(few.new) < 0.5, "of a few rows a larger share"
    all_ = update_rows(letter_spec, [old, new], 0, fresh=True)
    rows = (all_.new + all_.replay).payloads
    assert all_.calibration.payloads == [rows[i] for i in all_.aside]
    assert set(all_.calibration.payloads) & set(all_.replay.payloads), "a fresh student has learnt from none"
    none = msgspec.structs.replace(
        letter_spec, student=msgspec.structs.replace(letter_spec.student, calibration_share=0.0)
    )
    assert update_rows(none, [old, new], 0).aside == ()


def test_calibration_rows_can_be_left_apart(letter_spec, letters, freeze_rows, artifacts):
    apart = msgspec.structs.replace(
        letter_spec, student=msgspec.structs.replace(letter_spec.student, calibration="apart")
    )
    windows = [freeze_rows(apart, letters(c, 100), artifacts, i) for i, c in enumerate("ab", 1)]
    made = update_rows(apart, windows, 0)
    assert made.aside == () and 0 < len(made.calibration) < 40
    assert not {*made.calibration.payloads} & {*made.new.payloads, *made.replay.payloads}
    assert made.learnt + len(made.calibration) == update_rows(letter_spec, windows, 0).learnt


def released(window, kept):
    window.manifest["kept_share"] = kept
    return window


def test_what_a_newer_window_releases_has_its_turn_among_the_new_rows(letter_spec, letters, freeze_rows, artifacts):
    windows = [freeze_rows(letter_spec, letters(c, 150), artifacts, i) for i, c in enumerate("abc", 1)]
    held = [window_rows(w, "holdout", "classification", "t@1").payloads for w in windows]
    assert update_rows(letter_spec, windows[:2], 0).released == 0
    released(windows[1], 0.05)
    second = update_rows(letter_spec, windows[:2], 0)
    kept = {p for p in held[0] if split_of(content_hash(p), 0.05) == "holdout"}
    turn = set(held[0]) - kept
    assert len(turn) > 10 and turn <= set(second.new.payloads) and second.released == len(turn)
    assert not turn & set(second.replay.payloads) and not kept & {*second.new.payloads, *second.replay.payloads}
    assert set(holdout_payloads(letter_spec, windows[:2])) == kept | set(held[1])
    released(windows[2], 0.05)
    third = update_rows(letter_spec, windows, 0)
    assert turn <= set(third.replay.payloads) and not turn & set(third.new.payloads), "a row is new once"
    assert third.released == len([p for p in held[1] if split_of(content_hash(p), 0.05) == "train"])
    assert third.learnt / third.labels > second.learnt / second.labels > 0.8


def test_no_row_is_learnt_from_that_is_like_one_that_is_kept(letter_spec, letters, freeze_rows, artifacts):
    """A released row whose like is still held out stays out of learning."""
    first = letters("a", 200)
    windows = [freeze_rows(letter_spec, first, artifacts, 1)]
    held = window_rows(windows[0], "holdout", "classification", "t@1").payloads
    going = [p for p in held if split_of(content_hash(p), 0.05) == "train"]
    soft = {p: (s, t) for p, s, t in first}
    audited = [(typo(p), *soft[p]) for p in going[:5]]
    chosen = {"audit": True}
    fresh = letters("b", 60)
    windows.append(
        released(
            freeze_rows(letter_spec, [*audited, *fresh], artifacts, 2, chosen=lambda i: chosen if i < 5 else {}), 0.05
        )
    )
    made = update_rows(letter_spec, windows, 0)
    assert set(going[5:]) <= set(made.new.payloads) and not set(going[:5]) & set(made.new.payloads)


def test_the_audit_slice_is_held_out_and_never_learnt_from(letter_spec, letters, freeze_rows, artifacts):
    def chosen(i):
        return {"audit": i < 30, "policy": "audit" if i < 30 else "margin", "probability": 0.1 if i < 30 else 0.25}

    seen = letters("ab", 40)
    again = [seen[0], *letters("cd", 40)]  # an audited content that comes back, chosen by the policy this time
    windows = [freeze_rows(letter_spec, seen, artifacts, 1, chosen=chosen)]
    windows.append(freeze_rows(letter_spec, again[::-1], artifacts, 2, chosen=chosen))
    audited = {p for p, _, _ in seen[:30]} | {p for p, _, _ in again[::-1][:30]}
    made = update_rows(letter_spec, windows, 0)
    new, replay = made.new, made.replay
    assert not audited & set(made.calibration.payloads)
    assert len(new) and len(replay) and not audited & {*new.payloads, *replay.payloads}
    held = {p for w in windows for p in window_rows(w, "holdout", "classification", "t@1").payloads}
    assert audited <= held


def test_rows_weigh_by_their_chances(letter_spec, letters, freeze_rows, artifacts):
    rows = letters("ab", 60)
    chances = {p: 0.05 if i % 2 else 0.5 for i, (p, _, _) in enumerate(rows)}
    window = freeze_rows(letter_spec, rows, artifacts, 1, chosen=lambda i: {"probability": 0.05 if i % 2 else 0.5})
    held = window_rows(window, "holdout", "classification", "t@1")
    heavy, light = (
        {w for p, w in zip(held.payloads, held.weights, strict=True) if chances[p] == q} for q in (0.05, 0.5)
    )
    assert len(heavy) == len(light) == 1 and heavy.pop() == pytest.approx(10 * light.pop())
    assert (held + held).weights == held.weights * 2 and held.take([1, 0]).weights == held.weights[1::-1]


def test_replay_can_be_turned_off(letter_spec, letters, freeze_rows, artifacts):
    windows = [freeze_rows(letter_spec, letters(c, 20), artifacts, i) for i, c in enumerate("ab")]
    spec = msgspec.structs.replace(letter_spec, student=msgspec.structs.replace(letter_spec.student, replay_rows=0))
    assert len(update_rows(spec, windows, 0).replay) == 0


def test_windows_of_a_teacher_that_was_replaced_are_not_replayed(letter_spec, letters, freeze_rows, artifacts):
    old = freeze_rows(letter_spec, letters("a", 20), artifacts, 1, teacher="t@0")
    new = freeze_rows(letter_spec, letters("b", 20), artifacts, 2)
    assert replayable(letter_spec, [old, new]) == []
    assert len(update_rows(letter_spec, [old, new], 0).replay) == 0
    assert set(holdout_payloads(letter_spec, [old, new])) <= {p for p, _, _ in letters("b", 20)}


def soft(**distribution):
    return SoftLabel(task="classification", space="s", distribution=distribution)


def test_targets_are_in_the_order_of_the_classes_and_renormalised(letter_spec):
    rows = Rows(
        payloads=[b"x", b"yy", b"z"],
        soft=[soft(b=0.6, a=0.2, gone=0.2), soft(a=1.0), soft(b=1.0)],
        truth=["b", None, "gone"],
    )
    made = arrays(letter_spec, rows, ("a", "b"))
    assert made.soft == pytest.approx(np.array([[0.25, 0.75], [1.0, 0.0], [0.0, 1.0]]))
    assert made.truth.tolist() == [1, NO_TRUTH, NO_TRUTH]
    ids, weights = made.features["ids"], made.features["weights"]
    assert ids.shape == weights.shape and ids.dtype == np.int64


def value(v, s):
    return SoftLabel(task="regression", space="euro", value=v, scale=s)


def test_regression_targets_are_in_the_student_s_unit(line_spec):
    rows = Rows(payloads=[b"[1]", b"[2]"], soft=[value(990.0, 5.0), value(1010.0, 10.0)], truth=[1000.0, None])
    unit = unit_of(rows)
    assert unit == Unit(mean=1000.0, scale=10.0)
    made = arrays(line_spec, rows, unit)
    assert made.soft.tolist() == [[-1.0, 0.5], [1.0, 1.0]]
    assert made.truth[0] == 0.0 and np.isnan(made.truth[1])


def test_equal_values_have_a_unit_too():
    rows = Rows(payloads=[b"[1]"] * 2, soft=[value(7.0, 1.0)] * 2, truth=[None] * 2)
    assert unit_of(rows) == Unit(mean=7.0, scale=1.0)


def test_of_a_declared_teacher_the_accepted_behaviour_counts(letter_spec):
    spec = msgspec.structs.replace(letter_spec, teacher_digest="t@1")
    window = SimpleNamespace(manifest={"teacher": "t@1#2"})
    assert declared_teacher(spec, [window]) == "t@1#2"
    assert declared_teacher(msgspec.structs.replace(spec, teacher_digest="t@2"), [window]) == "t@2"
    assert declared_teacher(msgspec.structs.replace(spec, teacher_digest=None), [window]) == "t@1#2"


def typo(payload):
    return payload[:-1] + b"#"


def test_what_is_nearly_a_held_out_row_is_never_learnt_from(letter_spec, letters, freeze_rows, artifacts):
    """The like of a row that a later window holds out is left out of the replay, too."""
    first, second = letters("ab", 60), letters("cd", 60)
    windows = [freeze_rows(letter_spec, first, artifacts, 1)]
    learnt = window_rows(windows[0], "train", "classification", "t@1").payloads
    held = window_rows(windows[0], "holdout", "classification", "t@1").payloads
    soft = {p: (s, t) for p, s, t in first}
    planted = [(typo(p), *soft[p]) for p in held]  # as they come again, with a typo
    planted += [(typo(p), *soft[p]) for p in learnt[:10]]  # these will be of the audit slice

    def chosen(i):
        return {"audit": i >= len(second) + len(held)}

    windows.append(freeze_rows(letter_spec, [*second, *planted], artifacts, 2, chosen=chosen))
    made = update_rows(letter_spec, windows, 0)
    seen = {*made.new.payloads, *made.replay.payloads, *made.calibration.payloads}
    assert not seen & {typo(p) for p in held} and not seen & set(learnt[:10])
    assert set(learnt[10:]) <= seen and made.refused >= 10
    blind = msgspec.structs.replace(
        letter_spec, student=msgspec.structs.replace(letter_spec.student, near_duplicate=None)
    )
    made = update_rows(blind, windows, 0)
    assert {typo(p) for p in held} & {*made.new.payloads, *made.calibration.payloads} and made.refused == 0


def test_a_set_with_a_class_that_the_head_lacks_is_no_known_set(letter_spec):
    spec = msgspec.structs.replace(letter_spec, task="multilabel")
    soft = [SoftLabel.multilabel("s", ("a", "b", "zz"), [0.9, 0.2, 0.9])] * 3
    rows = Rows(payloads=[b"a"] * 3, soft=soft, truth=['["a"]', '["a", "zz"]', None])
    made = arrays(spec, rows, ("a", "b"))
    np.testing.assert_array_equal(made.truth, [[1.0, 0.0], [np.nan] * 2, [np.nan] * 2])
    np.testing.assert_allclose(made.soft, [[0.9, 0.2]] * 3, rtol=1e-6)
