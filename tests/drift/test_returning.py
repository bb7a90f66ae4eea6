import json

import numpy as np
import pytest

from drift.returning import ReturnDetector


def made(versions=("1", "2"), run_length=1e4):
    return ReturnDetector(versions, run_length=run_length, min_effect=0.1, calibrated=300)


def test_one_that_answers_the_labels_better_is_named_soon():
    detector, chance = made(), np.random.default_rng(0)
    n = 0
    while (found := detector.found()) is None:
        detector.label({"1": chance.random() < 0.3, "2": chance.random() < 0.95}, chance.random() < 0.05)
        n += 1
    assert n <= 30 and (found.version, found.by) == ("2", "answers")
    assert n - 3 <= found.rows <= n and found.share > 0.6


def test_one_that_knows_what_is_novel_to_the_present_one_is_named_within_a_dozen_inputs():
    detector, chance = made(), np.random.default_rng(1)
    for _ in range(500):  # the present regime
        detector.look({"1": 0.003, "2": 0.003}, chance.random())
    assert detector.found() is None
    n = 0
    while (found := detector.found()) is None:
        detector.look({"1": chance.random(), "2": 0.003}, 0.003)
        n += 1
    assert n <= 12 and (found.version, found.by) == ("1", "familiar") and found.rows <= n + 1 and found.share > 0.8


@pytest.mark.parametrize("present", [0.5, 0.9])
def test_none_is_named_where_none_is_better(present):
    """At most 60 * 400 / 2,000 = 12 are expected, and 27 has a chance of 1e-4; two that are alike are no better."""
    named = 0
    for seed in range(60):
        chance, detector = np.random.default_rng(seed), made(run_length=2_000)
        for _ in range(200):
            detector.label({"1": chance.random() < present, "2": chance.random() < 0.1}, chance.random() < present)
            detector.look({"1": chance.random(), "2": None}, chance.random())
            if detector.found() is not None:
                named += 1
                break
    assert named <= 27


def test_one_that_finds_familiar_what_it_answers_wrongly_is_not_named_but_another_is():
    detector = made()
    for _ in range(30):
        detector.look({"1": 0.6, "2": 0.003}, 0.003)
    assert detector.found().version == "1"
    for _ in range(5):
        detector.answered({"1": False, "2": False})
    assert detector.found() is None
    for _ in range(30):
        detector.look({"1": 0.6, "2": 0.6}, 0.003)
        detector.answered({"2": True})
    assert detector.found().version == "2"
    again = made()
    again.resume(json.loads(json.dumps(detector.as_dict())))
    assert again.found() == detector.found()
    before = {k: v for k, v in detector.as_dict().items() if k != "answered"}
    again.resume(before)
    assert again.found() is not None, "evidence of an earlier version has no such labels"


def test_labels_of_the_regime_before_do_not_speak_against_one_that_returns():
    detector = made()
    for _ in range(200):
        detector.answered({"1": False, "2": False})
        detector.look({"1": 0.6, "2": 0.6}, 0.6)
    n = 0
    while (found := detector.found()) is None:
        detector.look({"1": 0.6, "2": 0.003}, 0.003)
        detector.answered({"1": True, "2": False})
        n += 1
    assert found.version == "1" and n <= 14


def test_what_is_novel_to_all_of_them_names_nobody():
    detector = made()
    for _ in range(500):
        detector.look({"1": 0.01, "2": 0.02}, 0.01)
        detector.look({"1": 0.9, "2": 0.9}, None)
        detector.look({"1": None, "2": None}, 0.01)
    assert detector.found() is None


def test_evidence_of_a_regime_that_went_by_is_forgotten():
    detector = made()
    for right in (*[True] * 12, *[False] * 40):
        detector.label({"1": right}, not right)
    assert detector.found() is None


def test_the_evidence_goes_through_json_and_on_and_is_of_its_versions():
    detector = made()
    detector.label({"1": True}, False)
    detector.look({"2": 0.5}, 0.01)
    again = made()
    again.resume(json.loads(json.dumps(detector.as_dict())))
    assert again.evidence == pytest.approx(detector.evidence) and again.as_dict() == detector.as_dict()
    with pytest.raises(ValueError, match="other versions"):
        made(("1", "3")).resume(detector.as_dict())
    detector.anew()
    assert detector.evidence == -np.inf and detector.found() is None


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"run_length": 1.0}, "run_length is 1"), ({"min_effect": 0.5}, "min_effect is 0.5"), ({"calibrated": 0}, "0")],
)
def test_parameters_out_of_range_are_refused(given, reason):
    with pytest.raises(ValueError, match=reason):
        ReturnDetector(("1",), **({"run_length": 1e3, "min_effect": 0.1, "calibrated": 10} | given))
    with pytest.raises(ValueError, match="is not in"):
        made().look({"1": 1.5}, 0.5)
