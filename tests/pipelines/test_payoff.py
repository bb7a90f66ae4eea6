import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.spec import Budget, Label, Limits, Serve, Student
from components.contracts.spec import Trigger as Policy
from components.control.learning import Evaluated
from components.control.tables import WindowRow
from components.query.least import least_labels
from drift.learning_curve import Point
from pipelines.payoff import Evidence, assess, certifying_labels, cost_of, learnt_of, points_of, replayed


def measured(*points, rows=100):
    return tuple(Point(labels=n, wrong=share * rows, rows=rows) for n, share in points)


CHANGED = Evidence(
    learnt=0.0,
    fresh=80.0,
    left=120.0,
    points=measured((0, 0.95)),
    past=(measured((0, 0.9), (130, 0.05)),) * 2,
    horizon=600,
)
"""A change that made the champion wrong, in a lineage that has learnt such things with 130 labels."""

SETTLED = Evidence(
    learnt=3_000.0, fresh=100.0, left=500.0, points=measured((2_400, 0.02), (3_000, 0.02), rows=200), horizon=600
)
"""Traffic as it was, of which there is little left to learn."""


def test_an_update_starts_soon_after_a_change_and_late_where_there_is_nothing_to_gain():
    found = assess(CHANGED)
    assert found.start and found.wait == 0
    assert found.now > 0.9 and found.after < 0.3 and found.gain > 300
    assert "no wait gains more" in found.reason
    found = assess(SETTLED)
    assert not found.start and found.wait > 100 and found.gain < 5
    assert "more labels" in found.reason
    # as labels come it is decided anew, and starts when the upper bound is near
    starts = [assess(msgspec.structs.replace(SETTLED, fresh=n, left=600.0 - n)).start for n in (200.0, 400.0, 600.0)]
    assert starts == [False, False, True]


def test_of_a_regime_that_is_learnt_slowly_more_labels_are_waited_for():
    slow = (measured((0, 0.95), (100, 0.9), (1_000, 0.3)),) * 6
    found = assess(msgspec.structs.replace(CHANGED, past=slow, fresh=20.0))
    assert not found.start and found.wait > 0 and found.waiting > found.gain
    assert assess(msgspec.structs.replace(CHANGED, fresh=20.0)).wait < found.wait


def test_an_update_that_costs_more_than_it_gains_does_not_start():
    gain = assess(CHANGED).gain
    assert assess(msgspec.structs.replace(CHANGED, cost=0.9 * gain)).start
    found = assess(msgspec.structs.replace(CHANGED, cost=1.1 * gain))
    assert not found.start and "costs" in found.reason


def test_traffic_that_passes_while_an_update_is_made_gains_nothing():
    found = assess(msgspec.structs.replace(CHANGED, making=600.0))
    assert found.gain == 0.0 and not found.start


@given(
    fresh=st.floats(0, 500), left=st.floats(0, 500), ratio=st.floats(1, 50), cost=st.floats(0, 1_000),
    learnt=st.floats(0, 5_000), share=st.floats(0, 1),
)  # fmt: skip
def test_every_start_pays_and_is_decided_again_from_what_the_ledger_has(fresh, left, ratio, cost, learnt, share):
    evidence = Evidence(
        learnt=learnt, fresh=fresh, left=left, points=measured((learnt, share)), horizon=600, ratio=ratio, cost=cost
    )
    found = assess(evidence)
    assert found.start == (found.gain > cost and found.wait == 0)
    assert found.waiting >= found.gain and found.after <= found.now
    kept = msgspec.json.decode(msgspec.json.encode({"evidence": evidence, "payoff": found}))
    assert replayed(kept) == found == msgspec.convert(kept["payoff"], type(found))


def spec_with(spec, **sections):
    return msgspec.structs.replace(spec, **sections)


def test_fewer_labels_than_the_gate_could_pass_on_start_no_update(spec):
    made = spec_with(
        spec,
        limits=Limits(min_rows=20, confidence=0.95, min_agreement=0.9),
        student=Student(holdout_share=0.2),
        label=Label(audit_share=0.0),
    )
    assert least_labels(made) == 177  # 29 rows without a fault show 0.9 at 95 %: of 177 a fifth is that in 90 of 100
    assert least_labels(spec_with(made, label=Label(audit_share=0.5))) == 56
    assert least_labels(spec_with(made, limits=Limits(min_rows=20, min_agreement=None))) == 126
    assert least_labels(spec_with(made, trigger=Policy(payoff=True, least_labels=40))) == 40
    promised = spec_with(made, serve=Serve(max_disagreement=0.1))
    assert (certifying_labels(made), certifying_labels(promised)) == (0, 259)  # 44 rows without a fault certify it
    assert least_labels(promised) == 177


def test_an_update_costs_its_seconds_in_calls_where_both_have_a_price(spec):
    budget = Label(budget=Budget(cost=0.002, unit="money", per_day=10.0))
    priced = spec_with(spec, limits=Limits(core_hour_price=0.72), label=budget)
    assert cost_of(priced, 20.0) == pytest.approx(2.0)
    assert cost_of(spec_with(priced, label=Label()), 20.0) == 0.0
    assert cost_of(spec_with(priced, limits=Limits()), 20.0) == 0.0


def window(number, rows):
    return WindowRow(digest=f"w{number}", workload="t", number=number, uri="", rows=rows, created_at=0.0, manifest={})


def test_each_regime_has_the_points_of_the_windows_that_ended_in_it():
    windows = [window(1, 300), window(2, 600), window(3, 200), window(4, 100)]
    evaluations = [
        Evaluated(window="w1", digest="a", rows=50, wrong=5),
        Evaluated(window="w2", digest="b", rows=80, wrong=4, champion_window="w1", champion_wrong=8),
        Evaluated(window="w3", digest="c", rows=40, wrong=2, champion_window="w2", champion_wrong=36),
        Evaluated(window="w4", digest="d", rows=20, wrong=1, champion_window="w3", champion_wrong=2),
        Evaluated(window="gone", digest="e", rows=20, wrong=1),
    ]
    first, second = points_of(evaluations, windows, [950])
    assert first == [
        Point(labels=300, wrong=5, rows=50),
        Point(labels=900, wrong=4, rows=80),
        Point(labels=300, wrong=8, rows=80),
    ]
    assert second == [
        Point(labels=150, wrong=2, rows=40),
        Point(labels=0, wrong=36, rows=40),  # the champion of before had learnt nothing of it
        Point(labels=250, wrong=1, rows=20),
        Point(labels=150, wrong=2, rows=20),
    ]
    assert points_of(evaluations, windows, [950, 1_150]) [2] == [
        Point(labels=50, wrong=1, rows=20), Point(labels=0, wrong=2, rows=20),
    ]  # fmt: skip
    assert learnt_of("w3", windows, [950]) == 150 and learnt_of("w2", windows, [950]) == 0
    assert learnt_of("w2", windows, []) == 900
