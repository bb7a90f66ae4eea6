import pytest
from sqlalchemy import select

from components.contracts.errors import ConfigError, FencedError
from components.control.leases import Leases
from components.control.tables import LeaseRow

pytestmark = pytest.mark.usefixtures("clocked")


class Member:
    """A member that works on what it is given, and gives back what it no longer is, one tick later."""

    def __init__(self, store, name, shares=range(6)):
        self.leases, self.shares, self.busy = Leases(store, "w", name, seconds=4.0), set(shares), set()

    def tick(self):
        self.mine = self.leases.tend(self.shares, set(self.busy))
        self.busy = set(self.mine)
        return self.mine


@pytest.fixture
def members(store, clock):
    made = {}

    def settle(*names, ticks=6, shares=range(6)):
        for name in names:
            made.setdefault(name, Member(store, name, shares))
        for _ in range(ticks):
            clock.now += 1.0
            for name in names:
                made[name].tick()
        return {name: made[name].mine for name in names}

    settle.made = made
    return settle


def test_one_member_has_everything_at_once(members):
    assert members("a", ticks=1) == {"a": {0, 1, 2, 3, 4, 5}}


def test_shares_are_divided_when_members_join_and_leave_and_few_move(members):
    members("a")
    two = members("a", "b")
    assert {len(x) for x in two.values()} == {3} and set.union(*two.values()) == set(range(6))
    three = members("a", "b", "c")
    assert {len(x) for x in three.values()} == {2} and set.union(*three.values()) == set(range(6))
    assert three["a"] < two["a"] and three["b"] < two["b"], "nobody swapped anything"
    members.made["c"].leases.leave()
    back = members("a", "b", ticks=2)
    assert {len(x) for x in back.values()} == {3} and set.union(*back.values()) == set(range(6))
    assert two["a"] >= three["a"] and back["a"] > three["a"] and back["b"] > three["b"]


def test_a_remainder_stays_where_it_is(members):
    assert members("b", shares=[0])["b"] == {0}
    assert members("a", "b", shares=[0]) == {"a": set(), "b": {0}}


def test_a_share_is_nobody_elses_until_it_is_no_longer_worked_on(members, store, clock):
    members("a")
    slow, other = members.made["a"], Member(store, "b")
    for _ in range(8):
        clock.now += 1.0
        assert slow.leases.tend(slow.shares, slow.busy) >= {0, 1, 2}
        assert other.tick() == set(), "a still works on all of them"
    slow.busy -= {4}
    clock.now += 0.1
    slow.leases.tend(slow.shares, slow.busy)
    clock.now += 1.0
    assert other.tick() == {4}


def test_a_dead_members_shares_come_free_when_its_leases_have_run_out(members, clock):
    members("a", "b")
    clock.now += 2.0
    assert len(members("a", ticks=1)["a"]) == 3, "not yet"
    clock.now += 2.5
    assert members("a", ticks=1)["a"] == {0, 1, 2, 3, 4, 5}


def test_who_comes_back_under_its_name_goes_on_at_once_and_its_predecessor_hears_of_it(members, store):
    members("a", "b")
    had = members.made["b"].mine
    again = Member(store, "b")
    assert again.tick() == had
    with pytest.raises(FencedError, match="b among the labelers"):
        members("b", ticks=1)
    members.made["b"].leases.leave()
    assert again.leases.tend(again.shares, again.busy) == had, "the old one took nothing away"


def test_between_renewals_the_database_is_left_alone(members, store, clock):
    members("a")
    with store.transaction() as s:
        for row in s.scalars(select(LeaseRow)):
            row.owner = "thief"
    clock.now += 0.5
    assert members.made["a"].tick() == set(range(6))
    clock.now += 0.6
    assert members.made["a"].tick() == set(), "then it hears that they are another's"


def test_while_the_database_is_away_a_member_keeps_what_it_has(members, store, clock, caplog):
    from sqlalchemy.exc import OperationalError

    members("a")

    def away():
        raise OperationalError("BEGIN", None, Exception("locked"))

    members.made["a"].leases.store = type("Away", (), {"clock": clock, "transaction": staticmethod(away)})()
    clock.now += 60
    assert members.made["a"].tick() == set(range(6)) and "could not be renewed" in caplog.text
    members.made["a"].leases.leave()


def test_workloads_do_not_see_each_other(store, members):
    members("a")
    assert Leases(store, "other", "b").tend({0, 1}, set()) == {0, 1}


def test_a_lease_has_a_length(store):
    with pytest.raises(ConfigError, match="longer than 0"):
        Leases(store, "w", seconds=0)
