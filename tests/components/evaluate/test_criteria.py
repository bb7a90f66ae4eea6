import pytest

from components.contracts.spec import Limits
from components.evaluate.criteria import (
    LEAST,
    MANY,
    MOST,
    NO_CHAMPION,
    NO_CONFIDENCE,
    NO_OLDER_WINDOW,
    criteria,
)
from drift.gate import Criterion, assess
from drift.looks import level_of

ALL = Limits(
    min_rows=10, min_accuracy=0.8, min_agreement=0.7, max_loss=0.02, max_forgetting=0.05, max_ece=0.1,
    max_parity_gap=0.01, max_p99_ms=20.0, max_bytes=1000, max_rmse=5.0, min_teacher_accuracy=0.9, max_slice_loss=0.1,
    max_noise_loss=0.2, max_attack_loss=0.5, max_probability_gap=0.05, max_latency_ratio=1.5, max_cold_start_ms=2000.0,
    max_memory_bytes=10**8, max_cost_per_1000=0.1, core_hour_price=0.04, max_mae_loss=0.1, min_coverage=0.8,
    max_membership_advantage=0.2, max_extraction_fidelity=0.9, min_cosine=0.8, min_recall=0.5, max_cosine_loss=0.05,
    max_recall_loss=0.1, min_micro_f1=0.8, max_micro_f1_loss=0.02, min_span_f1=0.8, min_span_agreement=0.8,
    max_span_f1_loss=0.05,
)  # fmt: skip

GOOD = {
    "rows": 10, "accuracy": 0.9, "agreement": 0.9, "loss": 0.0, "forgetting": 0.0, "ece": 0.05, "parity_gap": 0.0,
    "p99_ms": 1.0, "bytes": 900, "rmse": 1.0, "teacher_accuracy": 0.95, "slice_loss": 0.0, "noise_loss": 0.0,
    "attack_loss": 0.1, "probability_gap": 0.01, "latency_ratio": 1.0, "cold_start_ms": 100.0, "memory_bytes": 1e6,
    "cost_per_1000": 0.001, "mae_loss": 0.0, "coverage": 0.9,
    "membership_advantage": 0.05, "extraction_fidelity": 0.5, "cosine": 0.9, "recall": 0.6, "cosine_loss": 0.0,
    "recall_loss": 0.0, "micro_f1": 0.9, "micro_f1_loss": 0.0, "span_f1": 0.9, "span_agreement": 0.9,
    "span_f1_loss": 0.0,
}  # fmt: skip

HOW = {
    "min_rows", "confidence", "looks", "disturbance", "core_hour_price", "groups", "extraction", "neighbours",
    "searched",
}  # fmt: skip
"""Fields that say how to measure, or of what (groups have tests of their own), and not what is demanded."""


def demanded(limits, champion=True, older=True, **more):
    return {c.measure: c for c in criteria(limits, champion=champion, older=older, **more)[0]}


def test_every_limit_of_the_spec_is_a_criterion():
    assert HOW | {*LEAST.values(), *MOST.values(), *MANY.values()} == set(Limits.__struct_fields__)
    found = demanded(ALL)
    assert found["accuracy"] == Criterion(measure="accuracy", at_least=0.8)
    assert found["bytes"] == Criterion(measure="bytes", at_most=1000)
    assert set(found) == {"rows", *LEAST, *MOST, *MANY} == set(GOOD)


def test_no_limit_has_a_default_for_what_the_gate_should_measure():
    assert set(demanded(Limits())) == {"rows"}  # so that nobody is promoted: how many rows there are is no quality


@pytest.mark.parametrize("measure", [m for m in GOOD if m != "rows"])
def test_each_criterion_can_fail_and_can_be_missing(measure):
    wanted, _ = criteria(ALL, champion=True, older=True)
    assert assess(GOOD, wanted).decision == "promote"
    bad = 0.0 if measure in LEAST else 1e9
    assert assess({**GOOD, measure: bad}, wanted).decision == "reject"
    assert assess({**GOOD, measure: None}, wanted).decision == "hold"


def test_too_few_rows_hold_and_do_not_reject():
    wanted, _ = criteria(ALL, champion=True, older=True)
    verdict = assess({**GOOD, "rows": 9}, wanted)
    assert verdict.decision == "hold" and "rows is 9; it must be >= 10" in verdict.reasons


def test_a_champion_and_older_windows_are_compared_with_only_where_there_are_any():
    compared = {"loss", "mae_loss", "span_f1_loss", "slice_loss", "forgetting", "latency_ratio"}
    made, notes = criteria(ALL, champion=False, older=True)
    assert not compared & {c.measure for c in made} and notes == (NO_CHAMPION, NO_CONFIDENCE)
    made, notes = criteria(ALL, champion=True, older=False)
    assert compared & {c.measure for c in made} == compared - {"forgetting"}
    assert notes == (NO_OLDER_WINDOW, NO_CONFIDENCE)
    assert criteria(ALL, champion=True, older=True)[1] == (NO_CONFIDENCE,)


def test_every_slice_regime_and_disturbance_is_a_criterion_of_one_family():
    names = ("forgetting", "forgetting[window 1]", "forgetting[window 2]", "slice_loss[a]", "noise_loss[typos]")
    found = demanded(ALL, names=names)
    assert found["forgetting[window 2]"] == Criterion(measure="forgetting[window 2]", at_most=0.05, family="forgetting")
    assert {"slice_loss[a]", "noise_loss[typos]", "forgetting[window 1]"} <= set(found)
    assert not {"forgetting", "slice_loss"} & set(found)


def test_a_declared_confidence_demands_bounds_and_is_spent_over_looks():
    limits = Limits(min_accuracy=0.8, confidence=0.9, max_p99_ms=5.0)
    made, notes = criteria(limits, champion=True, older=True)
    assert {c.measure: c.confidence for c in made if c.measure == "accuracy"} == {"accuracy": pytest.approx(0.9)}
    assert notes == ()
    assert demanded(limits, look=2)["accuracy"].confidence == pytest.approx(0.975)
    reachable = sum(2 ** (k - 1) * (1.0 - level_of(0.9, k)) for k in range(1, 60))
    assert reachable <= 2 * 0.1 + 1e-9  # all students that may stand at any look, together
