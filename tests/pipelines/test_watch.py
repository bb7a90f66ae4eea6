import random

import msgspec
import numpy as np
import pytest

from components.contracts.records import SoftLabel
from components.contracts.spec import Monitor, load_spec
from drift.change_point import ChangeDetector
from pipelines.foretelling import Foretelling
from pipelines.watch import Seen, observed
from tests.bench.monitor_null import after_a_change, alarms
from tests.pipelines.conftest import TICKETS


def seen(name, confidence, answer="a", truth=None, agrees=True):
    rest = 1.0 - confidence
    soft = SoftLabel(task="classification", space="s", distribution={answer: confidence, "z": rest})
    return Seen(name=name, columns={}, answer=soft, agrees=agrees, truth=truth)


def rows(n, chance, share_sure, prefix, *, truth):
    """Answers at 0.95 are right in 95 %, those at 0.6 in 60 %."""
    made = []
    for i in range(n):
        confidence = 0.95 if chance.random() < share_sure else 0.6
        right = chance.random() < confidence
        made.append((seen(f"{prefix}{i}", confidence, truth=("a" if right else "b") if truth else None, agrees=right),
                     "a" if right else "b"))  # fmt: skip
    return made


def test_a_fall_of_accuracy_is_foretold_and_held_against_the_truth_that_comes():
    chance = random.Random(0)
    foretelling = Foretelling([row for row, _ in rows(600, chance, 0.9, "k", truth=True)], 0)
    assert foretelling.gauge() == {}
    window = rows(200, chance, 0.2, "w", truth=False)
    foretelling.look([row for row, _ in window])
    before = foretelling.gauge()
    assert before["calibrated_lower"] < 0.67 < before["calibrated_upper"] and before["accuracy"] is None
    assert {"rows", "mean_confidence", "disagreement"} <= before.keys() and "calibrated_error" not in before
    for row, truth in window:
        foretelling.learn(row.name, truth)
    after = foretelling.gauge()
    assert after["accuracy"] == pytest.approx(0.67, abs=0.1) and after["windows_with_truth"] == 1
    assert after["calibrated_error"] == pytest.approx(abs(after["calibrated"] - after["accuracy"]))
    assert after["calibrated_error"] < 0.1 and after["calibrated_inside"] == 1.0


def test_without_truth_nothing_is_foretold_but_what_the_student_says_of_itself():
    foretelling = Foretelling([seen(f"k{i}", 0.9) for i in range(100)], 0)
    foretelling.look([seen(f"w{i}", 0.8) for i in range(50)])
    assert foretelling.gauge() == {
        "rows": 50, "mean_confidence": pytest.approx(0.8), "windows_with_truth": 0, "accuracy": None,
    }  # fmt: skip


def test_text_among_numbers_and_what_is_not_there_count_as_missing():
    chance = np.random.default_rng(0)
    reference = {"x": chance.normal(size=500), "c": chance.choice(["a", "b"], 500)}
    detector = ChangeDetector.fit(reference, run_length=1e4, min_effect=0.1)
    assert observed(detector, {"x": "seven", "c": 3.0, "more": 1.0}) == {"x": [None], "c": [3.0]}
    assert observed(detector, {}) == {"x": [None], "c": [None]}
    found = next(f for _ in range(60) if (f := detector.observe(observed(detector, {"x": "seven", "c": "a"}))))
    assert found.what in ("missing up", "a up")


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 0, 20), (2.0, 40, 40)])
def test_false_alarms_of_all_kinds_together_stay_at_alpha(shift, least, most):
    """40 * 0.2 = 8 are expected at most, and 20 has a chance of 1e-4; each kind at alpha by itself would raise 24."""
    policy = Monitor(window=40, reference=80, alpha=0.2, min_effect=0.0, resamples=1)
    spec = msgspec.structs.replace(load_spec(TICKETS), monitor=policy)
    chance = np.random.default_rng(0)
    raised = [set(alarms(spec, chance, 80, shift)) for _ in range(40)]
    assert least <= sum(map(bool, raised)) <= most
    assert shift == 0.0 or set().union(*raised) == {"drift", "predictive_entropy", "entropy", "novelty"}


@pytest.mark.parametrize(("alone", "least", "most"), [(True, 0, 20), (False, 36, 40)])
def test_a_regime_that_was_learnt_raises_no_more_than_alpha_against_its_own_rows(alone, least, most):
    """As above; against rows of the regime before as well it nearly always does."""
    policy = Monitor(window=40, reference=300, alpha=0.2, min_effect=0.0, resamples=1)
    spec = msgspec.structs.replace(load_spec(TICKETS), monitor=policy)
    chance = np.random.default_rng(1)
    raised = [set(after_a_change(spec, chance, alone)) for _ in range(40)]
    assert least <= sum(map(bool, raised)) <= most
