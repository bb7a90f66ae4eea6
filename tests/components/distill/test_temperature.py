import math

import numpy as np
import pytest

from components.contracts.records import SoftLabel, set_text
from components.distill.temperature import HIGHEST, LEAST_ROWS, fit

CLASSES = ("a", "b", "c")


def sample(n, sharpness, seed=0):
    """Answers that are ``sharpness`` times too sure of themselves, with truths drawn from the honest distribution."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(size=(n, 3)) * 1.5
    honest = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    said = np.exp(logits * sharpness) / np.exp(logits * sharpness).sum(1, keepdims=True)
    truth = [CLASSES[chance.choice(3, p=p)] for p in honest]
    return [[SoftLabel.of("s", CLASSES, row.tolist()) for row in rows] for rows in (said, honest)], truth


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_finds_how_much_too_sure_a_student_is(sharpness):
    (said, honest), truth = sample(3_000, sharpness)
    assert fit(said, honest, truth, CLASSES) == pytest.approx(sharpness, rel=0.1)


def test_without_enough_truth_the_teacher_stands_in_for_it():
    (said, honest), truth = sample(500, 2.0)
    known = [t if i < LEAST_ROWS - 1 else None for i, t in enumerate(truth)]
    assert fit(said, honest, known, CLASSES) == pytest.approx(2.0, rel=0.1)


def test_too_few_rows_change_nothing():
    (said, honest), truth = sample(LEAST_ROWS - 1, 3.0)
    assert fit(said, honest, truth, CLASSES) == 1.0 and fit([], [], []) == 1.0


def test_a_class_that_the_student_does_not_know_is_no_reason_to_be_unsure_of_the_others():
    (said, honest), truth = sample(3_000, 1.5)
    untold = [None] * len(truth)
    share = 0.3
    wider = [[*((1.0 - share) * s.distribution[c] for c in CLASSES), share] for s in honest]
    strange = [SoftLabel.of("s", (*CLASSES, "new"), row) for row in wider]
    assert fit(said, strange, untold, CLASSES) == pytest.approx(fit(said, honest, untold, CLASSES), rel=1e-4)
    some = ["new" if i % 3 == 0 else t for i, t in enumerate(truth)]
    seen = [None if t == "new" else t for t in some]
    assert fit(said, strange, some, CLASSES) == fit(said, strange, seen, CLASSES) == pytest.approx(1.5, rel=0.1)
    assert fit(said, honest, ["new"] * len(said), CLASSES) == fit(said, honest, untold, CLASSES)


@pytest.mark.parametrize("known", [True, False])
def test_of_sets_too_a_class_that_the_student_does_not_know_is_left_out(known):
    chance = np.random.default_rng(0)
    logits = chance.normal(size=(2_000, 3)) * 1.5
    honest, said = (1 / (1 + np.exp(-z)) for z in (logits, logits * 2.0))
    sets = [np.array(CLASSES)[chance.random(3) < p].tolist() for p in honest]
    truth = [set_text([*names, "new"]) if known else None for names in sets]
    answers = [SoftLabel.multilabel("s", CLASSES, row) for row in said.tolist()]
    teacher = [SoftLabel.multilabel("s", (*CLASSES, "new"), [*row, 0.9]) for row in honest.tolist()]
    assert fit(answers, teacher, truth, CLASSES) == pytest.approx(2.0, rel=0.1)


def test_a_regression_s_scale_is_set_to_its_errors():
    chance = np.random.default_rng(0)
    answers = [SoftLabel(task="regression", space="m", value=0.0, scale=2.0)] * 2_000
    truth = chance.normal(scale=3.0, size=2_000).tolist()
    assert fit(answers, answers, truth) == pytest.approx(1.5, rel=0.05)
    assert math.isclose(fit(answers, answers, [50.0] * 2_000), HIGHEST)


@pytest.mark.parametrize("sharpness", [0.5, 3.0])
@pytest.mark.parametrize("known", [True, False])
def test_the_chances_of_sets_have_one_temperature(sharpness, known):
    chance = np.random.default_rng(0)
    logits = chance.normal(size=(2_000, 3)) * 1.5
    honest, said = (1 / (1 + np.exp(-z)) for z in (logits, logits * sharpness))
    truth = [set_text(np.array(CLASSES)[chance.random(3) < p].tolist()) if known else None for p in honest]
    answers = [[SoftLabel.multilabel("s", CLASSES, row) for row in rows.tolist()] for rows in (said, honest)]
    assert fit(*answers, truth, CLASSES) == pytest.approx(sharpness, rel=0.1)


def test_sets_that_are_all_right_are_no_reason_to_be_sure_of_everything():
    answers = [SoftLabel.multilabel("s", CLASSES, [0.8, 0.2, 0.2])] * 40
    assert 0.25 < fit(answers, answers, ['["a"]'] * 40, CLASSES) < 0.6
