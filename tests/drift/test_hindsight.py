import pytest

from drift.hindsight import LEAST_TRUTHS, REMEMBERED, Hindsight
from drift.label_free import Foretold


def window(name, n=40):
    return {f"{name}-{i}": "a" for i in range(n)}


def foretold(value, lower=0.0, upper=1.0):
    return {"calibrated": Foretold(value=value, lower=lower, upper=upper)}


def test_an_estimate_is_held_against_the_truth_that_came_later() -> None:
    known = Hindsight()
    known.add(window("w"), foretold(0.9, 0.85, 0.95))
    assert (known.judged, known.accuracy(), known.errors()) == (0, None, {})
    for i in range(LEAST_TRUTHS):
        known.learn(f"w-{i}", "a" if i < 15 else "b")
    assert (known.judged, known.accuracy()) == (1, 0.75)
    assert known.errors() == {"calibrated": (pytest.approx(0.15), 0.0)}


def test_truth_may_overtake_its_window_and_be_corrected() -> None:
    known = Hindsight()
    for i in range(40):
        known.learn(f"w-{i}", "b")
        known.learn(f"w-{i}", "a")
    known.learn("another", "a")
    known.add(window("w"), foretold(0.9))
    assert known.accuracy() == 1.0 and known.errors()["calibrated"] == (pytest.approx(0.1), 1.0)


def test_errors_are_over_all_remembered_windows_and_old_ones_are_forgotten() -> None:
    known = Hindsight()
    for w in range(REMEMBERED + 5):
        known.add(window(f"w{w}"), foretold(1.0 if w >= REMEMBERED else 0.5) if w != 7 else {})
        for i in range(40):
            known.learn(f"w{w}-{i}", "a")
    assert known.judged == REMEMBERED
    error, inside = known.errors()["calibrated"]
    assert error == pytest.approx(0.5 * (REMEMBERED - 6) / (REMEMBERED - 1)) and inside == 1.0
