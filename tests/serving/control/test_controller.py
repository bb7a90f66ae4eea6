import threading

import fsspec
import msgspec
import pytest

from components.contracts.errors import ArtifactError
from components.contracts.records import Answer, Label, Prediction, SoftLabel, Truth, content_hash, decode, encode
from components.control.intent import Intent
from components.control.store import rollout_of
from components.ledger.ledger import entries, verify
from components.stream.memory import MemoryBroker
from serving.control import controller as module
from serving.control.controller import Controller
from serving.control.journal import uri_of
from serving.control.orders import PLAN
from serving.control.replicas import ReplacedError
from serving.replica.split import to_candidate
from serving.rollout.replay import replay
from tests.clock import Time

W = "signs"


class Platform:
    """A controller with a replica that follows at once, and students that answer as they are told to."""

    def __init__(self, spec, store, broker, registry, clock, model, signs, folder):
        self.spec, self.store, self.broker, self.registry, self.clock = spec, store, broker, registry, clock
        self.model, self.signs, self.folder = model, signs, folder
        store.clock = clock
        self.producer = broker.producer()
        self.refused = set()
        self.sent = 0
        self.failed = {}
        self.controller = self.start()

    def start(self):
        def trial(ref, source):
            if ref.version in self.refused:
                raise ArtifactError(ref.uri, "was refused on trial")

        controller = Controller(
            self.spec, self.store, self.registry, self.broker, self.folder, clock=self.clock, trial=trial
        )
        self._follow(controller)
        return controller

    def _follow(self, controller):
        """Acknowledge every intent as it is written, as replicas do within 50 ms."""
        write = controller.replicas.change

        def change(what):
            revision = write(what)
            self.store.acknowledge(W, "r1", revision, {"failed": dict(self.failed)})
            return revision

        controller.replicas.change = change

    def restart(self):
        self.controller.reader.close()
        self.controller.watch.close()
        self.controller = self.start()

    def tick(self, seconds=1.0):
        self.clock.now += seconds
        self.store.acknowledge(W, "r1", self.store.intent(W)[0], {"failed": dict(self.failed)})
        self.controller.tick()

    @property
    def intent(self) -> Intent:
        return self.store.intent(W)[1]

    @property
    def state(self):
        return self.store.rollouts(W)[-1].state

    def order(self, verb, **args):
        key = self.store.order(W, verb, "eve", "a reason", args)
        self.tick()
        return self.store.get_order(key)

    def crown(self, version="1"):
        self.registry.set_alias(W, "candidate", self.model(version).version)
        self.tick()
        return self.intent.champion

    def answer(self, arm, version, x, wrong=False, ok=True):
        label = "pos" if (x > 0) != wrong else "neg"
        return Answer(arm=arm, version=version, ok=ok, latency_ms=1.0, label=label if ok else None)

    def send(self, n, wrong=False, ok=True, label=True, truth=None):
        """``n`` requests, routed by the intent in force, and the teacher's labels of them.

        With a ``truth`` the teacher is mistaken about half of the inputs, which its champion has learnt from people;
        where it is ``"told"`` the truths come too.
        """
        intent = self.intent
        for _ in range(n):
            self.sent += 1
            x, key = float(self.sent) * (-1) ** self.sent, f"k{self.sent}"
            mistaken = truth is not None and self.sent % 4 < 2
            shadow, served = None, self.answer("champion", intent.champion.version, x, wrong=mistaken)
            if intent.candidate is not None:
                theirs = self.answer("candidate", intent.candidate.version, x, wrong, ok)
                if intent.shadow:
                    shadow = theirs
                elif to_candidate(W, intent.candidate.digest, key, intent.weight_at(self.clock.now)):
                    served, shadow = (theirs, None) if ok else (served, theirs)
            prediction = Prediction(
                workload=W, request_id=f"r{self.sent}", input_id=f"i{self.sent}", key=key, time=self.clock.now,
                content=content_hash(self.signs.payload(x)), answer=served, shadow=shadow, audited=True,
            )  # fmt: skip
            self.producer.send(f"{W}.predictions", key, encode(prediction))
            if label:
                self.producer.send(f"{W}.labels", key, self.signs.label(x))
            if truth == "told":
                self.tell(self.sent, "pos" if (x > 0) != mistaken else "neg")

    def tell(self, number, label):
        """The truth of an input."""
        at = self.clock.now
        truth = Truth(workload=W, input_id=f"i{number}", time=at, known_at=at, source="desk", label=label)
        self.producer.send(f"{W}.truth", f"i{number}", encode(truth))

    def go(self, until, most=60, **how):
        for _ in range(most):
            if until():
                return
            self.send(20, **how)
            self.tick()
        raise AssertionError(self.state)

    def active(self):
        return self.store.active_rollout(W)


@pytest.fixture
def platform(spec, store, broker, registry, clock, model, signs, tmp_path):
    return Platform(spec, store, broker, registry, clock, model, signs, f"file://{tmp_path}/artifacts")


def begun(platform, version="2", **args):
    """A platform with champion 1 and a rollout of ``version`` under way."""
    platform.crown()
    platform.model(version)
    assert platform.order("start", version=version, **args).ok
    return platform


def actions(platform):
    return [e.action for e in entries(platform.store, W)]


def test_the_first_candidate_becomes_champion_and_it_is_recorded(platform):
    champion = platform.crown("1")
    assert champion.version == "1" and platform.registry.aliases == {"champion": "1"}
    assert actions(platform) == ["first champion"]
    assert platform.store.rollouts(W) == []


def test_a_registered_candidate_goes_all_the_way_by_itself(platform):
    platform.crown()
    platform.registry.set_alias(W, "candidate", platform.model("2").version)
    platform.tick()
    assert platform.intent.shadow and platform.intent.candidate.version == "2"
    platform.go(lambda: platform.active() is None)
    intent = platform.intent
    assert (intent.champion.version, intent.previous.version, intent.candidate) == ("2", "1", None)
    assert platform.registry.aliases == {"champion": "2", "previous": "1"}
    assert [s["name"] for s in platform.state["steps"]] == ["shadow", "20 %", "50 %", "100 %"]
    assert platform.state["outcome"] == "promoted"
    assert verify(platform.store) == len(entries(platform.store))


@pytest.mark.parametrize("decision", ["reject", "hold"])
def test_the_gate_is_not_passed_by_an_alias(platform, decision):
    platform.crown()
    platform.registry.set_alias(W, "candidate", platform.model("2", decision=decision).version)
    platform.tick()
    assert platform.active() is None and "candidate" not in platform.registry.aliases
    assert actions(platform)[-1] == "refused start"
    refused = platform.order("start", version="2")
    assert not refused.ok and decision in refused.outcome
    forced = platform.order("start", version="2", forced=True)
    assert forced.ok and platform.state["forced"]


def test_what_fails_admission_reaches_no_replica(platform):
    platform.crown()
    platform.refused.add("2")
    platform.registry.set_alias(W, "candidate", platform.model("2").version)
    platform.tick()
    assert platform.intent.candidate is None and "candidate" not in platform.registry.aliases
    assert "refused on trial" in entries(platform.store, W)[-1].detail["why"]


@pytest.mark.parametrize(("how", "why"), [({"wrong": True}, "disagreement"), ({"ok": False}, "errors")])
def test_a_bad_student_pushed_past_the_gate_is_taken_back(platform, how, why):
    begun(platform, forced=True, skip_shadow=True)
    assert platform.intent.weight == 0.2 and not platform.intent.shadow
    platform.go(lambda: platform.active() is None, **how)
    assert platform.state["outcome"] == "rolled_back" and why in platform.state["reason"]
    assert (platform.intent.champion.version, platform.intent.candidate) == ("1", None)
    assert platform.registry.aliases == {"champion": "1"}
    assert platform.state["rollback_seconds"] is not None
    assert platform.state["candidate_requests"] <= 0.3 * platform.state["requests"]
    last = entries(platform.store, W)[-1]
    assert last.action == "rollout rollback" and "e-value" in last.detail["reason"]


def test_the_journal_replays_to_the_same_decisions(platform):
    begun(platform, forced=True, skip_shadow=True)
    platform.go(lambda: platform.active() is None, wrong=True)
    detail = entries(platform.store, W)[-1].detail
    with fsspec.open(detail["journal"], "rb") as file:
        done = replay(file.read().splitlines())
    assert [a.verb for a in done.decisions][-1] == "rollback"
    assert (done.phase, done.reason, done.requests) == (
        "rolled_back",
        platform.state["reason"],
        platform.state["requests"],
    )


def test_counts_are_exact_over_restarts_anywhere(platform):
    begun(platform)
    for _ in range(6):
        platform.send(7)
        platform.restart()
        platform.tick()
        platform.restart()
    platform.tick()
    assert platform.sent == 42
    assert platform.state["requests"] == 42
    assert sum(s["candidate"] for s in platform.state["steps"]) >= 20
    served = platform.state["requests"] - platform.state["candidate_requests"]
    assert platform.state["guards"]["champion"]["n"] == served
    assert platform.state["guards"]["candidate"]["n"] == sum(s["candidate"] for s in platform.state["steps"])


def test_audits_wait_for_their_labels_over_a_restart(platform, signs):
    begun(platform)
    platform.send(30, label=False)
    platform.tick()
    assert len(platform.state["reading"]["pending"]) == 30
    assert platform.state["steps"][-1]["audited"] == 0 and platform.state["phase"] == "shadow"
    platform.restart()
    for n in range(1, 31):
        platform.producer.send(f"{W}.labels", "k", signs.label(float(n) * (-1) ** n))
    platform.tick()
    assert platform.state["reading"]["pending"] == [] and platform.state["guards"]["candidate"]["n"] == 30
    assert platform.state["phase"] == "canary"


@pytest.mark.parametrize("how", [{}, {"skip_shadow": True}])
def test_a_candidate_that_repeats_the_teachers_mistakes_is_taken_back_by_the_truth(platform, how):
    begun(platform, **how)
    platform.order("pause")
    platform.go(lambda: platform.active() is None, truth="told")
    assert platform.state["outcome"] == "rolled_back" and "wrong by the truth" in platform.state["reason"]
    assert platform.state["guards"]["candidate"]["bad"] == 0 < platform.state["guards"]["champion"]["bad"]
    detail = entries(platform.store, W)[-1].detail
    with fsspec.open(detail["journal"], "rb") as file:
        assert replay(file.read().splitlines()).reason == platform.state["reason"]


def test_without_truth_nobody_sees_that_and_it_becomes_champion(platform):
    begun(platform)
    platform.go(lambda: platform.active() is None, truth="unknown")
    assert platform.state["outcome"] == "promoted"


def truths_seen(platform):
    truth = platform.state["guards"]["tests"]["truth"]
    return truth["champion"]["n"], truth["candidate"]["n"], platform.state["reading"]["truth"]


def test_truths_that_come_after_their_step_are_counted_once_over_restarts(platform):
    begun(platform)
    platform.send(30)
    platform.tick()
    assert platform.state["phase"] == "canary" and truths_seen(platform) == (0, 0, {})
    platform.order("pause")
    for first in (1, 11, 21):
        platform.restart()
        for number in range(first, first + 10):
            platform.tell(number, "pos" if number % 2 == 0 else "neg")
        platform.tick()
        platform.tick()
        assert truths_seen(platform) == (first + 9, first + 9, {"counted": first + 9})
        platform.restart()
        platform.tick()
    platform.tell(1, "neg")
    platform.tell(2, "neg")
    platform.producer.send(f"{W}.truth", "i", b"poison")
    for _ in range(3):
        platform.tick()
        platform.tick()
        assert truths_seen(platform) == (30, 30, {"counted": 30, "repeated": 1, "contradicting": 1, "refused": 1})
        platform.restart()
    assert platform.state["guards"]["tests"]["truth"]["candidate"]["bad"] == 0


@pytest.mark.parametrize("restarts", [False, True])
def test_a_truth_that_is_there_before_its_answer_counts_too(platform, restarts):
    begun(platform)
    platform.order("pause")
    platform.tell(1, "pos")
    platform.tell(2, "pos")
    platform.tick()
    if restarts:
        platform.restart()
    platform.send(2)
    platform.tick()
    assert truths_seen(platform) == (2, 2, {"counted": 2})


def test_on_a_broker_that_has_lost_its_records_all_that_comes_is_new(platform):
    begun(platform)
    platform.order("pause")
    platform.send(20, truth="told")
    platform.tick()
    platform.tick()
    platform.broker = MemoryBroker()
    platform.broker.ensure_topics(platform.spec.topics)
    platform.producer = platform.broker.producer()
    platform.restart()
    platform.send(5, truth="told")
    platform.tick()
    platform.tick()
    assert platform.state["requests"] == 25 and truths_seen(platform) == (25, 25, {"counted": 25})


def test_on_a_new_broker_it_makes_the_topics_as_it_may_be_the_first_there(platform):
    platform.broker = MemoryBroker()
    platform.restart()
    platform.tick()
    for topic in platform.spec.topics:
        assert len(platform.broker.partitions(topic)) == platform.spec.partitions


def test_a_restart_in_the_middle_of_reading_again_counts_nothing_twice(platform, monkeypatch):
    begun(platform)
    platform.order("pause")
    platform.send(20)
    platform.tick()
    for number in range(1, 11):
        platform.tell(number, "pos")
    platform.tick()
    monkeypatch.setattr("serving.control.reading.PREDICTIONS", 3)
    monkeypatch.setattr("serving.control.reading.TRUTHS", 3)
    for number in range(11, 21):
        platform.tell(number, "pos")
    platform.send(2)
    for ticks in range(1, 20):
        platform.restart()
        for _ in range(ticks):
            platform.tick()
    assert truths_seen(platform) == (20, 20, {"counted": 20}) and platform.state["requests"] == 22


def test_without_labels_it_does_not_go_on_and_asks_after_its_patience(platform):
    begun(platform)
    platform.send(100, label=False)
    platform.tick()
    assert platform.state["phase"] == "shadow"
    platform.tick(seconds=61)
    assert platform.state["phase"] == "paused" and "0 of 20 of them audited" in platform.state["reason"]


def test_the_lease_is_renewed_and_ends_with_the_controller(platform):
    begun(platform, skip_shadow=True)
    for _ in range(20):
        platform.tick(2.0)
        assert platform.intent.weight_at(platform.clock.now) == 0.2
    assert platform.intent.weight_at(platform.clock.now + 10.1) == 0.0


def test_a_second_controller_takes_over_and_the_first_stops(platform):
    begun(platform)
    first = platform.controller
    platform.controller = platform.start()
    with pytest.raises(ReplacedError):
        first.tick()
    platform.go(lambda: platform.active() is None)
    assert platform.intent.champion.version == "2"


class PulledError(BaseException):
    """The plug was pulled."""


def ordered_with_a_crash(platform, verb, at, monkeypatch):
    """An order whose controller crashes in ``at`` and that the next one takes up: its key."""
    held = {
        "await_applied": platform.controller.replicas, "set_alias": platform.registry,
        "drop_alias": platform.registry, "record": platform.controller, "finish_order": platform.store,
    }[at]  # fmt: skip

    def pull(*args, **kwargs):
        raise PulledError

    key = platform.store.order(W, verb, "eve", "a reason")
    with monkeypatch.context() as patch:
        patch.setattr(held, at, pull)
        with pytest.raises(PulledError):
            platform.tick()
    platform.restart()
    platform.tick()
    return key


@pytest.mark.parametrize(
    ("verb", "at"),
    [
        *[("rollback", at) for at in ("await_applied", "drop_alias", "record", "finish_order")],
        *[("promote-full", at) for at in ("await_applied", "set_alias", "drop_alias", "record", "finish_order")],
    ],
)
def test_a_crash_anywhere_in_an_order_is_finished_by_the_next_controller(platform, verb, at, monkeypatch):
    begun(platform)
    key = ordered_with_a_crash(platform, verb, at, monkeypatch)
    order = platform.store.get_order(key)
    assert order.ok, order.outcome
    champion = "2" if verb == "promote-full" else "1"
    assert (platform.intent.champion.version, platform.intent.candidate) == (champion, None)
    assert platform.registry.aliases["champion"] == champion and "candidate" not in platform.registry.aliases
    assert actions(platform).count(f"rollout {verb.removesuffix('-full')}") == 1
    assert platform.active() is None


def test_rollback_after_promotion_and_back_again(platform):
    begun(platform)
    assert platform.order("promote-full").ok
    done = platform.order("rollback", to="previous")
    assert done.ok and "version 1 is champion again" in done.outcome
    assert (platform.intent.champion.version, platform.intent.previous.version) == ("1", "2")
    assert platform.registry.aliases == {"champion": "1", "previous": "2"}
    assert platform.order("rollback", to="2").ok
    assert platform.intent.champion.version == "2"


@pytest.mark.parametrize("at", ["await_applied", "set_alias", "record", "finish_order"])
def test_a_rollback_that_is_delivered_twice_goes_back_once(platform, at, monkeypatch):
    begun(platform)
    platform.order("promote-full")
    held = {
        "await_applied": platform.controller.replicas, "set_alias": platform.registry, "record": platform.controller,
        "finish_order": platform.store,
    }[at]  # fmt: skip

    def pull(*args, **kwargs):
        raise PulledError

    key = platform.store.order(W, "rollback", "eve", "a reason", {"to": "previous"})
    with monkeypatch.context() as patch:
        patch.setattr(held, at, pull)
        with pytest.raises(PulledError):
            platform.tick()
    platform.restart()
    platform.tick()
    assert platform.store.get_order(key).ok
    assert (platform.intent.champion.version, platform.intent.previous.version) == ("1", "2")
    assert platform.registry.aliases == {"champion": "1", "previous": "2"}
    assert actions(platform).count("rollback") == 1
    assert platform.store.gauges(W)[PLAN].value["order"] == key


@pytest.mark.parametrize(
    ("verb", "args", "why"),
    [
        ("promote", {}, "no rollout is under way"),
        ("undo", {}, "no rollout is under way"),
        ("retry", {}, "no rollout is under way"),
        ("rollback", {}, "no previous champion"),
        ("rollback", {"to": "1"}, "champion already"),
        ("rollback", {"to": "77"}, "77"),
        ("start", {"version": "1"}, "champion already"),
        ("start", {"version": "77"}, "77"),
        ("dance", {}, "cannot dance"),
    ],
)
def test_orders_that_cannot_be_are_refused_with_the_reason_and_recorded(platform, verb, args, why):
    platform.crown()
    before = platform.intent
    order = platform.order(verb, **args)
    assert order.ok is False and why in order.outcome
    assert msgspec.structs.replace(platform.intent, lease_until=0) == msgspec.structs.replace(before, lease_until=0)
    assert actions(platform)[-1] == f"refused {verb}"


def test_a_person_takes_one_step_and_undoes_it(platform):
    begun(platform)
    assert platform.order("promote").ok
    assert (platform.intent.weight, platform.intent.shadow) == (0.2, False)
    assert platform.order("promote").ok and platform.intent.weight == 0.5
    done = platform.order("undo")
    assert done.ok and "paused" in done.outcome and platform.intent.weight == 0.2
    assert platform.order("resume").ok
    platform.go(lambda: platform.active() is None)
    assert platform.intent.champion.version == "2"


def test_undo_after_a_promotion_makes_the_former_champion_serve(platform):
    begun(platform)
    platform.order("promote-full")
    assert platform.intent.champion.version == "2"
    done = platform.order("undo")
    assert done.ok and "rolled back" in done.outcome
    assert (platform.intent.champion.version, platform.intent.previous.version) == ("1", "2")
    assert platform.registry.aliases == {"champion": "1", "previous": "2"}
    assert platform.state["rollback_seconds"] is not None and platform.active() is None
    assert actions(platform)[-1] == "rollout undo"
    assert not platform.order("undo").ok


def test_undo_after_an_abort_and_retry_take_the_candidate_up_again(platform):
    begun(platform)
    platform.order("promote")
    assert platform.order("abort").ok and platform.intent.candidate is None
    assert platform.order("undo").ok
    assert (platform.intent.candidate.version, platform.intent.weight) == ("2", 0.2)
    assert platform.registry.aliases["candidate"] == "2" and platform.state["phase"] == "paused"
    assert platform.order("rollback").ok and platform.order("retry").ok
    assert platform.intent.shadow and platform.state["phase"] == "shadow"
    platform.go(lambda: platform.active() is None)
    assert platform.state["outcome"] == "promoted" and len(platform.store.rollouts(W)) == 1
    with fsspec.open(uri_of(platform.folder, W, platform.state["id"]), "rb") as file:
        done = replay(file.read().splitlines())
    assert (done.phase, done.requests) == ("promoted", platform.state["requests"])
    assert [a.verb for a in done.decisions][:6] == ["start", "step", "abort", "undo", "rollback", "retry"]


def test_what_was_sent_before_a_retry_is_no_evidence_after_it(platform):
    begun(platform)
    platform.order("abort")
    platform.send(50)
    platform.order("retry")
    platform.tick()
    assert platform.state["requests"] == 0


def test_nothing_is_taken_up_again_once_the_champion_has_changed(platform):
    begun(platform)
    platform.order("abort")
    platform.model("3")
    platform.order("start", version="3", skip_shadow=True)
    platform.order("promote-full")
    refused = platform.order("rollback", to="2")
    assert refused.ok and platform.intent.champion.version == "2"
    undone = platform.order("undo")
    assert not undone.ok and "version 2 is champion" in undone.outcome
    assert "legal now are start, rollback" in undone.outcome


@pytest.mark.parametrize(("wrong", "champion"), [(False, "1"), (True, "2")])
def test_a_former_champion_returns_by_an_order_through_its_canary_alone(platform, wrong, champion):
    begun(platform)
    platform.go(lambda: platform.active() is None)
    assert platform.intent.champion.version == "2"
    key = platform.store.order(W, "start", "monitor", "its traffic is back", {"version": "1", "returns": True})
    platform.tick()
    intent = platform.intent
    assert (intent.champion.version, intent.candidate.version, intent.shadow) == ("2", "1", False)
    platform.go(lambda: platform.active() is None, wrong=wrong)
    assert platform.intent.champion.version == champion
    assert [s["name"] for s in platform.state["steps"]] == ["50 %"] + ["100 %"] * (not wrong), "the last step"
    started = [e for e in entries(platform.store, W) if e.action == "rollout start"][-1]
    assert (started.actor, started.detail["reason"]) == ("monitor", "its traffic is back")
    assert started.detail["rollout"] == rollout_of(key)


def test_what_never_served_or_the_gate_refused_cannot_return(platform):
    begun(platform)
    platform.order("abort")
    refused = platform.order("start", version="2", returns=True)
    assert not refused.ok and "version 2 never served" in refused.outcome
    forced = platform.model("3", decision="reject")
    platform.order("start", version=forced.version, forced=True)
    platform.order("promote-full")
    platform.order("start", version="2")
    platform.order("promote-full")
    refused = platform.order("start", version="3", returns=True)
    assert not refused.ok and "'reject'" in refused.outcome


@pytest.mark.parametrize("verb", ["retry", "undo"])
@pytest.mark.parametrize("at", ["await_applied", "set_alias", "record", "finish_order"])
def test_a_crash_in_a_retry_or_an_undo_is_finished_by_the_next_controller(platform, verb, at, monkeypatch):
    begun(platform)
    platform.order("promote-full" if verb == "undo" else "abort")
    key = ordered_with_a_crash(platform, verb, at, monkeypatch)
    assert platform.store.get_order(key).ok, platform.store.get_order(key).outcome
    assert platform.intent.champion.version == "1" and platform.registry.aliases["champion"] == "1"
    assert (platform.intent.candidate is None) == (verb == "undo")
    assert actions(platform).count(f"rollout {verb}") == 1


def test_an_order_on_an_older_state_of_the_rollout_is_refused(platform):
    begun(platform)
    seen = platform.state["actions"]
    platform.send(5)
    platform.tick()
    assert platform.order("pause", revision=seen).ok  # evidence alone is no decision
    refused = platform.order("abort", revision=seen)
    assert not refused.ok and f"is at revision {seen + 1}, not {seen}" in refused.outcome
    assert platform.state["phase"] == "paused" and actions(platform)[-1] == "refused abort"
    assert platform.order("abort", revision=seen + 1).ok


def test_a_split_that_is_not_the_configured_one_raises_an_alarm_once(platform, monkeypatch):
    begun(platform, skip_shadow=True)
    platform.order("pause")
    monkeypatch.setitem(Platform.send.__globals__, "to_candidate", lambda *_: True)
    for _ in range(3):
        platform.send(20)
        platform.tick()
        platform.restart()
        platform.tick()
    (alarm,) = platform.store.alarms(W)
    assert alarm.kind == "sample_ratio" and "keys, " in alarm.detail["reason"]
    assert actions(platform).count("rollout alarm") == 1
    assert platform.state["phase"] == "paused" and platform.intent.weight == 0.2


def test_keys_that_were_seen_do_not_count_for_the_split_again(platform):
    begun(platform, skip_shadow=True)
    platform.order("pause")
    platform.send(30)
    platform.tick()
    first = platform.state["guards"]["split"]["arms"]["n"]
    platform.sent = 0
    platform.send(30)
    platform.tick()
    assert platform.state["requests"] == 60 and platform.state["guards"]["split"]["arms"]["n"] == first == 30


def test_one_rollout_at_a_time(platform):
    begun(platform)
    platform.model("3")
    order = platform.order("start", version="3")
    assert not order.ok and "is shadow" in order.outcome


def test_a_rollback_under_way_takes_the_candidate_and_then_the_named_version(platform):
    begun(platform)
    platform.order("promote-full")
    platform.model("3")
    assert platform.order("start", version="3").ok
    done = platform.order("rollback", to="1")
    assert done.ok and "rolled back" in done.outcome and "version 1 is champion" in done.outcome
    assert (platform.intent.champion.version, platform.intent.candidate) == ("1", None)


def test_a_replica_that_cannot_load_the_candidate_ends_the_rollout(platform):
    begun(platform)
    platform.failed[platform.intent.candidate.digest] = "corrupt"
    platform.tick()
    assert platform.state["outcome"] == "rolled_back" and "r1 cannot load it: corrupt" in platform.state["reason"]


def test_a_replica_that_does_not_confirm_makes_a_rollback_fail_aloud(platform, monkeypatch):
    begun(platform)
    platform.order("promote-full")
    monkeypatch.setattr("serving.control.replicas.ACK_SECONDS", 0.05)
    platform.store.acknowledge(W, "stuck", 1, {})
    wait = platform.controller.replicas.await_applied
    platform.controller.replicas.await_applied = lambda revision, **options: wait(revision, seconds=0.05)
    key = platform.store.order(W, "rollback", "eve", "a reason")
    platform.store.acknowledge(W, "stuck", 1, {})
    platform.clock.now -= 1
    platform.tick()
    order = platform.store.get_order(key)
    assert order.ok is False and "stuck" in order.outcome
    assert platform.intent.champion.version == "1" and platform.registry.aliases["champion"] == "1"


def test_a_new_control_database_serves_the_registrys_champion(platform, registry):
    registry.set_alias(W, "champion", platform.model("1").version)
    platform.tick()
    assert platform.intent.champion.version == "1"
    assert actions(platform) == ["adopted champion"]


def test_predictions_from_before_the_rollout_are_no_evidence(platform):
    platform.crown()
    platform.send(50)
    platform.model("2")
    platform.order("start", version="2")
    platform.tick()
    assert platform.state["requests"] == 0


def test_poison_on_the_topics_does_not_stop_it(platform):
    begun(platform)
    platform.producer.send(f"{W}.predictions", "k", b"poison")
    platform.producer.send(f"{W}.labels", "k", b"poison")
    for kind in ("predictions", "labels", "truth"):
        platform.producer.send(f"{W}.{kind}", "k", None)
    platform.send(10)
    platform.tick()
    assert platform.state["requests"] == 10
    assert platform.store.gauges(W)["passed_over"].value == {"labels": 2, "predictions": 2}
    assert platform.state["reading"]["truth"]["refused"] == 1


def test_a_label_of_another_task_is_no_teaching(platform):
    begun(platform)
    told = decode(Label, platform.signs.label(0.5))
    vector = SoftLabel(task="embedding", space="signs@1", vector=(1.0, 0.0), scale=0.1)
    platform.producer.send(f"{W}.labels", "k", encode(msgspec.structs.replace(told, soft=vector)))
    platform.tick()
    assert platform.store.gauges(W)["passed_over"].value == {"labels": 1}


def test_rollback_takes_less_than_a_second(platform, monkeypatch):
    """Of waiting, that is."""
    begun(platform, skip_shadow=True)
    time = Time(platform.clock.now)
    monkeypatch.setattr("serving.control.replicas.time", time)
    platform.clock = platform.controller.clock = platform.controller.replicas._clock = platform.store.clock = time.time
    key = platform.store.order(W, "rollback", "eve", "now")
    platform.controller.tick()
    assert platform.store.get_order(key).ok and time.slept < 1.0
    assert 0 <= platform.state["rollback_seconds"] < 1.0


def test_an_idle_controller_waits_for_an_order_and_takes_it_at_once(platform, monkeypatch):
    monkeypatch.setattr(module, "IDLE_SECONDS", 3_600.0)
    platform.tick()
    assert platform.controller._idle
    stop = threading.Event()
    running = threading.Thread(target=platform.controller.run, args=(stop,))
    running.start()
    keys = [platform.store.order(W, "pause", "eve", f"order {n}") for n in range(2)]
    done = [platform.store.await_order(key, timeout=300.0) for key in keys]
    stop.set()
    platform.controller._rung.set()
    running.join(300)
    assert [row.ok for row in done] == [False, False] and not running.is_alive()


def test_an_idle_controller_asks_for_orders_when_it_hears_of_one_or_has_not_asked_for_long(platform, monkeypatch):
    controller, looked, stop = platform.controller, [], threading.Event()
    orders = platform.store.open_orders
    monkeypatch.setattr(platform.store, "open_orders", lambda workload: looked.append(workload) or orders(workload))
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.001)
    monkeypatch.setattr(module, "ORDERS_SECONDS", 3_600.0)
    platform.tick()
    controller._rung.clear()
    looked.clear()
    for _ in range(3):
        controller.pause(stop)
        platform.tick()
    assert looked == []
    controller._rung.set()
    controller.pause(stop)
    platform.tick()
    assert looked == [W]
    monkeypatch.setattr(module, "ORDERS_SECONDS", 0.0)
    controller.pause(stop)
    platform.tick()
    assert looked == [W, W]
    monkeypatch.setattr(module, "ORDERS_SECONDS", 3_600.0)
    monkeypatch.setattr(type(platform.store.bells), "heard", False)
    controller.pause(stop)
    platform.tick()
    assert looked == [W, W, W], "nobody would tell it"


def test_a_controller_is_not_idle_while_records_come_or_a_rollout_is_under_way(platform):
    platform.tick()
    assert platform.controller._idle
    platform.producer.send("signs.labels", "k", b"unreadable")
    platform.tick()
    assert not platform.controller._idle
    platform.tick()
    assert platform.controller._idle
    platform.crown("1")
    platform.registry.set_alias(W, "candidate", platform.model("2").version)
    platform.tick()
    platform.tick()
    assert platform.active() is not None and not platform.controller._idle


def test_a_registry_that_did_not_change_is_not_asked(platform, monkeypatch):
    asked, changed = [], [False]
    named = platform.registry.named
    monkeypatch.setattr(platform.registry, "named", lambda w, name: (asked.append(name), named(w, name))[1])
    monkeypatch.setattr(platform.registry, "changed", lambda: changed[0], raising=False)
    platform.tick()
    assert "candidate" in asked  # a controller that starts asks
    asked.clear()
    platform.tick()
    assert asked == []
    changed[0] = True
    platform.tick()
    assert "candidate" in asked
