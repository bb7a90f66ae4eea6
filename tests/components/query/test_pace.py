"""Which of the inputs whose callers wait are asked about, so that a budget lasts."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.query.pace import BINS, Demand, affordable, counted, granted, need, price

NOW = 1_700_000_000.0


def test_need_is_what_does_not_speak_for_the_student():
    assert need(0.7, None, None) == pytest.approx(0.3)
    assert need(0.7, 0.5, 0.05) == pytest.approx(0.3), "an input that is not novel is as sure as its confidence"
    assert need(0.7, 0.01, 0.05) == pytest.approx(1.0 - 0.7 / 5)
    assert need(1.0, 0.0, 0.05) == 1.0
    assert need(None, None, 0.05) == 0.0


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 0.5))
def test_need_is_a_share_and_falls_with_confidence_and_with_the_p_value(confidence, novelty, alpha):
    found = need(confidence, novelty, alpha)
    assert 0.0 <= found <= 1.0
    assert need(min(1.0, confidence + 0.1), novelty, alpha) <= found
    assert need(confidence, min(1.0, novelty + 0.1), alpha) <= found


def test_demand_is_forgotten_and_its_rates_do_not_move_by_that():
    demand = None
    for second in range(400):
        demand = counted(demand, NOW + second, 100.0, 1.0, needs=[0.2, 0.9], promised=0.5)
    assert demand.seconds == pytest.approx(100.0, rel=0.03)
    assert sum(demand.needs) / demand.seconds == pytest.approx(2.0, rel=0.01)
    assert demand.promised / demand.seconds == pytest.approx(0.5, rel=0.01)
    later = counted(demand, NOW + 399 + 100, 100.0, 1.0)
    assert sum(later.needs) == pytest.approx(sum(demand.needs) / math.e)
    back = counted(demand, NOW, 100.0, 1.0)
    assert back.at == demand.at and back.needs == demand.needs, "a clock that goes back changes nothing"


def test_what_was_promised_comes_first_and_without_a_limit_all_is_affordable():
    demand = Demand(at=NOW, seconds=10.0, needs=(20.0,), promised=10.0)
    assert affordable(demand, 300.0, 100.0) == 1.0
    assert affordable(demand, 200.0, 100.0) == pytest.approx(0.5)
    assert affordable(demand, 50.0, 100.0) == 0.0
    assert affordable(demand, math.inf, 100.0) == 1.0
    assert affordable(demand, 200.0, 100.0, kept=80.0) == pytest.approx(0.5), "what is kept is among what was promised"
    assert affordable(demand, 200.0, 100.0, kept=150.0) == pytest.approx(0.25)
    assert affordable(Demand(at=NOW, seconds=1.0), 0.0, 100.0) == 1.0, "nobody asks"


def test_the_neediest_share_is_granted_and_of_equal_ones_as_many_as_are_paid_for():
    wanted = {f"i{k}": k / 100 for k in range(100)}
    demand = counted(None, NOW, 3_600.0, 1.0, needs=list(wanted.values()))
    assert granted(demand, 0.2, wanted, "w") == [f"i{k}" for k in range(99, 79, -1)]
    assert price(demand, 0.2) == pytest.approx(0.79) and price(demand, 1.0) == 0.0
    assert len(granted(demand, 1.0, wanted, "w")) == 100 and granted(demand, 0.0, wanted, "w") == []
    alike = {f"i{k}": 0.5 for k in range(2_000)}
    demand = counted(None, NOW, 3_600.0, 1.0, needs=list(alike.values()))
    found = granted(demand, 0.3, alike, "w")
    assert 540 <= len(found) <= 660 and found == granted(demand, 0.3, alike, "w")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0, 1))
def test_nobody_is_refused_who_needs_it_more_than_one_who_is_granted(needs, share):
    wanted = {str(k): n for k, n in enumerate(needs)}
    demand = counted(None, NOW, 3_600.0, 1.0, needs=needs)
    found = granted(demand, share, wanted, "w")
    for refused in set(wanted) - set(found):
        assert all(wanted[i] > wanted[refused] - 1.0 / BINS - 1e-9 for i in found)


def test_a_budget_lasts_and_goes_to_those_that_need_it_while_a_quiet_time_pays_for_a_change():
    """Ten inputs a second for an hour, of which one in ten is deferred, and all of them after a change, for a while."""
    chance, left, demand = random.Random(1), 4_000, None
    asked = {"quiet": 0, "first": 0, "change": 0, "after": 0}
    for second in range(3_600):
        new = 1_800 <= second < 2_400
        needs = [chance.uniform(0.9, 1.0) if new else chance.uniform(0.1, 0.6) for _ in range(10 if new else 1)]
        wanted = {f"{second}-{n}": x for n, x in enumerate(needs)}
        demand = counted(demand, NOW + second, 3_600.0, 1.0, needs=needs)
        found = granted(demand, affordable(demand, left, 3_600 - second), wanted, "w")
        found = found[:left]
        left -= len(found)
        when = "quiet" if second < 1_800 else "first" if second < 1_860 else "change" if new else "after"
        asked[when] += len(found)
    assert asked["quiet"] > 1_700, "what the budget reaches for is asked about"
    assert asked["first"] == 600, "a change is answered in full at first"
    assert asked["change"] < 5_400 and asked["after"] > 0 and 0 <= left < 400
