import dataclasses
import threading
import time

import msgspec
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from components.contracts.errors import UnavailableError
from components.contracts.storage import get_bytes, put_bytes
from components.control.intent import Intent
from serving.replica import loaded_versions as module
from serving.replica.loaded_versions import HEARTBEAT_SECONDS, RETRY_SECONDS, Loaded, LoadedVersions, Routing
from tests.clock import Time
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """One that is told to stop is waited for: a busy machine may take longer than a replica that ends has time."""
    monkeypatch.setattr(module, "STOP_SECONDS", 90.0)


@pytest.fixture
def versions(spec, store, clock):
    return LoadedVersions(spec, store, "r1", clock)


def settle(versions, until, seconds=90.0):
    """Follow until a condition holds; loading is on another thread."""
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "not in time"
        versions.follow()
        time.sleep(0.005)


def put(store, **fields):
    revision, intent = store.intent("signs")
    return store.put_intent("signs", revision, msgspec.structs.replace(intent, **fields))


def test_nothing_serves_before_the_first_intent(versions):
    versions.follow()
    assert versions.routing.choose("k", 0.0) is None


def test_a_champion_is_loaded_in_the_background_and_acknowledged(versions, store, model):
    revision = put(store, champion=model("1"))
    versions.follow()
    settle(versions, lambda: versions.routing.champion is not None)
    (ack,) = store.acknowledgements("signs", 1e12)
    assert (ack.replica, ack.revision, ack.detail["champion"], ack.detail["failed"]) == ("r1", revision, "1", {})


def test_a_revision_is_acknowledged_when_it_answers_and_not_when_it_is_loaded(spec, store, clock, model, monkeypatch):
    """A student that comes between the look at the intent and what is said of it is in no routing yet."""
    may_load = threading.Event()
    versions = LoadedVersions(spec, store, "r1", clock, trial=lambda *_: may_load.wait(90.0))
    revision, say = put(store, champion=model("1")), versions._acknowledge

    def loaded_meanwhile(*look):
        may_load.set()
        wait_for(lambda: versions._students)
        say(*look)

    monkeypatch.setattr(versions, "_acknowledge", loaded_meanwhile)
    for answers, applied in ((False, 0), (True, revision)):
        versions.follow()
        (ack,) = store.acknowledgements("signs", 1e12)
        assert (versions.routing.champion is not None, ack.revision) == (answers, applied)


def test_it_is_settled_once_the_champion_is_loaded_or_has_failed(spec, store, clock, model, tmp_path):
    """What a replica waits for before it is asked anything: no longer where there is nothing to wait for."""
    may_load = threading.Event()
    versions = LoadedVersions(spec, store, "r1", clock, trial=lambda *_: may_load.wait(90.0))
    versions.follow()
    assert versions.settled, "there is no intent yet"
    put(store, champion=model("1"))
    versions.follow()
    assert not versions.settled
    may_load.set()
    settle(versions, lambda: versions.settled)
    assert versions.routing.champion is not None
    put(store, champion=model("2"))
    versions.follow()
    assert versions.settled, "the one before answers meanwhile"
    tried = threading.Event()
    broken = LoadedVersions(versions.spec, store, "r2", versions.clock, trial=lambda *_: tried.wait(90.0))
    missing = model("3")
    (tmp_path / "v3.onnx").unlink()
    put(store, champion=missing)
    broken.follow()
    assert not broken.settled
    tried.set()
    settle(broken, lambda: broken.settled)
    assert broken.routing.champion is None and missing.digest in broken.failed


def test_the_candidate_gets_its_share_while_its_lease_lives(versions, store, model, clock):
    put(store, champion=model("1"), candidate=model("2"), weight=0.5, lease_until=clock.now + 10)
    settle(versions, lambda: versions.routing.champion and versions.routing.candidate)
    arms = [versions.routing.choose(f"k{i}", clock.now).arm for i in range(400)]
    assert 140 < arms.count("candidate") < 260
    assert all(versions.routing.choose(f"k{i}", clock.now + 10).arm == "champion" for i in range(400))


def test_a_renewed_lease_is_seen_without_a_new_revision(versions, store, model, clock):
    put(store, champion=model("1"), candidate=model("2"), weight=1.0, lease_until=clock.now + 1)
    settle(versions, lambda: versions.routing.champion and versions.routing.candidate)
    store.renew_lease("signs", 0, clock.now + 50)
    versions.follow()
    assert versions.routing.choose("k", clock.now + 40).arm == "candidate"


def test_in_shadow_the_champion_serves_and_the_candidate_answers_besides(versions, store, model, clock):
    put(store, champion=model("1"), candidate=model("2"), shadow=True, lease_until=clock.now + 10)
    settle(versions, lambda: versions.routing.champion and versions.routing.candidate)
    choice = versions.routing.choose("k", clock.now)
    assert (choice.arm, choice.other.ref.version, choice.pairs) == ("champion", "2", 1.0)
    assert versions.routing.choose("k", clock.now + 11).other is None


def test_in_a_canary_the_other_student_answers_the_policys_share_besides(versions, store, model, clock):
    put(store, champion=model("1"), candidate=model("2"), weight=0.5, lease_until=clock.now + 10)
    settle(versions, lambda: versions.routing.champion and versions.routing.candidate)
    routing = dataclasses.replace(versions.routing, pairs=0.3)
    choices = [routing.choose(f"k{i}", clock.now) for i in range(50)]
    found = {(c.arm, c.served.ref.version, c.other.ref.version, c.pairs) for c in choices}
    assert found == {("champion", "1", "2", 0.3), ("candidate", "2", "1", 0.3)}
    assert versions.routing.pairs == versions.spec.rollout.pairs == 1.0
    put(store, champion=model("1"), candidate=model("2"), weight=0.0, lease_until=clock.now + 10)
    settle(versions, lambda: versions.routing.intent.weight == 0.0)
    assert versions.routing.choose("k", clock.now).other is None


def test_a_flip_replaces_the_routing_and_leaves_the_old_one_whole(versions, store, model, clock):
    old, new = model("1"), model("2")
    put(store, champion=old, candidate=new, weight=0.5, lease_until=clock.now + 10)
    settle(versions, lambda: versions.routing.champion and versions.routing.candidate)
    held = versions.routing
    put(store, champion=new, candidate=None, previous=old, weight=0.0)
    versions.follow()
    assert versions.routing.champion.ref.version == "2" and versions.routing.candidate is None
    assert held.champion.ref.version == "1" and held.candidate.ref.version == "2"
    put(store, champion=old, candidate=None, previous=new)
    versions.follow()
    assert versions.routing.champion.ref.version == "1"


def test_what_did_not_load_as_previous_is_tried_anew_when_it_is_ordered(versions, store, model):
    broken = model("2")
    good = get_bytes(broken.uri)
    put_bytes(broken.uri, b"not what was registered")
    put(store, champion=model("1"), previous=broken)
    settle(versions, lambda: versions.routing.champion is not None and broken.digest in versions.failed)
    put_bytes(broken.uri, good)
    put(store, candidate=broken)  # the clock stands: it is not for its wait being over
    settle(versions, lambda: versions.routing.candidate is not None)
    assert versions.failed == {}


def test_a_champion_that_does_not_load_leaves_the_old_one_under_its_own_name(versions, store, model, clock, tmp_path):
    put(store, champion=model("1"))
    settle(versions, lambda: versions.routing.champion is not None)
    broken = model("2")
    good = get_bytes(broken.uri)
    put_bytes(broken.uri, b"not what was registered")
    revision = put(store, champion=broken)
    settle(versions, lambda: versions.failed)
    versions.follow()
    assert versions.routing.champion.ref.version == "1"
    (ack,) = store.acknowledgements("signs", 1e12)
    assert ack.revision == revision and "digest" in ack.detail["failed"][broken.digest]
    put_bytes(broken.uri, good)
    clock.now += RETRY_SECONDS
    settle(versions, lambda: versions.routing.champion.ref.version == "2")
    assert versions.failed == {}


def test_a_store_that_is_away_says_nothing_against_a_candidate(versions, store, model, clock, monkeypatch):
    put(store, champion=model("1"))
    settle(versions, lambda: versions.routing.champion is not None)
    there = module.get_bytes

    def away(uri, digest):
        raise UnavailableError("artifact store", uri, "503 Service Unavailable")

    monkeypatch.setattr(module, "get_bytes", away)
    candidate = model("2")
    put(store, candidate=candidate, weight=0.5, lease_until=clock.now + 600)
    for _ in range(4):
        settle(versions, lambda: candidate.digest in versions.failed and not versions._loading)
        (ack,) = store.acknowledgements("signs", 1e12)
        assert ack.detail["failed"] == {} and "503" in versions.failed[candidate.digest]
        assert "503" in ack.detail["waiting"][candidate.digest]
        clock.now += RETRY_SECONDS  # as long as at first: it is the store that is waited for
    monkeypatch.setattr(module, "get_bytes", there)
    clock.now += RETRY_SECONDS
    settle(versions, lambda: versions.routing.candidate is not None)
    assert versions.failed == {}


def test_a_candidate_that_is_gone_is_forgotten(versions, store, model, clock):
    put(store, champion=model("1"), candidate=model("2"), weight=0.5, lease_until=clock.now + 10)
    settle(versions, lambda: versions.routing.champion and versions.routing.candidate)
    put(store, candidate=None)
    versions.follow()
    (ack,) = store.acknowledgements("signs", 1e12)
    assert len(ack.detail["loaded"]) == 1


def test_a_heartbeat_is_written_when_it_is_due_not_at_every_look(versions, store, model, clock, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 7_200.0)
    store.clock = clock
    put(store, champion=model("1"))
    settle(versions, lambda: versions.routing.champion is not None)
    versions.follow()
    ((before, detail),) = [(a.at, a.detail) for a in store.acknowledgements("signs", 1e12)]
    clock.now += 7.0
    for _ in range(20):
        versions.follow()
    assert [a.at for a in store.acknowledgements("signs", 1e12)] == [before]
    versions._said_at -= 7_200.0
    versions.follow()
    assert [(a.at, a.detail) for a in store.acknowledgements("signs", 1e12)] == [(clock.now, detail)]


def test_a_heartbeat_is_one_transaction_with_the_look_at_the_intent(versions, store, model):
    put(store, champion=model("1"))
    settle(versions, lambda: versions.routing.champion is not None)
    versions.follow()
    begun = []
    event.listen(store.engine, "begin", begun.append)
    versions._said_at -= HEARTBEAT_SECONDS
    versions.follow()
    assert len(begun) == 1
    revision = put(store, weight=0.5)
    versions._said_at -= HEARTBEAT_SECONDS
    versions.follow()
    assert versions.routing.revision == revision, "what it reads is followed"
    assert [a.revision for a in store.acknowledgements("signs", 1e12)] == [revision]


def test_news_are_read_and_applied_before_the_heartbeat_that_is_due(versions, store, model, monkeypatch):
    """Which waits for whoever writes to the database."""
    put(store, champion=model("1"))
    settle(versions, lambda: versions.routing.champion is not None)
    versions.follow()
    revision = put(store, weight=0.5)
    versions._said_at -= HEARTBEAT_SECONDS
    seen = []

    def busy(workload, replica):
        seen.append(versions.routing.revision)
        raise OperationalError("update", {}, Exception("database is locked"))

    monkeypatch.setattr(versions, "_acknowledge", lambda *_: None)
    monkeypatch.setattr(store, "heartbeat", busy)
    versions.follow(news=True)
    assert seen == [revision] == [versions.routing.revision]


def test_a_look_in_between_does_not_put_the_heartbeat_off(versions, store, model, monkeypatch):
    time = Time()
    monkeypatch.setattr(module, "time", time)
    put(store, champion=model("1"))
    settle(versions, lambda: versions.routing.champion is not None)
    versions.follow()
    time.now += HEARTBEAT_SECONDS - 0.25
    versions.follow(news=True)
    assert versions._beat_in() == 0.25


def test_a_replica_that_the_database_does_not_know_says_all_anew(versions, store, model):
    revision = put(store, champion=model("1"))
    settle(versions, lambda: versions.routing.champion is not None)
    versions.follow()
    store.forget_replica("signs", "r1")
    versions._said_at -= HEARTBEAT_SECONDS
    versions.follow()
    assert [(a.replica, a.revision) for a in store.acknowledgements("signs", 1e12)] == [("r1", revision)]


def test_that_a_lease_ran_out_is_said(versions, store, model, clock):
    put(store, champion=model("1"), candidate=model("2"), weight=0.5, lease_until=clock.now + 10)
    settle(versions, lambda: versions.routing.champion and versions.routing.candidate)
    versions.follow()
    assert [a.detail["weight"] for a in store.acknowledgements("signs", 1e12)] == [0.5]
    clock.now += 11
    versions.follow()
    assert [a.detail["weight"] for a in store.acknowledgements("signs", 1e12)] == [0.0]


class Away:
    """A control database that does not answer."""

    def intent(self, workload):
        raise OperationalError("select", {}, Exception("away"))

    def heartbeat(self, workload, replica):
        return self.intent(workload)


def test_an_outage_of_the_database_keeps_the_routing_and_the_lease_runs_out(versions, store, model, clock):
    put(store, champion=model("1"), candidate=model("2"), weight=1.0, lease_until=clock.now + 10)
    settle(versions, lambda: versions.routing.champion and versions.routing.candidate)
    versions.store = Away()
    versions.follow()
    assert versions.routing.choose("k", clock.now + 9).arm == "candidate"
    assert versions.routing.choose("k", clock.now + 11).arm == "champion"


def test_following_in_the_background_and_signing_off(spec, store, model):
    versions = LoadedVersions(spec, store)
    put(store, champion=model("1"))
    versions.start()
    wait_for(lambda: versions.routing.champion is not None)
    assert versions.alive
    versions.stop()
    assert not versions.alive and store.acknowledgements("signs") == []


def test_a_key_keeps_its_arm_when_the_weight_rises(model):
    one, two = Loaded(model("1"), None), Loaded(model("2"), None)
    routings = [
        Routing(workload="w", champion=one, candidate=two, intent=Intent(candidate=two.ref, weight=w, lease_until=9))
        for w in (0.1, 0.3, 0.9)
    ]
    for i in range(200):
        arms = [r.choose(f"k{i}", 1.0).arm for r in routings]
        assert arms == sorted(arms, reverse=True)


def test_a_replica_flips_as_soon_as_its_students_are_loaded_and_then_rests(versions, store, model, monkeypatch):
    """Nobody writes after the intent: it is the loading's end that makes it look again."""
    looked, intent = [], store.intent

    def counted(workload):
        looked.append(time.monotonic())
        return intent(workload)

    put(store, champion=model("1"))
    monkeypatch.setattr(store, "intent", counted)
    versions.start()
    try:
        wait_for(lambda: versions.routing.champion is not None)
        time.sleep(0.3)
        looked.clear()
        began = time.monotonic()
        time.sleep(1.2)
        beats = (time.monotonic() - began) / HEARTBEAT_SECONDS
        assert len(looked) <= 2 * (1 + beats), "a heartbeat's few looks, not one each poll"
        put(store, champion=model("2"))
        wait_for(lambda: versions.routing.champion.ref.version == "2")
    finally:
        versions.stop()


def test_a_change_of_the_intent_is_followed_when_it_is_written(versions, store, model, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 7_200.0)
    first = put(store, champion=model("1"))
    versions.start()
    wait_for(lambda: [a.revision for a in store.acknowledgements("signs", 1e12)] == [first])
    for weight in (0.5, 0.0, 0.25):
        put(store, weight=weight)
        wait_for(lambda weight=weight: versions.routing.intent.weight == weight)
    versions.stop()
    assert not versions.alive
