"""The facts of a workload as its controller leaves them in the control database."""

import pytest
from sqlalchemy import delete

from components.control import runs
from components.control.tables import LedgerRow
from components.ledger.ledger import append
from serving.control.facts import LEDGER, Known, read_all, read_facts
from serving.rollout.condition import condition
from tests.serving.control.test_controller import Platform, W, begun


@pytest.fixture
def platform(spec, store, broker, registry, clock, model, signs, tmp_path):
    return Platform(spec, store, broker, registry, clock, model, signs, f"file://{tmp_path}/artifacts")


def lead(platform):
    """As a leading controller's heart does."""
    from components.control.leader import Lease

    assert Lease(platform.store, f"controller/{W}", "here", 5.0).acquire()


def look(platform):
    """The condition now, with a controller that leads."""
    lead(platform)
    return condition(read_facts(platform.store, W, platform.clock.now, leader_term=5.0))


def test_the_condition_follows_a_student_from_first_champion_to_rollback(platform):
    platform.crown()
    first = look(platform)
    assert (first.word, first.since) == ("serving", platform.clock.now)
    platform.model("2")
    assert platform.order("start", version="2").ok
    assert look(platform).word == "shadow"
    assert platform.order("promote").ok
    found = look(platform)
    assert found.state == "canary" and found.word == f"canary {100 * platform.intent.weight:g} %"
    assert platform.order("pause").ok
    paused = look(platform)
    assert (paused.word, paused.why, paused.since) == ("paused", "a reason (by eve)", platform.clock.now)
    assert platform.order("promote-full").ok
    promoted = look(platform)
    assert (promoted.word, promoted.since) == ("serving", platform.clock.now)
    assert platform.order("rollback").ok
    back = look(platform)
    assert (back.word, back.why, back.since) == ("rolled back", "a reason (by eve)", platform.clock.now)
    facts = read_facts(platform.store, W, platform.clock.now, leader_term=5.0)
    assert (facts.champion, facts.previous, facts.crowned.how) == ("1", "2", "rollback")


def test_a_champion_that_no_replica_loads_is_no_champion(platform):
    platform.crown()
    digest = platform.intent.champion.digest
    platform.store.acknowledge(W, "r1", 9, {"champion": None, "failed": {digest: "UntrustedError: is not signed"}})
    refused = look(platform)
    assert (refused.state, refused.why) == ("no champion", "v1 answers nowhere: UntrustedError: is not signed")
    platform.store.acknowledge(W, "r1", 9, {"champion": None, "waiting": {digest: "UnavailableError: away"}})
    assert look(platform).why == "v1 answers nowhere: UnavailableError: away"
    platform.store.acknowledge(W, "r1", 9, {"champion": None})
    loading = look(platform)
    assert (loading.why, loading.press.command) == ("v1 answers nowhere: it is being loaded", "")
    platform.store.acknowledge(W, "r2", 9, {"champion": "1", "failed": {}})
    assert look(platform).state == "serving"


def test_a_rollout_that_was_taken_back_says_by_whom_and_undoing_a_promotion_too(platform):
    begun(platform)
    assert platform.order("rollback").ok
    assert (look(platform).word, look(platform).why) == ("rolled back", "a reason (by eve)")
    platform.model("3")
    assert platform.order("start", version="3").ok and platform.order("promote-full").ok
    assert look(platform).word == "serving"
    assert platform.order("undo").ok
    assert look(platform).word == "rolled back"


def test_a_candidate_that_fails_is_guarded_before_it_goes(platform):
    begun(platform)
    words = []
    while not words or words[-1] != "rolled back":
        platform.send(1, ok=False)
        platform.tick()
        words.append(look(platform).word)
    assert words[0] == "shadow" and "guarded" in words


def test_without_a_leader_or_replicas_nothing_more_is_said(platform):
    platform.crown()
    assert condition(read_facts(platform.store, W, platform.clock.now, leader_term=5.0)).why == "no controller leads"
    lead(platform)
    later = platform.clock.now = platform.clock.now + 60.0
    found = condition(read_facts(platform.store, W, later, leader_term=5.0))
    assert (found.state, found.why) == ("stale", "no gateway replica is heard")


def test_what_is_known_already_and_what_changed_since_make_the_same_facts(platform):
    known = Known()

    def same():
        anew = read_facts(platform.store, W, platform.clock.now, leader_term=5.0)
        names = [W, "another"]
        found = read_all(platform.store, names, platform.clock.now, leader_term=5.0, known=known, specs={W: "SPEC"})
        assert found[W] == anew and found["another"].champion is None
        return anew

    assert same().crowned is None
    platform.crown("1")
    assert same().crowned.version == "1"
    platform.registry.set_alias(W, "candidate", platform.model("2").version)
    platform.tick()
    assert same().rollout.phase == "shadow"
    platform.go(lambda: platform.state["phase"] == "canary")
    platform.store.raise_alarm(W, "drift", 1, {"champion": "1"})
    assert same().rollout.weight == 0.2 and [a.kind for a in same().open_alarms] == ["drift"]
    platform.order("rollback")
    assert same().rollout.phase == "rolled_back"
    for number in range(LEDGER + 5):
        append(platform.store, W, "eve", "rollout pause", {"rollout": "older", "reason": str(number)})
    same()
    with platform.store.transaction() as s:  # a backup was restored
        s.execute(delete(LedgerRow).where(LedgerRow.seq > 3))
    same()


def test_an_alarm_that_was_answered_is_not_open(platform):
    platform.crown()
    platform.store.raise_alarm(W, "drift", 1, {"champion": "1"})
    assert look(platform).alarm
    platform.store.answer_alarms(W, "1", platform.clock.now, "its traffic has returned")
    assert not look(platform).alarm


def test_a_sweep_by_age_is_the_last_run_only_where_it_failed_after_one_that_did_not(platform):
    def ended(pipeline, status):
        platform.clock.now += 1.0
        run = runs.begin(platform.store, W, pipeline, "why", "eve")
        if status != "running":
            runs.end(platform.store, run, status, {}, "eve")
        found = read_facts(platform.store, W, platform.clock.now, leader_term=5.0).run
        return found and (found.pipeline, found.status)

    assert ended("retention", "succeeded") is None
    assert ended("retention", "failed") == ("retention", "failed")
    assert ended("retention", "succeeded") is None
    assert ended("bootstrap", "failed") == ended("retention", "succeeded") == ("bootstrap", "failed")
    assert ended("retention", "failed") == ("bootstrap", "failed")
    assert ended("continual", "succeeded") == ("continual", "succeeded")
    assert ended("retention", "failed") == ("retention", "failed")
    assert ended("retention", "running") == ("continual", "succeeded")
