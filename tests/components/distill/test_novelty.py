"""What novelty is told by, and that of unchanged traffic no more is below a level than the level."""

import msgspec
import numpy as np
import pytest
from scipy.stats import binom

from components.contracts.spec import Privacy, Variant
from components.contracts.storage import get_bytes
from components.distill.data import Rows, update_rows
from components.distill.novelty import calibrated, groups, judges, unlearnt
from components.distill.train import distill
from components.evaluate.novelty import novelty
from components.student.runtime import Student
from tests.components.conftest import peaked, words

TINY = Variant(name="tiny", dim=8, hidden=16)
ROWS = 1_000


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return f"file://{tmp_path_factory.mktemp('artifacts')}"


@pytest.fixture(scope="module")
def windows(letter_spec, letters, freeze_rows, artifacts):
    return [freeze_rows(letter_spec, letters("abc", 120, seed=n), artifacts, n) for n in (1, 2)]


@pytest.fixture(scope="module")
def done(letter_spec, windows, artifacts):
    return distill(letter_spec, windows, variant=TINY, parent=None, artifacts=artifacts, seed=0)


@pytest.fixture(scope="module")
def student(done):
    return Student.load(get_bytes(done.uri))


def said(student, classes, seed):
    payloads = [p for c in classes for p in words(c, ROWS // len(classes), seed)]
    return np.array([reply.novelty for reply in student.reply(payloads)])


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_of_unchanged_traffic_no_more_is_at_or_below_a_level_than_the_level(student, alpha):
    """Fresh inputs of the same kind; the level holds over the draw of the known scores too."""
    known = min(map(len, student.card.novelty))
    found = (said(student, "abc", 7) <= alpha).mean()
    assert found <= alpha + 3 * np.sqrt(alpha * (1 - alpha) * (1 / known + 1 / ROWS))


def test_of_a_class_that_nothing_was_learnt_of_nearly_all_are_below_it(student):
    assert (said(student, "d", 7) <= 0.05).mean() > 0.9


def letters_of(classes, n, seed):
    payloads = [p for c in classes for p in words(c, n, seed)]
    return Rows(payloads=payloads, soft=[peaked("a")] * len(payloads), truth=[None] * len(payloads))


def test_the_evaluation_sees_it_on_rows_that_were_not_calibrated_on(student):
    rows = letters_of("abc", 300, 8)
    found = novelty(student, rows, 0.1)
    assert found["novelty_rows"] == sum(map(judges, rows.payloads)) and found["novelty_chance"] > 0.001
    assert found["novelty_least"] == pytest.approx(1 / (min(map(len, student.card.novelty)) + 1))
    shifted = novelty(student, letters_of("d", 400, 8), None)
    assert shifted["novelty_deferred"] > 0.9 and shifted["novelty_chance"] < 1e-9


@pytest.mark.parametrize("calibration", ["crossfit", "apart"])
def test_what_is_judged_on_is_not_calibrated_on_nor_learnt_from(letter_spec, windows, calibration):
    section = msgspec.structs.replace(letter_spec.student, calibration=calibration)
    spec = msgspec.structs.replace(letter_spec, student=section)
    learnt = update_rows(spec, windows, 0)
    free, apart = set(unlearnt(spec, windows, learnt).payloads), set(learnt.calibration.payloads)
    assert free and not free & set((learnt.new + learnt.replay).payloads)
    assert not [p for p in free - apart if judges(p)]
    assert (apart <= free) == (calibration == "apart")


def made(n, weights=()):
    payloads = [b"%d" % i for i in range(n)]
    return Rows(payloads=payloads, soft=[peaked("a")] * n, truth=[None] * n, weights=list(weights))


@pytest.mark.parametrize(("rows", "sizes"), [(138, [138]), (0, []), (2_050, [999])])
def test_of_many_rows_some_are_kept(rows, sizes):
    assert [len(g) for g in groups(made(rows))] == sizes


def test_rows_that_were_drawn_with_other_chances_are_thinned():
    (group,) = groups(made(400, [1.0] * 200 + [4.0] * 200))
    of_rare = sum(int(p) >= 200 for p in group)
    assert of_rare == 200 and binom.ppf(0.001, 200, 0.25) <= len(group) - of_rare <= binom.ppf(0.999, 200, 0.25)


def test_nothing_is_told_where_rows_must_not_be_told_of(letter_spec, windows, artifacts):
    private = Privacy(epsilon=500.0, delta=1e-5, noise=0.5)
    section = msgspec.structs.replace(letter_spec.student, privacy=private, near_duplicate=None, epochs=1)
    spec = msgspec.structs.replace(letter_spec, student=section)
    done = distill(spec, windows[:1], variant=TINY, parent=None, artifacts=artifacts, seed=0)
    found = Student.load(get_bytes(done.uri))
    assert not found.scored and found.card.novelty == () and done.metrics["novelty_rows"] == 0.0
    assert novelty(found, made(30), 0.05) == {}
    assert {reply.novelty for reply in found.reply([b"abcde"])} == {None}


def test_scores_that_are_no_numbers_are_not_kept(letter_spec, student, done, monkeypatch, caplog):
    monkeypatch.setattr(Student, "scores", lambda self, payloads: [float("inf")] * len(payloads))
    found = Student.load(calibrated(letter_spec, get_bytes(done.uri), [[b"a"]], {}))
    assert not found.tells_novelty and "tells no novelty" in caplog.text


def test_a_regression_tells_it_too(line_spec, lines, freeze_rows, artifacts):
    window = freeze_rows(line_spec, lines(400), artifacts, 1)
    done = distill(line_spec, [window], variant=TINY, parent=None, artifacts=artifacts, seed=0)
    usual, novel = Student.load(get_bytes(done.uri)).reply([b'{"x": 3.0}', b'{"x": 19.0}'])
    assert usual.novelty > 0.05 >= novel.novelty
