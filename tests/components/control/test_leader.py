import threading

import pytest

from components.control.leader import Heart, Lease
from components.control.tables import LeaderRow


class Monotonic:
    at = 100.0

    def __call__(self):
        return self.at


@pytest.fixture
def pair(store):
    """Two candidates whose clocks differ by a lot, as those of two machines do."""
    clocks = Monotonic(), Monotonic()
    clocks[1].at = 9_000.0
    return [Lease(store, "controller/w", name, 3.0, clock) for name, clock in zip("ab", clocks, strict=True)], clocks


def test_one_leads_and_the_other_takes_over_after_a_term_of_silence(pair):
    (a, b), (at, bt) = pair
    assert a.acquire() and a.held
    assert not b.acquire()
    for _ in range(10):
        at.at, bt.at = at.at + 1.0, bt.at + 1.0
        assert a.beat() and not b.acquire()
    bt.at += 2.9
    assert not b.acquire()
    bt.at += 0.2
    assert b.acquire() and b.held


def test_the_old_leader_knows_by_its_own_clock_and_by_the_row(pair):
    (a, b), (at, bt) = pair
    a.acquire()
    at.at += 3.0
    assert not a.held
    b.acquire()
    bt.at += 3.0
    assert b.acquire()
    assert not a.beat() and not a.held
    assert b.beat()


def test_a_term_begins_when_the_beat_was_read_however_long_the_database_kept_waiting(pair, monkeypatch):
    (a, b), (_, clock) = pair
    assert a.acquire()
    store, waits = b.store, [5.0, 0.0, 0.0]

    class Slow:
        """The control database, for which another's write is waited for."""

        clock = store.clock

        def transaction(self):
            clock.at += waits.pop(0)
            return store.transaction()

    monkeypatch.setattr(b, "store", Slow())
    assert not b.acquire()
    clock.at += 0.5
    assert not b.acquire(), "its beat was read half a second ago"
    clock.at += 3.0
    assert b.acquire()


def test_a_lease_that_was_given_up_is_taken_at_once(pair):
    (a, b), _ = pair
    a.acquire()
    assert not b.acquire()
    a.release()
    assert b.acquire()
    a.release()  # again, when it is another's: nothing
    assert b.beat()


def test_matters_are_apart(store):
    assert Lease(store, "controller/w", "a", 3.0).acquire()
    assert Lease(store, "controller/v", "b", 3.0).acquire()


def test_of_many_at_once_one_wins(store):
    leases = [Lease(store, "controller/w", str(i), 30.0) for i in range(8)]
    won = []
    threads = [threading.Thread(target=lambda lease=lease: won.append(lease.acquire())) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_the_heart_keeps_the_lease_and_says_when_it_is_lost(store, monkeypatch):
    monkeypatch.setattr("components.control.leader.BEATS_PER_TERM", 6_000)
    mine, lost = Lease(store, "m", "a", 60.0, Monotonic()), threading.Event()  # no pause of this machine ends it
    assert mine.acquire()

    def beats():
        with store.session() as s:
            return s.get(LeaderRow, "m").beats

    with Heart(mine, lost):
        while beats() < 20:
            assert not lost.wait(0.01)
        assert mine.held and not Lease(store, "m", "b", 60.0).acquire()
        with store.transaction() as s:
            s.get(LeaderRow, "m").holder = "thief"
        assert lost.wait(180.0) and not mine.held
    assert not Lease(store, "m", "b", 60.0).acquire()  # what another holds is not released


def test_the_heart_stops_when_the_work_stands_still(store):
    mine, lost = Lease(store, "m", "a", 0.4), threading.Event()
    mine.acquire()
    with Heart(mine, lost, stalled=lambda: True):
        assert lost.wait(180.0)
    assert Lease(store, "m", "b", 0.4).acquire()
