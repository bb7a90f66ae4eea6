import json

import numpy as np
import pytest

from drift.novelty_detector import NoveltyDetector


def calibrated(chance: np.random.Generator, rows: int, shift: float = 0.0, n: int = 2_000) -> np.ndarray:
    """Conformal p-values of normal scores, calibrated once by a sample of ``rows``."""
    known, scores = np.sort(chance.normal(size=rows)), chance.normal(shift, 1.0, n)
    return (rows - np.searchsorted(known, scores) + 1) / (rows + 1)


def made(rows: int = 300, run_length: float = 2_000) -> NoveltyDetector:
    return NoveltyDetector.calibrated(rows, run_length=run_length, min_effect=0.05)


@pytest.mark.parametrize("rows", [30, 300])
def test_the_error_of_the_sample_that_calibrated_is_no_change(rows: int) -> None:
    chance = np.random.default_rng(0)
    alarms = [made(rows).observe({"novelty": calibrated(chance, rows, n=200)}) is not None for _ in range(60)]
    assert sum(alarms) <= 16, "60 * 200 / 2,000 = 6 are expected at most, and 16 has a chance of 1e-4"


@pytest.mark.parametrize(("shift", "within"), [(1.0, 120), (2.0, 30), (5.0, 12)])
def test_novel_inputs_are_found_soon(shift: float, within: int) -> None:
    chance, detector = np.random.default_rng(1), made(run_length=1e4)
    assert detector.observe({"novelty": calibrated(chance, 300, n=500)}) is None
    found = detector.observe({"novelty": calibrated(chance, 300, shift, n=500)})
    assert found is not None and found.column == "novelty" and 500 < found.row <= 500 + within
    assert found.what in ("mean down", "novel up")


def test_a_change_of_a_part_is_dated_by_when_it_began_however_long_nothing_had_changed() -> None:
    chance, early = np.random.default_rng(4), []
    for _ in range(30):
        detector = NoveltyDetector.calibrated(300, run_length=1e4, min_effect=0.1)
        assert detector.observe({"novelty": chance.uniform(size=600)}) is None
        novel = np.where(chance.uniform(size=400) < 0.5, chance.uniform(0.0, 0.05, 400), chance.uniform(size=400))
        found = detector.observe({"novelty": novel})
        assert found is not None
        early.append(601 - found.since)
    assert max(early) <= 10, early
    assert np.median(early) >= -10, early


def test_a_place_of_before_changes_were_dated_by_sums_of_their_own_is_read() -> None:
    detector, chance = NoveltyDetector.calibrated(300, run_length=1e4, min_effect=0.1), np.random.default_rng(5)
    detector.observe({"novelty": chance.uniform(size=200)})
    place = json.loads(json.dumps(detector.as_dict()))
    old = {name: place[name] for name in ("row", "log_evidence", "since")}
    for kept in (place, old):
        again = NoveltyDetector.calibrated(300, run_length=1e4, min_effect=0.1).resume(kept)
        assert again.evidence == detector.evidence
        found = again.observe({"novelty": [0.01] * 12})
        assert found is not None and found.since in range(195, 203)


def of_one_kind(chance: np.random.Generator, n: int, shift: float = 1.5) -> np.ndarray:
    """P-values of inputs of the outer one of two kinds that calibrated together, half and half."""
    known = np.sort(np.concatenate([chance.normal(size=150), chance.normal(shift, 1.0, 150)]))
    return (300 - np.searchsorted(known, chance.normal(shift, 1.0, n)) + 1) / 301


def test_p_values_that_are_small_as_those_of_known_inputs_are_no_change() -> None:
    chance, found = np.random.default_rng(2), {True: 0, False: 0}
    for _ in range(60):
        for told in found:
            usual = of_one_kind(chance, 60).tolist() if told else []
            one = NoveltyDetector.calibrated(300, run_length=2_000, min_effect=0.05, usual=usual)
            found[told] += one.observe({"novelty": of_one_kind(chance, 200)}) is not None
    assert found[True] <= 16 < 50 < found[False], found


def test_smaller_ones_than_those_of_known_inputs_are_a_change() -> None:
    chance = np.random.default_rng(3)
    usual = of_one_kind(chance, 60).tolist()
    one = NoveltyDetector.calibrated(300, run_length=1e4, min_effect=0.05, usual=usual)
    assert one.observe({"novelty": of_one_kind(chance, 300)}) is None
    found = one.observe({"novelty": calibrated(chance, 300, 3.0, n=100)})
    assert found is not None and found.row <= 340


def test_known_inputs_that_are_less_novel_than_half_of_all_change_no_bound() -> None:
    usual = np.linspace(0.2, 1.0, 300).tolist()
    one = NoveltyDetector.calibrated(300, run_length=2_000, min_effect=0.05, usual=usual)
    assert one.watches == made().watches


def test_inputs_that_are_more_alike_than_usual_are_no_alarm() -> None:
    detector = made()
    assert detector.observe({"novelty": [0.9] * 5_000}) is None
    assert detector.observe({"novelty": [None, float("nan")]}) is None and detector.row == 5_000


def test_the_evidence_goes_through_json_and_on() -> None:
    detector = made()
    detector.observe({"novelty": [0.01] * 4})
    kept = json.loads(json.dumps(detector.as_dict()))
    again = made().resume(kept)
    assert (again.row, again.evidence) == (detector.row, pytest.approx(detector.evidence))
    with pytest.raises(ValueError, match="start the detector anew"):
        made().resume({**kept, "log_evidence": [[0.0]]})


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"rows": 0}, "rows is 0"), ({"run_length": 1.0}, "run_length is 1"), ({"min_effect": 0.5}, "min_effect is 0.5")],
)
def test_parameters_out_of_range_are_refused(given: dict[str, float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        NoveltyDetector.calibrated(**({"rows": 10, "run_length": 100.0, "min_effect": 0.1} | given))  # type: ignore[arg-type]


def test_what_is_no_p_value_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the column"):
        made().observe({"p": [0.5]})
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        made().observe({"novelty": [1.5]})
