"""What a student's answers tell of the rows that it learnt from, as the gate sees it."""

import math
import random

import msgspec
import pytest
from msgspec.structs import replace

from components.contracts.errors import ConfigError
from components.contracts.records import SoftLabel
from components.contracts.spec import Limits, Privacy, Variant, load_spec
from components.contracts.storage import get_bytes
from components.distill.data import learnt_of_newest, update_rows, window_rows
from components.distill.train import distill
from components.evaluate.evaluate import evaluate
from components.evaluate.evidence import Answer, Evidence, Judgement, Row
from components.evaluate.judge import demanded, judge, replay
from components.evaluate.measure import measures
from components.evaluate.membership import loss_of, member_rows
from components.student.runtime import Student
from tests.components.conftest import peaked
from tests.stores import migrated

SAID = Answer(label="a", confidence=0.9)


def evidence(members, others, **limits):
    made = [Row(set="member", teacher=SAID, candidate=SAID, loss=x) for x in members]
    made += [Row(set="new", teacher=SAID, candidate=SAID, loss=x) for x in others]
    bare = Evidence(judgement=Judgement(workload="w", task="classification"), rows=tuple(made))
    return demanded(bare, Limits(min_rows=20, confidence=0.95, **limits))


def test_members_judge_nothing_else():
    found = measures(evidence([0.0] * 300, [0.0] * 30))
    assert found["rows"] == 30 and found["agreement"].n == 30
    assert found["membership_advantage"].value == 0.0 and found["membership_auc"].value == 0.5


def test_too_few_rows_on_either_side_hold():
    for members, others in ((300, 19), (19, 300)):
        verdict = judge(evidence([0.0] * members, [0.0] * others, max_membership_advantage=0.5))
        assert verdict.decision == "hold"
        assert "membership_advantage was not measured; it must be <= 0.5" in verdict.reasons


def test_bounds_of_what_is_looked_at_repeatedly_are_confidence_sequences_and_those_from_before_stay():
    rows = ([0.0, 0.0, 1.0, 1.0] * 40, [1.0] * 120)
    once, often = (evidence(*rows, looks=looks, max_membership_advantage=0.6) for looks in ("once", "repeated"))
    assert [judge(found).decision for found in (once, often)] == ["promote", "hold"]
    fixed, sequence = (measures(found)["membership_advantage"] for found in (once, often))
    assert fixed.value == sequence.value == 0.5
    assert sequence.bound("lower", 0.95) < fixed.bound("lower", 0.95) < 0.5
    areas = [measures(found)["membership_auc"] for found in (once, often)]
    assert areas[0].value == areas[1] == 0.75 and areas[0].bound("lower", 0.95) < 0.75, "bounds of one look alone"
    before = msgspec.structs.replace(often, judgement=msgspec.structs.replace(often.judgement, throughout=False))
    assert measures(before)["membership_advantage"] == fixed


def test_evidence_without_members_has_no_measure_of_them():
    assert not [name for name in measures(evidence([], [0.0] * 30)) if name.startswith("membership")]


def test_the_loss_is_the_divergence_from_what_was_to_be_learnt():
    sure, even = peaked("a"), SoftLabel(task="classification", space="s", distribution={"a": 0.5, "b": 0.5})
    assert loss_of(even, even) == 0.0 and loss_of(sure, even) > loss_of(sure, sure) == 0.0
    value = [SoftLabel(task="regression", space="s", value=v, scale=1.0) for v in (1.0, 3.5)]
    assert loss_of(*value) == 2.5


@pytest.fixture(scope="module")
def memorised(letter_spec, letters, freeze_rows, tmp_path_factory):
    """A student of labels that were drawn by lot: there is nothing to learn but the rows themselves."""
    chance, folder = random.Random(0), tmp_path_factory.mktemp("memorised")
    student = replace(letter_spec.student, epochs=60, holdout_share=0.4)
    spec = replace(letter_spec, student=student, limits=Limits(min_rows=20, confidence=0.95))
    rows = [(payload, peaked(chance.choice("abcd")), None) for payload, _, _ in letters("abcd", 60)]
    windows = [freeze_rows(spec, rows, f"file://{folder}", 1)]
    done = distill(spec, windows, variant=Variant(name="w", dim=32, hidden=64), parent=None,
                   artifacts=f"file://{folder}", seed=0)  # fmt: skip
    return spec, windows, done, migrated(f"sqlite:///{folder}/control.db")


def test_a_student_that_learnt_rows_by_heart_is_rejected_where_that_has_a_limit(memorised):
    spec, windows, done, store = memorised
    limited = replace(spec, limits=replace(spec.limits, max_membership_advantage=0.1))
    found = evaluate(limited, done.uri, done.digest, done.float_uri, windows=windows, champion=None, store=store)
    assert found.measurements["membership_advantage"] >= found.measurements["membership_advantage_lower"] > 0.2
    assert found.measurements["membership_auc"] > found.measurements["membership_auc_lower"] > 0.6
    assert found.verdict.decision == "reject" and "membership_advantage is" in found.verdict.reasons[0]
    lines = get_bytes(found.evidence_uri).splitlines()
    assert replay(lines).same is True
    members = [row for row in found.evidence.rows if row.set == "member"]
    assert {row.id for row in members} == set(window_rows(windows[0], "train", spec.task, "t@1").ids)
    store.close()


def test_who_is_a_member_is_who_the_update_learns_from(memorised, freeze_rows, letters, tmp_path):
    spec, windows, done, _ = memorised
    assert learnt_of_newest(spec, windows).ids == list(update_rows(spec, windows, 0).new.ids)
    second = freeze_rows(spec, letters("ab", 30, seed=5), f"file://{tmp_path}", 2)
    both = [windows[0], second]
    assert learnt_of_newest(spec, both).ids == list(update_rows(spec, both, 0).new.ids)
    student = Student.load(get_bytes(done.uri, done.digest))
    assert member_rows(spec, both, student) == [], "it did not learn from the newest window"
    private = replace(spec, student=replace(spec.student, privacy=Privacy(epsilon=3.0, delta=1e-5)))
    assert member_rows(spec, windows, student) and member_rows(private, windows, student) == []


def test_a_limit_beside_an_account_of_privacy_is_refused(tmp_path):
    path = tmp_path / "spec.yaml"
    content = {
        "name": "w", "teacher": {"factory": "t:T"}, "features": {"factory": "f:F"},
        "student": {
            "near_duplicate": None, "privacy": {"epsilon": 3.0, "delta": 1e-5}, "holdout": "fixed",
            "calibration": "apart",
        },
        "limits": {"max_membership_advantage": 0.1},
    }  # fmt: skip
    path.write_bytes(msgspec.yaml.encode(content))
    with pytest.raises(ConfigError, match=r"limits\.max_membership_advantage.*leave it out beside student\.privacy"):
        load_spec(path)


def test_the_loss_of_a_set_is_the_sum_of_its_classes_divergences():
    taught, same, other = (SoftLabel.multilabel("s", "ab", row) for row in ([0.9, 0.0], [0.9, 0.0], [0.5, 0.5]))
    assert loss_of(taught, same) == pytest.approx(0.0)
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5) + math.log(2)
    assert loss_of(taught, other) == pytest.approx(expected)
