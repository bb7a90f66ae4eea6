import json
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift.gate import Criterion, Verdict, assess
from drift.mean import Mean

RANK = {"reject": 0, "hold": 1, "promote": 2}
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
MEASURES = ("accuracy", "loss", "rows", "p99_ms")


@st.composite
def one_sided(draw: st.DrawFn) -> tuple[Criterion, ...]:
    names = draw(st.lists(st.sampled_from(MEASURES), unique=True, min_size=1))
    sides = [draw(st.sampled_from(["at_least", "at_most"])) for _ in names]
    return tuple(
        Criterion(measure=n, evidence=draw(st.booleans()), **{side: draw(NUMBERS)})
        for n, side in zip(names, sides, strict=True)
    )


MEASUREMENTS = st.dictionaries(st.sampled_from(MEASURES), st.none() | st.floats(width=32))


def test_every_criterion_passed_promotes_with_its_numbers() -> None:
    verdict = assess(
        {"accuracy": 0.93, "p99_ms": 12.0},
        [Criterion(measure="accuracy", at_least=0.9), Criterion(measure="p99_ms", at_most=20)],
    )
    assert verdict.decision == "promote"
    assert verdict.reasons == ("accuracy is 0.93; it must be >= 0.9", "p99_ms is 12; it must be <= 20")


def test_one_failure_rejects_even_beside_missing_evidence_and_stands_first() -> None:
    verdict = assess(
        {"accuracy": 0.95, "loss": 0.031, "ece": None},
        [Criterion(measure=m, at_most=0.03) if m != "accuracy" else Criterion(measure=m, at_least=0.9)
         for m in ("accuracy", "ece", "loss")],
    )  # fmt: skip
    assert verdict.decision == "reject"
    assert verdict.reasons[0] == "loss is 0.031; it must be <= 0.03"
    assert [f.outcome for f in verdict.findings] == ["pass", "missing", "fail"]


@pytest.mark.parametrize("measurements", [{}, {"accuracy": None}, {"accuracy": math.nan}, {"accuracy": math.inf}])
def test_missing_evidence_holds(measurements: dict[str, float | None]) -> None:
    verdict = assess(measurements, [Criterion(measure="accuracy", at_least=0.9)])
    assert verdict.decision == "hold"
    assert verdict.findings[0].value is None


def test_an_infinite_latency_fails() -> None:
    verdict = assess({"p99_ms": math.inf}, [Criterion(measure="p99_ms", at_most=20)])
    assert (verdict.decision, verdict.reasons) == ("reject", ("p99_ms is inf; it must be <= 20",))


def test_a_gate_without_criteria_holds_and_says_so() -> None:
    verdict = assess({"accuracy": 1.0}, [])
    assert verdict.decision == "hold"
    assert "without criteria" in verdict.reasons[0]


def test_too_little_evidence_holds_instead_of_rejecting() -> None:
    rows = Criterion(measure="rows", at_least=50, evidence=True)
    good = Criterion(measure="accuracy", at_least=0.9)
    assert assess({"rows": 49.0, "accuracy": 1.0}, [rows, good]).decision == "hold"
    assert assess({"rows": 50.0, "accuracy": 1.0}, [rows, good]).decision == "promote"


def test_much_evidence_of_nothing_that_was_demanded_holds() -> None:
    verdict = assess({"rows": 5_000.0, "accuracy": 1.0}, [Criterion(measure="rows", at_least=50, evidence=True)])
    assert verdict.decision == "hold" and "without criteria" in verdict.reasons[0] and len(verdict.reasons) == 2


def test_limits_are_inclusive_and_may_be_two_sided() -> None:
    share = Criterion(measure="share", at_least=0.1, at_most=0.2)
    decisions = [assess({"share": x}, [share]).decision for x in (0.0999, 0.1, 0.2, 0.2001)]
    assert decisions == ["reject", "promote", "promote", "reject"]
    assert share.limit == ">= 0.1 and <= 0.2"


def test_rounding_never_hides_why_a_value_failed() -> None:
    verdict = assess({"accuracy": 0.89999}, [Criterion(measure="accuracy", at_least=0.9)])
    assert verdict.reasons == ("accuracy is 0.89999; it must be >= 0.9",)
    assert assess({"bytes": 1234567.0}, [Criterion(measure="bytes", at_most=1234566)]).reasons == (
        "bytes is 1234567; it must be <= 1234566",
    )


@pytest.mark.parametrize(
    "limits",
    [{}, {"at_least": math.nan}, {"at_most": math.inf}, {"at_least": -math.inf}, {"at_least": 0.3, "at_most": 0.2}],
)
def test_a_criterion_that_could_not_judge_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="criterion 'accuracy'"):
        Criterion(measure="accuracy", **limits)


@given(one_sided(), MEASUREMENTS)
def test_as_dict_is_strict_json_and_agrees(criteria: tuple[Criterion, ...], measured: dict[str, float | None]) -> None:
    verdict = assess(measured, criteria)
    data = json.loads(json.dumps(verdict.as_dict(), allow_nan=False))
    assert data["decision"] == verdict.decision
    assert tuple(data["reasons"]) == verdict.reasons
    assert len(data["findings"]) == len(criteria)


@given(one_sided(), MEASUREMENTS, st.data())
def test_what_is_missing_never_promotes(
    criteria: tuple[Criterion, ...], measured: dict[str, float | None], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from([c.measure for c in criteria]))
    for missing in ({k: v for k, v in measured.items() if k != gone}, measured | {gone: None}):
        assert assess(missing, criteria).decision != "promote"
    assert assess(measured | {gone: math.nan}, criteria).decision != "promote"


@given(one_sided(), st.fixed_dictionaries(dict.fromkeys(MEASURES, NUMBERS)), st.data())
def test_a_better_measurement_never_worsens_the_decision(
    criteria: tuple[Criterion, ...], measured: dict[str, float], data: st.DataObject
) -> None:
    better = data.draw(st.sampled_from(criteria))
    step = data.draw(st.floats(min_value=0, max_value=1e30))
    improved = measured[better.measure] + (step if better.at_least is not None else -step)
    before, after = assess(measured, criteria), assess(measured | {better.measure: improved}, criteria)
    assert RANK[after.decision] >= RANK[before.decision]


@given(one_sided(), MEASUREMENTS, st.randoms())
def test_the_order_of_criteria_does_not_matter(
    criteria: tuple[Criterion, ...], measured: dict[str, float | None], shuffler: Random
) -> None:
    shuffled = list(criteria)
    shuffler.shuffle(shuffled)
    one, other = assess(measured, criteria), assess(measured, shuffled)
    assert one.decision == other.decision
    assert sorted(one.reasons) == sorted(other.reasons)


@given(one_sided(), st.fixed_dictionaries(dict.fromkeys(MEASURES, st.floats(width=32, allow_nan=False))))
def test_the_number_in_a_reason_is_on_the_same_side_of_the_limit(
    criteria: tuple[Criterion, ...], measured: dict[str, float]
) -> None:
    verdict: Verdict = assess(measured, criteria)
    for criterion, finding in zip(criteria, verdict.findings, strict=True):
        said = float(finding.reason.split(" is ")[1].split(";")[0])
        assert criterion.met_by(said) == criterion.met_by(measured[criterion.measure])


@pytest.mark.parametrize(("rows", "decision"), [(2_000, "reject"), (100, "hold")])
def test_a_paired_mean_that_had_rows_enough_for_an_equal_model_fails(rows: int, decision: str) -> None:
    chance = Random(0)
    values = tuple(chance.gauss(0.02, 0.05) for _ in range(rows))
    loss = Mean(values=values, weights=(1.0,) * rows, least=-2.0, most=2.0, paired=True)
    limit = loss.value - 1e-4  # neither kept nor, beyond doubt, broken
    criterion = Criterion(measure="cosine_loss", at_most=limit, confidence=0.95)
    assert assess({"cosine_loss": loss}, [criterion]).decision == decision
    alone = Mean(values=values, weights=(1.0,) * rows)
    assert assess({"cosine_loss": alone}, [criterion]).decision == "hold"
