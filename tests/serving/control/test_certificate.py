"""The controller's watch over what the champion promised."""

import msgspec
import pytest

from components.contracts.failpoint import failpoint
from components.contracts.records import Prediction, content_hash, encode
from components.contracts.storage import get_bytes
from components.control.intent import EVERY_ANSWER
from components.ledger.ledger import entries, verify
from serving.control import certificate as module
from serving.control.certificate import ALARM, GAUGE, journal_name
from serving.control.facts import read_facts
from serving.control.journal import uri_of
from serving.rollout.certificate import replay
from tests.serving.control.test_controller import Platform, W


class Promised(Platform):
    """Versions whose limit 0.6 was certified, under a promise of 25 %."""

    def given(self, n, wrong=False, confidence=0.97, version=None, label=True, novelty=None):
        """``n`` audited answers of the champion."""
        for _ in range(n):
            self.sent += 1
            x, key = float(self.sent) * (-1) ** self.sent, f"k{self.sent}"
            answer = msgspec.structs.replace(
                self.answer("champion", version or self.intent.champion.version, x, wrong=wrong),
                confidence=confidence, novelty=novelty,
            )  # fmt: skip
            prediction = Prediction(
                workload=W, request_id=f"r{self.sent}", input_id=f"i{self.sent}", key=key, time=self.clock.now,
                content=content_hash(self.signs.payload(x)), answer=answer, audited=True,
            )  # fmt: skip
            self.producer.send(f"{W}.predictions", key, encode(prediction))
            if label:
                self.producer.send(f"{W}.labels", key, self.signs.label(x))
        self.tick()

    def actions(self):
        return [e.action for e in entries(self.store, W) if e.action.startswith("guard")]

    @property
    def told(self):
        return self.store.gauges(W)[GAUGE].value


@pytest.fixture
def platform(spec, store, broker, registry, clock, model, signs, tmp_path):
    serve = msgspec.structs.replace(spec.serve, defer_below=0.0, max_disagreement=0.25, novelty=0.05)
    made = Promised(
        msgspec.structs.replace(spec, serve=serve), store, broker, registry, clock,
        lambda v: registry.add(msgspec.structs.replace(model(v), defer_below=0.6)), signs, tmp_path.as_uri(),
    )  # fmt: skip
    made.crown()
    made.tick()
    yield made
    made.controller.close()


def test_a_champion_that_keeps_its_promise_is_left_alone(platform):
    platform.given(60)
    platform.given(5, wrong=True)
    platform.clock.now += module.WRITE_SECONDS  # what changes nothing is written now and then
    platform.tick()
    assert platform.intent.guard is None and platform.actions() == []
    assert (platform.told["answers"], platform.told["guarded"]) == (65, False)
    assert 5 / 65 < platform.told["disagreement_upper"] < 1.0


def test_one_that_breaks_it_is_guarded_and_everybody_is_told(platform):
    platform.store.put_gauge(W, "monitor", {"index": 77})
    platform.given(60)
    platform.given(25, wrong=True)
    guard = platform.intent.guard
    assert guard.defer_below == EVERY_ANSWER and guard.digest == platform.intent.champion.digest
    assert platform.actions() == ["guard"] and verify(platform.store)
    (alarm,) = platform.store.alarms(W)
    assert alarm.kind == ALARM and alarm.detail["champion"] == "1" and alarm.input_index == 77
    assert platform.told["guarded"] and "every answer is deferred" in platform.told["reason"]
    (entry,) = [e for e in entries(platform.store, W) if e.action == "guard"]
    state, steps = replay(get_bytes(entry.detail["journal"], entry.detail["journal_sha256"]).splitlines())
    assert [s.kind for s in steps] == ["guard"] and state == platform.controller.watch.kept.state


def test_it_is_lifted_by_the_answers_that_it_would_have_given(platform):
    platform.given(25, wrong=True)
    platform.given(200, confidence=0.995)
    assert platform.intent.guard is None and not platform.told["guarded"]
    assert platform.actions()[0] == "guard" and platform.actions()[-1] == "guard lifted"


@pytest.fixture
def uncertified(platform, registry, model):
    """As ``platform``, with a champion whose evaluation could certify no limit."""
    version = registry.add(msgspec.structs.replace(model("9"), defer_below=EVERY_ANSWER)).version
    registry.set_alias(W, "candidate", version)
    platform.store.order(W, "rollback", "eve", "a reason", {"to": version})
    platform.tick()
    platform.tick()
    assert platform.intent.champion.version == version
    return platform


def test_a_champion_without_a_certified_limit_earns_one(uncertified):
    assert uncertified.intent.guard is None and uncertified.told["earns"] and uncertified.actions() == []
    uncertified.given(60, confidence=0.995)
    assert uncertified.intent.guard.defer_below == 0.8 and uncertified.intent.lease_until > uncertified.clock.now
    assert set(uncertified.actions()) == {"guard relaxed"} and uncertified.store.alarms(W) == []
    uncertified.given(60, confidence=0.995, wrong=True)
    assert uncertified.intent.guard.defer_below == EVERY_ANSWER and "guard" in uncertified.actions()
    journal = get_bytes(uri_of(uncertified.folder, W, journal_name(uncertified.controller.watch.kept.state)))
    state, steps = replay(journal.splitlines())
    assert state.earns and steps[-1].kind == "guard"


def test_what_is_given_back_is_leased(platform):
    platform.given(25, wrong=True)
    for _ in range(60):
        platform.given(1, confidence=0.995)
        platform.given(1, wrong=True, confidence=0.97)
    intent = platform.intent
    assert intent.guard.defer_below == 0.99
    assert intent.guard.limit_at(intent.lease_until - 0.1, intent.lease_until) == 0.99
    assert intent.guard.limit_at(intent.lease_until, intent.lease_until) == EVERY_ANSWER
    for _ in range(30):
        platform.tick()
    assert platform.intent.lease_until > platform.clock.now


def test_another_champion_ends_it(platform):
    platform.given(25, wrong=True)
    platform.registry.set_alias(W, "candidate", platform.model("2").version)
    key = platform.store.order(W, "rollback", "eve", "a reason", {"to": "2"})
    platform.tick()
    platform.tick()
    assert platform.store.get_order(key).ok, platform.store.get_order(key).outcome
    assert platform.intent.champion.version == "2" and platform.intent.guard is None
    assert platform.actions() == ["guard", "guard ended"] and platform.told["version"] == "2"
    platform.given(30, wrong=True, version="1")
    assert platform.intent.guard is None, "another version's answers say nothing of this one"


def test_what_is_deferred_anyway_and_what_has_no_label_says_nothing(platform):
    platform.given(40, wrong=True, confidence=0.5)
    platform.given(40, wrong=True, novelty=0.05)
    platform.given(40, wrong=True, label=False)
    assert platform.intent.guard is None and platform.told["answers"] == 0


def test_a_controller_that_goes_on_counts_every_answer_once(platform):
    platform.given(30)
    platform.given(10, label=False)
    before = platform.told["answers"]
    platform.restart()
    platform.tick()
    assert platform.told["answers"] == before == 30 and platform.controller.watch.kept.waits
    platform.given(25, wrong=True)
    platform.restart()
    platform.tick()
    assert platform.told["guarded"] and platform.actions() == ["guard"]


class Killed(Exception):
    pass


def test_what_is_judged_while_it_changes_nothing_is_one_line_now_and_then_and_is_judged_again_after_a_crash(platform):
    platform.given(1)
    lines = platform.controller.watch.kept.journal
    for _ in range(2):
        platform.given(12)
    assert platform.controller.watch.kept.journal == lines
    platform.restart()
    platform.clock.now += module.WRITE_SECONDS
    platform.tick()
    kept = platform.controller.watch.kept
    assert (kept.state.answers, kept.journal) == (25, lines + 1)
    state, _ = replay([line.text.encode() for line in platform.store.journal(journal_name(kept.state))])
    assert state == kept.state


def test_another_promise_of_the_spec_is_watched_anew_and_none_ends_the_guard(platform):
    platform.given(30)
    platform.given(30, wrong=True)
    assert platform.intent.guard is not None
    serve = msgspec.structs.replace(platform.spec.serve, max_disagreement=0.9)
    platform.spec = platform.controller.spec = msgspec.structs.replace(platform.spec, serve=serve)
    platform.clock.now += module.LOOK_SECONDS
    platform.tick()
    assert platform.intent.guard is None and platform.controller.watch.kept.state.most == 0.9
    assert platform.actions() == ["guard", "guard ended"]


@pytest.mark.parametrize("place", [f"guard.{n}" for n in range(3, 7)])
def test_one_that_dies_anywhere_leaves_what_the_next_one_finishes(platform, monkeypatch, place):
    def die(at):
        if at == place:
            raise Killed
        return failpoint(at)

    platform.given(30)
    with monkeypatch.context() as patch:
        patch.setattr(module, "failpoint", die)
        with pytest.raises(Killed):
            platform.given(25, wrong=True)
    platform.restart()
    platform.tick()
    assert platform.intent.guard.defer_below == EVERY_ANSWER and platform.actions() == ["guard"]
    kept = platform.controller.watch.kept
    assert len(platform.store.alarms(W)) == 1 and platform.told["answers"] == kept.state.answers
    assert len(list(platform.store.journal(journal_name(kept.state)))) == kept.journal


def test_without_a_promise_nothing_is_watched(spec, store, broker, registry, clock, model, signs, tmp_path):
    made = Promised(spec, store, broker, registry, clock, model, signs, tmp_path.as_uri())
    made.crown()
    made.given(50, wrong=True)
    assert made.intent.guard is None and GAUGE not in store.gauges(W)
    made.controller.close()


def test_the_condition_says_guarded_and_verbs_go_on_working(platform):
    platform.given(25, wrong=True)
    facts = read_facts(platform.store, W, platform.clock.now, leader_term=5.0)
    assert facts.guard.defer_below == EVERY_ANSWER and "disagree" in facts.guard.reason
    assert facts.guard.at == platform.told["guarded_at"]
    platform.registry.set_alias(W, "candidate", platform.model("2").version)
    platform.tick()
    assert platform.state["phase"] == "shadow" and platform.intent.guard is not None
    assert platform.order("abort").ok and platform.intent.guard is not None
