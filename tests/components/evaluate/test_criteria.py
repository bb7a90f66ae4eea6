import pytest

from components.contracts.spec import Limits
from components.evaluate.criteria import LEAST, MOST, NO_CHAMPION, NO_OLDER_WINDOW, criteria
from drift.gate import Criterion, assess

ALL = Limits(
    min_rows=10, min_accuracy=0.8, min_agreement=0.7, max_loss=0.02, max_forgetting=0.05, max_ece=0.1,
    max_parity_gap=0.01, max_p99_ms=20.0, max_bytes=1000, max_rmse=5.0, min_teacher_accuracy=0.9,
)  # fmt: skip

GOOD = {
    "rows": 10, "accuracy": 0.9, "agreement": 0.9, "loss": 0.0, "forgetting": 0.0, "ece": 0.05, "parity_gap": 0.0,
    "p99_ms": 1.0, "bytes": 900, "rmse": 1.0, "teacher_accuracy": 0.95,
}  # fmt: skip


def demanded(limits, champion=True, older=True):
    return {c.measure: c for c in criteria(limits, champion=champion, older=older)[0]}


def test_every_limit_of_the_spec_is_a_criterion():
    assert {"min_rows", *LEAST.values(), *MOST.values()} == set(Limits.__struct_fields__)
    found = demanded(ALL)
    assert found["accuracy"] == Criterion(measure="accuracy", at_least=0.8)
    assert found["bytes"] == Criterion(measure="bytes", at_most=1000)
    assert set(found) == {"rows", *LEAST, *MOST}


def test_what_has_no_limit_is_not_demanded():
    assert set(demanded(Limits())) == {"rows", "parity_gap"}


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
    made, notes = criteria(ALL, champion=False, older=True)
    assert not {"loss", "forgetting"} & {c.measure for c in made} and notes == (NO_CHAMPION,)
    made, notes = criteria(ALL, champion=True, older=False)
    assert {"loss", "forgetting"} & {c.measure for c in made} == {"loss"} and notes == (NO_OLDER_WINDOW,)
    assert criteria(ALL, champion=True, older=True)[1] == ()
