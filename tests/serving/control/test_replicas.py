import threading
import time

import msgspec
import pytest

from components.control.intent import Intent
from serving.control.replicas import ReplacedError, Replicas


@pytest.fixture
def replicas(store, clock):
    store.clock = clock
    made = Replicas(store, "w", clock)
    made.take_over()
    return made


def weigh(weight, until=0.0):
    return lambda intent: msgspec.structs.replace(intent, weight=weight, lease_until=until)


def test_taking_over_raises_the_epoch_and_stops_the_one_before(store, clock, replicas):
    later = Replicas(store, "w", clock)
    later.take_over()
    assert later.epoch == replicas.epoch + 1
    for forbidden in (lambda: replicas.change(weigh(0.5)), lambda: replicas.hold(10), replicas.intent):
        with pytest.raises(ReplacedError, match="replaced"):
            forbidden()
    assert store.intent("w")[1].weight == 0.0
    later.change(weigh(0.5))


def test_the_same_routing_is_not_written_twice_but_its_lease_is_renewed(store, replicas):
    revision = replicas.change(weigh(0.1, 50.0))
    assert replicas.change(weigh(0.1, 60.0)) == revision
    assert store.intent("w") == (revision, Intent(weight=0.1, lease_until=60.0, epoch=1))
    assert replicas.change(weigh(0.2, 60.0)) == revision + 1


def test_a_lease_is_renewed_when_a_third_of_it_is_gone(store, clock, replicas):
    replicas.change(weigh(0.1, clock.now + 9))
    began, until = clock.now, clock.now + 9
    for clock.now in (began + 1, began + 2.9):
        replicas.hold(9)
        assert replicas.intent().lease_until == until
    clock.now = began + 3.1
    replicas.hold(9)
    assert replicas.intent().lease_until == clock.now + 9


def test_waiting_ends_when_every_live_replica_has_applied_it(store, clock, replicas):
    revision = replicas.change(weigh(0.1))
    store.acknowledge("w", "fast", revision, {})
    store.acknowledge("w", "slow", revision - 1, {})
    late = threading.Thread(target=lambda: (time.sleep(0.15), store.acknowledge("w", "slow", revision, {})))
    late.start()
    reached = replicas.await_applied(revision, seconds=90)
    late.join()
    assert (reached.ok, reached.waiting, reached.replicas) == (True, (), 2)


def test_waiting_ends_in_time_and_names_who_is_missing(store, clock, replicas):
    revision = replicas.change(weigh(0.1))
    store.acknowledge("w", "stuck", revision - 1, {})
    reached = replicas.await_applied(revision, seconds=0.05)
    assert (reached.ok, reached.waiting) == (False, ("stuck",))
    clock.now += 6
    assert replicas.await_applied(revision, seconds=0.05).ok


def test_failures_to_load_are_reported_by_replica(store, replicas):
    store.acknowledge("w", "r1", 1, {"failed": {"d": "corrupt"}})
    store.acknowledge("w", "r2", 1, {"failed": {}})
    assert replicas.failures() == [("r1", {"d": "corrupt"}), ("r2", {})]


def test_what_a_replica_says_of_an_earlier_order_is_no_failure_of_this_one(store, replicas):
    store.acknowledge("w", "r1", 0, {"failed": {"d": "is not signed"}})
    revision = replicas.change(weigh(0.1))
    assert replicas.failures() == []
    store.acknowledge("w", "r1", revision, {"failed": {"d": "corrupt"}})
    assert replicas.failures() == [("r1", {"d": "corrupt"})]
