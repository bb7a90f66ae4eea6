import os
import threading

import pytest

from components.contracts import failpoint
from components.contracts.errors import ConfigError
from components.contracts.spec import Budget as Limits
from components.control import database
from components.control.store import ControlStore
from components.control.tables import ReservationRow, SpendingRow
from components.query.budget import Budget
from tests.clock import Clock
from tests.forks import forked, preload

DAY = 1_700_006_400.0
"""Midnight (UTC) of a day."""


@pytest.fixture
def clock():
    return Clock(DAY)


@pytest.fixture
def budget(store, clock):
    def make(*, cost=0.0, workload="files", **limits):
        limits = {"reserve": 0.0, **limits}
        return Budget(Limits(**limits), workload, store, cost=cost, clock=clock)

    return make


def test_grants_what_is_left_and_no_more(budget):
    one = budget(per_hour=10)
    assert (one.reserve(0, 6).calls, one.reserve(0, 6).calls, one.reserve(0, 6).calls) == (6, 4, 0)
    hour = one.spending()["hour"]
    assert (hour.calls, hour.skipped, hour.limit) == (10, 8, 10)


def test_the_tighter_limit_holds(budget, clock):
    one = budget(per_hour=10, per_day=15)
    assert one.reserve(0, 99).calls == 10
    clock.now += 3_600
    assert one.reserve(0, 99).calls == 5
    clock.now += 3_600
    assert one.reserve(0, 99).calls == 0


def test_without_limits_everything_is_granted_and_counted(budget):
    one = budget()
    assert not one.limited and one.reserve(3, 1_000).calls == 1_003
    assert one.spending()["day"].calls == 1_003


def test_urgent_calls_come_first_and_alone_may_use_the_reserve(budget):
    one = budget(per_hour=10, reserve=0.3)
    granted = one.reserve(2, 20)
    assert (granted.urgent, granted.ordinary) == (2, 5)
    granted = one.reserve(1, 1)
    assert (granted.urgent, granted.ordinary) == (1, 0)
    assert one.reserve(9, 9).calls == 2


def test_a_limit_that_is_no_whole_number_is_not_rounded_up(budget):
    assert budget(per_hour=2.9).reserve(0, 9).calls == 2
    assert budget(per_hour=10, reserve=0.25, workload="w").reserve(0, 99).calls == 7


def test_settling_gives_back_what_was_not_used_once(budget):
    one = budget(per_hour=10)
    granted = one.reserve(0, 8)
    one.settle(granted, 3)
    one.settle(granted, 3)
    one.settle(granted, 0)
    assert one.spending()["hour"].calls == one.spending()["day"].calls == 3
    assert one.reserve(0, 99).calls == 7
    with pytest.raises(ValueError, match="9 calls made of 8"):
        one.settle(granted, 9)


def test_what_is_spent_at_once_takes_a_part_of_what_is_left_and_skips_no_input(budget):
    one = budget(per_hour=100, reserve=0.5)
    assert (one.spend(70, part=0.5), one.spend(70, part=0.5)) == (50, 25)
    assert one.spend(26, least=26) == 0 and one.spend(25, least=25) == 25 and one.spend(1) == 0
    hour = one.spending()["hour"]
    assert (hour.calls, hour.skipped, hour.left) == (100, 0, 0) and one.unsettled() == 0


def test_nothing_granted_leaves_nothing_to_settle(budget, store):
    one = budget(per_hour=1)
    one.reserve(0, 1)
    nothing = one.reserve(0, 5)
    one.settle(nothing, 0)
    assert nothing.id == "" and one.unsettled() == 1 and one.spending()["hour"].skipped == 5


def test_what_is_given_back_goes_to_the_hour_that_it_was_taken_from(budget, clock):
    one = budget(per_hour=10, per_day=30)
    granted = one.reserve(0, 10)
    clock.now += 3_600
    one.settle(granted, 4)
    assert (one.spending()["hour"].calls, one.spending()["day"].calls) == (0, 4)
    assert one.reserve(0, 99).calls == 10


def test_money_is_counted_exactly(budget):
    one = budget(per_day=0.3, unit="money", cost=0.1)
    assert [one.reserve(0, 1).calls for _ in range(4)] == [1, 1, 1, 0]
    assert one.spending()["day"].money == 0.3


def test_money_without_a_price_is_refused(budget):
    with pytest.raises(ConfigError, match="cost nothing"):
        budget(per_day=1.0, unit="money")
    with pytest.raises(ConfigError, match="cost per call"):
        budget(per_day=1.0, cost=float("nan"))


def test_workloads_do_not_share_a_budget(budget):
    budget(per_hour=3).reserve(0, 3)
    assert budget(per_hour=3, workload="mail").reserve(0, 9).calls == 3


# What is kept for audits


def test_of_what_is_kept_for_audits_nothing_else_takes_anything_late_in_a_period_either(budget, clock):
    one = budget(per_hour=100, audits=0.2, reserve=0.1)
    assert one.reserve(0, 30, audits=10).calls == 40
    clock.now += 1_800
    assert one.reserve(99, 99).calls == 40, "deferrals get what is not kept"
    assert one.reserve(9, 9).calls == one.spend(9) == 0 and not one.again(1) and one.allowance(3_600) == 0
    hour = one.spending()["hour"]
    assert (hour.left, hour.kept) == (20, 20)
    granted = one.reserve(9, 9, audits=15)
    assert (granted.audits, granted.urgent, granted.ordinary) == (15, 0, 0)
    assert (one.spending()["hour"].left, one.spending()["hour"].kept) == (5, 5)
    one.settle(granted, 10)
    assert one.reserve(9, 9).calls == 0, "what audits gave back of it is theirs"
    assert one.reserve(9, 9, audits=99).audits == 10 and one.spending()["hour"].left == 0


def test_what_is_kept_and_unused_ends_with_its_period(budget, clock):
    one = budget(per_hour=10, per_day=100, audits=0.5)
    assert one.reserve(99, 0).calls == 5
    clock.now += 3_600
    assert one.reserve(99, 0).calls == 5


def test_audits_may_use_what_is_not_kept_as_well(budget):
    one = budget(per_hour=10, audits=0.2)
    assert one.reserve(0, 0, audits=99).audits == 10


def test_what_is_kept_is_a_part_of_the_reserve_or_all_of_it_and_more(budget):
    one = budget(per_hour=100, audits=0.1, reserve=0.3)
    granted = one.reserve(99, 99, audits=1)
    assert (granted.audits, granted.urgent, granted.ordinary) == (1, 89, 0)
    assert budget(per_hour=100, audits=0.1, reserve=0.3, workload="w").reserve(0, 99).calls == 70
    assert budget(per_hour=100, audits=0.4, reserve=0.3, workload="v").reserve(0, 99).calls == 60
    assert budget(per_hour=100, audits=0.07, workload="u").reserve(99, 0).calls == 93
    every = budget(per_hour=10, audits=1.0, workload="all")
    assert every.reserve(9, 9, audits=9).calls == every.reserve(0, 0, audits=9).calls + 8 == 9


def test_without_anything_kept_audits_are_as_those_whose_callers_wait(budget):
    one = budget(per_hour=10, reserve=0.3)
    granted = one.reserve(2, 20, audits=1)
    assert (granted.audits, granted.urgent, granted.ordinary) == (1, 2, 4)
    assert one.reserve(9, 9).calls == 3 and one.spending()["hour"].kept == 0.0


def test_what_is_sent_once_more_is_of_what_is_kept_only_while_audits_alone_are_asked_about(budget):
    one = budget(per_hour=10, audits=0.5)
    mixed = one.reserve(3, 0, audits=2)
    with one.asking(mixed):
        assert not one.again(1)
    granted = one.reserve(3, 0, audits=2)
    assert granted.calls == granted.audits == 2
    with one.asking(granted):
        assert one.again(2) and one.spend(1) == 0, "nor do probes that are mixed in"
    assert not one.again(1) and one.spending()["hour"].left == 1


# Time


def test_hours_and_days_are_those_of_utc(budget, clock):
    one = budget(per_hour=5, per_day=8)
    clock.now = DAY + 86_399.999
    assert one.reserve(0, 9).calls == 5
    assert one.spending()["day"].seconds_left == pytest.approx(0.001, abs=1e-3)
    clock.now = DAY + 86_400
    assert one.reserve(0, 9).calls == 5
    clock.now += 3_600
    assert one.reserve(0, 9).calls == 3


def test_a_clock_that_goes_back_gives_no_second_budget(budget, clock):
    one = budget(per_hour=5, per_day=50)
    clock.now = DAY + 7_300
    assert one.reserve(0, 5).calls == 5
    for back in (DAY + 7_100, DAY + 10, DAY - 86_400):
        clock.now = back
        assert one.reserve(0, 5).calls == 0
        assert one.allowance(3_600) == 0
    clock.now = DAY + 3 * 3_600
    assert one.reserve(0, 9).calls == 5


def test_a_clock_that_ran_ahead_blocks_until_somebody_says_that_it_is_right(budget, clock, caplog):
    one = budget(per_hour=5)
    clock.now = DAY + 40 * 86_400
    one.reserve(0, 5)
    clock.now = DAY
    assert one.reserve(0, 5).calls == 0
    assert "budget trust-clock" in caplog.text
    one.trust_clock()
    assert one.reserve(0, 9).calls == 5


def test_a_changed_budget_holds_at_once_for_what_was_spent_before(budget):
    budget(per_hour=100).reserve(0, 40)
    assert budget(per_hour=30).reserve(0, 9).calls == 0
    assert budget(per_hour=45).reserve(0, 9).calls == 5
    assert budget(per_day=50).reserve(0, 9).calls == 5


def test_a_budget_that_becomes_one_of_money_knows_what_the_calls_have_cost(budget):
    budget(per_hour=100, cost=0.5).reserve(0, 10)
    assert budget(per_hour=6.0, unit="money", cost=0.5).reserve(0, 9).calls == 2
    assert budget(per_hour=14, cost=0.5).reserve(0, 9).calls == 2


def test_what_is_old_is_forgotten(budget, store, clock):
    one = budget(per_hour=5)
    one.reserve(0, 5)
    clock.now += 40 * 86_400
    one.reserve(0, 5)
    with store.session() as s:
        assert s.query(SpendingRow).count() == 2 and s.query(ReservationRow).count() == 1


def test_the_allowance_spreads_what_is_left_over_the_time_that_is_left(budget, clock):
    one = budget(per_hour=100, reserve=0.1)
    assert one.allowance(36.0) == pytest.approx(0.9)
    one.reserve(0, 45)
    clock.now += 1_800
    assert one.allowance(36.0) == pytest.approx(45 * 36 / 1_800)
    assert one.allowance(9_999) == 45
    assert budget(per_hour=100, reserve=0.1, paced=False).allowance(1.0) == 45
    assert budget().allowance(1.0) == float("inf")
    assert budget(per_hour=40).allowance(9_999) == 0


def test_the_gauge_says_where_it_stands(budget):
    one = budget(per_hour=10)
    one.reserve(0, 12)
    gauge = one.gauge()
    assert gauge["hour"] == {
        "calls": 10, "money": 0.0, "skipped": 2, "limit": 10, "left": 0.0, "kept": 0.0, "seconds_left": 3_600,
    }  # fmt: skip
    assert gauge["day"]["limit"] is gauge["day"]["left"] is None and gauge["unsettled"] == 1


# Several labelers, and death anywhere


def test_many_threads_together_get_the_budget_exactly(store, clock):
    grants = []

    def labeler():
        one = Budget(Limits(per_hour=100, reserve=0.0), "files", store, clock=clock)
        for _ in range(20):
            granted = one.reserve(0, 3)
            grants.append(granted.calls)
            one.settle(granted, granted.calls)

    threads = [threading.Thread(target=labeler) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(grants) == 100


preload(__name__)


def label(url, calls, turns):
    """What a labeler's process does with its budget."""
    database.BUSY_SECONDS = 300.0  # one of them may stand still while it writes
    one = Budget(Limits(per_hour=120, reserve=0.1), "files", ControlStore(url), clock=lambda: DAY)
    billed = os.open(calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for _ in range(turns):
        granted = one.reserve(1, 3)
        for _ in range(granted.calls):
            os.write(billed, b".")  # what the teacher bills
        one.settle(granted, granted.calls)


def start(store, calls, turns, place=""):
    environment = {**os.environ, failpoint.VARIABLE: place}
    return forked(label, store.url, calls, turns, environment=environment, log=calls.with_name("log"))


def ended(process):
    process.join(300)
    return process.exitcode


@pytest.mark.parametrize("place", ["budget.1", "budget.2", "budget.3", "budget.4"])
def test_killed_anywhere_and_beside_others_the_budget_is_never_exceeded(store, tmp_path, place):
    calls = tmp_path / "calls"
    running = [start(store, calls, 8, f"{place}:{n}") for n in (2, 5)] + [start(store, calls, 8)]
    assert [ended(process) for process in running] == [-9, -9, 0]
    billed = calls.stat().st_size
    one = Budget(Limits(per_hour=120, reserve=0.1), "files", store, clock=lambda: DAY)
    spent = one.spending()["hour"].calls
    assert billed <= spent <= 120
    lost = 4 if place == "budget.2" else 0  # reserved, not called: stays spent
    assert spent - billed == 2 * lost
    assert one.unsettled() == {"budget.1": 0, "budget.2": 2, "budget.3": 2, "budget.4": 0}[place]
    assert ended(start(store, calls, 40)) == 0
    assert calls.stat().st_size <= 120 == one.spending()["hour"].calls


def test_the_neediest_are_asked_about_where_the_budget_does_not_reach_for_all(budget, clock):
    one = budget(per_hour=3_600, pace_deferred=True)
    assert one.neediest({"a": 0.1}) == ["a"], "the first is paid for"
    clock.now += 100.0
    asked = []
    for second in range(60):
        clock.now += 1.0
        found = one.neediest({f"{second}-{n}": n / 10 for n in range(10)})
        one.spend(len(found))
        asked += [int(i[-1]) for i in found]
    assert min(asked[-20:]) >= 6 and 60 <= len(asked) < 400, asked
    assert 0.0 < one.pacing()["share"] < 0.5 and one.pacing()["price"] > 0.5
    assert one.gauge()["pacing"] == one.pacing()


def test_so_many_as_an_update_lacks_are_asked_about_whatever_the_pace(budget, clock):
    one, wanted = budget(per_hour=100, pace_deferred=True), {f"i{n}": n / 10 for n in range(10)}
    assert one.neediest(wanted) == ["i9"]
    assert one.neediest(wanted, 4) == ["i9", "i8", "i7", "i6"]
    assert one.neediest(wanted, 40) == [f"i{n}" for n in range(9, -1, -1)]


def test_who_shares_a_budget_shares_its_pace_and_a_restart_changes_nothing(budget, clock):
    one, other = (budget(per_hour=100, pace_deferred=True) for _ in range(2))
    one.neediest({f"i{n}": n / 10 for n in range(10)})
    assert one.pacing() == other.pacing() and one.pacing()["share"] < 0.2
    assert set(other.neediest({"sure": 0.0, "unsure": 0.95})) == {"unsure"}
    assert set(budget(per_hour=100, workload="other", pace_deferred=True).neediest({"sure": 0.0})) == {"sure"}


def test_what_inputs_were_promised_is_kept_for_them(budget, clock):
    one, promised = (budget(per_hour=3_600, workload=w, pace_deferred=True) for w in ("files", "promised"))
    for each in (one, promised):
        each.neediest({f"i{n}": n / 10 for n in range(2)})
    promised.promise(0.5)
    assert promised.pacing()["share"] == pytest.approx(one.pacing()["share"] / 2, rel=0.01)


def test_the_pace_reckons_without_what_is_kept_for_audits(budget, clock):
    one, keeps = (budget(per_hour=3_600, workload=w, audits=a, pace_deferred=True) for w, a in (("f", 0.0), ("k", 0.5)))
    for each in (one, keeps):
        each.neediest({f"i{n}": n / 10 for n in range(10)})
    assert keeps.pacing()["share"] == pytest.approx(one.pacing()["share"] / 2, rel=0.01)
    keeps.spend(1_800)
    assert keeps.pacing()["share"] == 0.0
    assert keeps.neediest({"a": 0.2, "b": 0.9}) == ["b", "a"], "what is spent is said by who reserves"


def test_without_a_pace_or_a_limit_or_what_is_left_nobody_is_refused_by_it(budget):
    wanted = {"a": 0.2, "b": 0.9}
    assert budget(pace_deferred=True).neediest(wanted) == budget(per_hour=1).neediest(wanted) == ["b", "a"]
    paced = budget(per_hour=1, pace_deferred=True)
    assert budget(pace_deferred=True).pacing() == budget(per_hour=1).pacing() == paced.pacing() == {}
    spent = budget(per_hour=1, pace_deferred=True)
    spent.spend(1)
    assert spent.neediest(wanted) == ["b", "a"], "what is spent is said by who reserves"
