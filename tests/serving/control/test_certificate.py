"""The controller's watch over what the champion promised."""

import msgspec
import pytest

from components.contracts.failpoint import failpoint
from components.contracts.records import Prediction, content_hash, encode
from components.contracts.storage import get_bytes
from components.control.intent import EVERY_ANSWER
from components.ledger.ledger import entries, verify
from serving.control import certificate as module
from serving.control import reading
from serving.control.certificate import ALARM, GAUGE, journal_name
from serving.control.facts import read_facts
from serving.control.journal import uri_of
from serving.rollout.certificate import replay
from tests.serving.control.test_controller import Platform, W


class Promised(Platform):
    """Versions whose limit 0.6 was certified, under a promise of 25 %."""

    def given(self, n, wrong=False, confidence=0.97, version=None, label=True, novelty=None,
              audited=True):  # fmt: skip
        """``n`` answers of the champion."""
        for _ in range(n):
            self.sent += 1
            x, key = float(self.sent) * (-1) ** self.sent, f"k{self.sent}"
            answer = msgspec.structs.replace(
                self.answer("champion", version or self.intent.champion.version, x, wrong=wrong),
                confidence=confidence, novelty=novelty,
            )  # fmt: skip
            prediction = Prediction(
                workload=W, request_id=f"r{self.sent}", input_id=f"i{self.sent}", key=key, time=self.clock.now,
                content=content_hash(self.signs.payload(x)), answer=answer, audited=audited,
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


def test_while_every_answer_is_deferred_it_is_earned_by_all_of_them(uncertified):
    uncertified.given(70, confidence=0.995, audited=False)
    assert uncertified.intent.guard.defer_below == 0.8
    uncertified.given(40, confidence=0.995, wrong=True, audited=False)
    assert uncertified.intent.guard.defer_below == 0.8, "of those that are given not every one has a label"
    uncertified.given(60, confidence=0.995, wrong=True)
    assert uncertified.intent.guard.defer_below == EVERY_ANSWER
    uncertified.clock.now += 1.0
    uncertified.given(80, confidence=0.995, audited=False)
    assert uncertified.intent.guard.defer_below == 0.8, "after a guard as at the beginning"


def test_where_one_gets_no_label_the_audited_ones_alone_tell(uncertified):
    uncertified.given(20, confidence=0.995, audited=False)
    uncertified.given(1, confidence=0.995, audited=False, label=False)
    uncertified.given(70, confidence=0.995, audited=False)
    watch = uncertified.controller.watch
    assert uncertified.intent.guard is None and watch.kept.state.answers + len(watch._unwritten) == 20
    assert len(watch.kept.waits) == 71
    uncertified.clock.now += module.WHOLE_SECONDS
    uncertified.tick()
    assert uncertified.controller.watch.kept.waits == () and uncertified.controller.watch.kept.broken == 2
    uncertified.given(70, confidence=0.995, audited=False)
    assert uncertified.intent.guard is None and uncertified.controller.watch.kept.waits == ()
    uncertified.restart()
    uncertified.given(70, confidence=0.995, audited=False)
    assert uncertified.intent.guard is None
    uncertified.given(60, confidence=0.995)
    assert uncertified.intent.guard.defer_below == 0.8


def test_what_waits_when_a_controller_goes_on_has_its_label_read_before_it_counts_as_without(uncertified, monkeypatch):
    uncertified.given(10, confidence=0.995, audited=False, label=False)
    uncertified.clock.now += module.WRITE_SECONDS
    uncertified.tick()
    assert len(uncertified.controller.watch.kept.waits) == 10
    late = range(uncertified.sent - 9, uncertified.sent + 1)
    for x, key in [(float(n) * (-1) ** n, f"k{n}") for n in late]:
        uncertified.producer.send(f"{W}.labels", key, uncertified.signs.label(x))
    monkeypatch.setattr(reading, "LABELS", 1)
    uncertified.restart()
    uncertified.given(60, confidence=0.995, audited=False)
    uncertified.tick(seconds=2.0 * module.WHOLE_SECONDS)
    kept = uncertified.controller.watch.kept
    assert kept.broken == 0 and not uncertified.controller.reader.teachings.complete
    monkeypatch.undo()
    uncertified.tick()
    assert uncertified.controller.watch.kept.waits == () and uncertified.intent.guard.defer_below == 0.8


def test_after_a_start_an_answer_without_a_label_is_waited_for_as_long_again(uncertified):
    uncertified.given(1, confidence=0.995, audited=False, label=False)
    uncertified.clock.now += module.WRITE_SECONDS
    uncertified.tick()
    uncertified.clock.now += module.WHOLE_SECONDS
    uncertified.restart()
    uncertified.tick()
    assert uncertified.controller.watch.kept.broken == 0 and uncertified.controller.watch.kept.waits
    uncertified.tick(seconds=module.WHOLE_SECONDS)
    assert uncertified.controller.watch.kept.broken == 2 and uncertified.controller.watch.kept.waits == ()


def test_only_so_many_wait_that_are_not_audited(uncertified, monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 10)
    uncertified.given(11, confidence=0.995, audited=False, label=False)
    uncertified.given(2, confidence=0.995, label=False)
    kept = uncertified.controller.watch.kept
    assert kept.broken == 2 and [w.phase for w in kept.waits] == [0, 0]


def test_a_label_that_is_late_only_delays(uncertified):
    uncertified.given(1, confidence=0.995, audited=False, label=False)
    late = uncertified.sent
    uncertified.given(70, confidence=0.995, audited=False)
    assert uncertified.intent.guard is None
    x = float(late) * (-1) ** late
    uncertified.producer.send(f"{W}.labels", f"k{late}", uncertified.signs.label(x))
    uncertified.tick()
    assert uncertified.intent.guard.defer_below == 0.8


def test_what_a_version_said_in_its_rollout_has_earned_its_limit_when_it_is_promoted(platform, registry, model):
    version = registry.add(msgspec.structs.replace(model("9"), defer_below=EVERY_ANSWER)).version
    registry.set_alias(W, "candidate", version)
    platform.tick()
    platform.tick()
    assert platform.intent.candidate.version == version
    for _ in range(80):
        platform.sent += 1
        x, key = float(platform.sent) * (-1) ** platform.sent, f"k{platform.sent}"
        answers = [
            msgspec.structs.replace(platform.answer(arm, v, x, wrong=arm == "champion"), confidence=0.995)
            for arm, v in (("champion", "1"), ("candidate", version))
        ]
        prediction = Prediction(
            workload=W, request_id=f"r{platform.sent}", input_id=f"i{platform.sent}", key=key,
            time=platform.clock.now, content=content_hash(platform.signs.payload(x)), answer=answers[0],
            shadow=answers[1], deferred=True, turn="champion",
        )  # fmt: skip
        platform.producer.send(f"{W}.predictions", key, encode(prediction))
        platform.producer.send(f"{W}.labels", key, platform.signs.label(x))
    platform.tick()
    assert platform.intent.guard is None and platform.intent.candidate is not None
    platform.store.order(W, "promote-full", "eve", "a reason", {})
    platform.tick()
    platform.tick()
    assert platform.intent.champion.version == version
    assert platform.intent.guard.digest == platform.intent.champion.digest
    assert platform.intent.guard.defer_below == 0.8


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
