import json
from typing import get_args

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from components.contracts.errors import TransitionError
from components.contracts.spec import RolloutPolicy, Step
from components.control.intent import Intent, ModelRef
from serving.rollout.evidence import Answered, Audited, Failed, Reply
from serving.rollout.state import LEGAL, Verb, as_dict, desired, from_dict
from serving.rollout.step import applied, begin, command, settled, step
from tests.serving.rollout.made import alone, pair


def ref(version):
    return ModelRef(version=version, uri="file:///x", digest=f"d{version}", snapshot="s", teacher="t@1")


STEPS = (
    Step(weight=0.0, min_requests=20, min_candidate=10),
    Step(weight=0.1, min_requests=20, min_candidate=2),
    Step(weight=0.5, min_requests=20, min_candidate=10),
)
POLICY = RolloutPolicy(steps=STEPS, patience_seconds=100.0)


def fresh(policy=POLICY, **options):
    return begin("r1", "w", ref("2"), ref("1"), policy, 1_000.0, **{"audit_share": 1.0, **options})


def shadowed(n, ok=True):
    return [pair(ok=ok, id=str(i)) for i in range(n)]


def served(n, weight=0.1):
    return [alone("candidate", weight, id=str(i)) for i in range(n)]


def audits(n, champion=False, candidate=False):
    return [Audited(id=str(i), champion=champion, candidate=candidate, weight=0.0) for i in range(n)]


def test_it_begins_in_shadow_with_something_to_carry_out():
    state, actions = fresh()
    assert (state.phase, state.weight, state.shadow) == ("shadow", 0.0, True)
    assert [a.kind for a in actions] == ["route"] and state.outbox == actions


def test_it_can_skip_the_shadow():
    state, _ = fresh(skip_shadow=True)
    assert (state.phase, state.step, state.weight, state.shadow) == ("canary", 1, 0.1, False)


def test_a_good_candidate_takes_every_step_and_is_promoted():
    state, _ = fresh()
    names = []
    for now, evidence in ((1_010, shadowed(20)), (1_020, served(20, None)), (1_030, served(20, None))):
        state, actions = step(state, [*evidence, *audits(10)], now)
        names += [a.verb for a in actions]
    assert names == ["step", "step", "promote"]
    assert (state.phase, state.outcome) == ("promoted", "promoted")
    assert [(s.name, s.seconds) for s in state.steps] == [("shadow", 10), ("10 %", 10), ("50 %", 10), ("100 %", 0)]
    assert (state.requests, state.candidate_requests) == (60, 40)


@pytest.mark.parametrize(
    ("evidence", "what"),
    [
        (shadowed(19) + audits(10), "19 of 20 requests"),
        ([Answered(id="x", arm="champion")] * 20 + audits(10), "0 of 10 answers of the candidate"),
        (shadowed(20) + audits(9), "9 of 10 of them audited"),
        ([], "0 of 20 requests"),
    ],
)
def test_missing_evidence_pauses_after_patience_and_says_what_is_missing(evidence, what):
    state, _ = fresh()
    state, actions = step(state, evidence, 1_050.0)
    assert (state.phase, actions) == ("shadow", ())
    state, actions = step(state, [], 1_101.0)
    assert state.phase == "paused" and [a.verb for a in actions] == ["pause"]
    assert what in state.reason
    assert state.shadow


def test_without_an_audit_no_audits_are_waited_for():
    state, _ = fresh(audit_share=0.0)
    state, _ = step(state, shadowed(20), 1_001.0)
    assert state.step == 1


def test_a_bad_candidate_is_taken_back_at_the_observation_that_proves_it():
    state, _ = fresh()
    state, actions = step(state, [*shadowed(40), *audits(40, candidate=True)], 1_001.0)
    assert state.phase == "rolled_back" and [a.kind for a in actions] == ["take_back"]
    assert "disagreement" in state.reason
    assert state.guards.candidate.n < 15
    assert state.requests == 40


def test_guards_go_on_in_a_pause():
    state, _ = fresh()
    state, _ = command(state, "pause", 1_001.0, order="o", actor="me", reason="look")
    state, (action,) = step(state, shadowed(30, ok=False), 1_002.0)
    assert state.phase == "rolled_back" and "errors" in state.reason
    assert action.request == state.guards.limits["errors"].candidate.n < 20 and state.requests == 30


@pytest.mark.parametrize(("does", "phase", "acts"), [("wait", "shadow", []), ("abort", "aborted", ["abort"])])
def test_what_is_inconclusive_waits_or_ends_by_policy(does, phase, acts):
    state, _ = fresh(msgspec.structs.replace(POLICY, on_inconclusive=does))
    state, actions = step(state, shadowed(19), 1_101.0)
    assert (state.phase, [a.verb for a in actions]) == (phase, acts)
    assert state.reason.startswith("inconclusive") and "19 of 20 requests" in state.reason


@pytest.mark.parametrize("does", ["wait", "pause", "abort"])
def test_a_champion_that_keeps_a_rollout_from_its_audits_is_named(does):
    state, _ = fresh(msgspec.structs.replace(POLICY, on_inconclusive=does))
    broken = [
        Answered(id=str(i), arm="champion", weight=0.0, champion=Reply(ok=False), candidate=Reply(ok=True))
        for i in range(30)
    ]
    state, _ = step(state, broken, 1_101.0)
    assert "0 of 10 of them audited" in state.reason
    assert "the champion, version 1, fails: 30 of 30 requests failed with it and 0 of 30 with" in state.reason
    assert "cohobate rollout promote --full" in state.reason


@pytest.mark.parametrize(("failing", "of", "candidate_ok"), [(0, 30, True), (1, 19, True), (30, 30, False)])
def test_a_champion_is_blamed_only_for_what_it_is_shown_to_do_alone(failing, of, candidate_ok):
    state, _ = fresh(msgspec.structs.replace(POLICY, max_extra_errors=0.5, max_error_rate=0.02))
    seen = [
        Answered(
            id=str(i), arm="champion", weight=0.0, champion=Reply(ok=i >= failing), candidate=Reply(ok=candidate_ok)
        )
        for i in range(of)
    ]
    state, _ = step(state, seen, 1_101.0)
    assert state.reason.startswith("inconclusive") and "champion" not in state.reason


def test_a_step_ends_early_once_the_candidate_is_shown_to_be_within_its_limits():
    steps = (Step(weight=0.0, min_requests=100_000, min_candidate=10), Step(weight=0.5, min_requests=100_000))
    policy = RolloutPolicy(steps=steps, advance="early", max_error_rate=0.05, max_extra_disagreement=0.1)
    state, _ = fresh(policy)
    for n in range(1, 200):
        state, actions = step(state, [*shadowed(1), *audits(1)], 1_000.0 + n)
        if actions:
            break
    assert state.step == 1 and 40 < n < 100
    state, actions = step(state, [*served(1, 0.5), *audits(1)], 1_300.0)
    assert actions == ()  # what was shown at one step is shown anew at the next


def test_a_step_that_has_to_prove_is_not_ended_by_its_counts():
    policy = msgspec.structs.replace(POLICY, advance="proven")
    state, _ = fresh(policy)
    state, actions = step(state, [*shadowed(30), *audits(30)], 1_001.0)
    assert (state.step, actions) == (0, ())
    state, _ = step(state, [], 1_101.0)
    assert state.phase == "paused" and "errors not shown" in state.reason
    state, _ = command(state, "resume", 1_102.0, order="o", actor="me", reason="more")
    state, _ = step(state, [*shadowed(500), *audits(500)], 1_103.0)
    assert state.step == 1


def test_a_candidate_as_ignorant_as_its_champion_does_not_pass_a_floor_on_agreement():
    ignorant = [*shadowed(20), *audits(10, champion=True, candidate=True)]
    assert step(fresh()[0], ignorant, 1_001.0)[0].step == 1
    floor = msgspec.structs.replace(POLICY, min_agreement=0.6)
    state, _ = step(fresh(floor)[0], ignorant[:25], 1_001.0)
    assert state.step == 0
    state, _ = step(state, ignorant, 1_002.0)
    assert state.phase == "rolled_back" and "must agree on 0.6" in state.reason
    some = [Audited(id=str(i), champion=True, candidate=i % 2 == 0, weight=0.0) for i in range(10)]
    state, _ = step(fresh(floor)[0], [*shadowed(20), *some], 1_001.0)
    assert (state.phase, state.step) == ("shadow", 0)
    state, _ = step(state, [], 1_101.0)
    assert "it disagrees with the teacher on 5 of 10" in state.reason


def test_a_split_that_is_not_the_configured_one_raises_one_alarm():
    state, _ = fresh(msgspec.structs.replace(POLICY, patience_seconds=1e6), skip_shadow=True)
    state, actions = step(state, served(60), 1_001.0)
    assert [(a.kind, a.verb) for a in actions] == [("alarm", "alarm")] and "given 60 of 60" in actions[0].reason
    assert state.alarmed and state.phase == "canary"
    assert step(state, served(10), 1_002.0)[1] == ()
    again = settled(applied(state, actions[0], 1_003.0), actions[0])
    assert again.steps[-1].applied_seconds is None  # an alarm changes no routing


def test_a_replica_that_cannot_load_it_ends_it():
    state, _ = fresh()
    state, _ = step(state, [Failed(replica="r7", error="corrupt")], 1_001.0)
    assert state.phase == "rolled_back" and "r7" in state.reason and "corrupt" in state.reason


def test_an_ended_rollout_sees_nothing_more():
    state, _ = fresh()
    state, _ = command(state, "abort", 1_001.0, order="o", actor="me", reason="no")
    assert step(state, shadowed(50), 1_002.0) == (state, ())


def order(state, verb, now=1_001.0):
    return command(state, verb, now, order=f"{verb}-{state.actions}", actor="me", reason="why")


def test_pause_and_resume():
    state, _ = order(fresh()[0], "pause")
    assert state.phase == "paused"
    state, _ = order(state, "resume", 1_200.0)
    assert (state.phase, state.entered_at) == ("shadow", 1_200.0)
    assert step(state, [], 1_250.0)[0].phase == "shadow"


def test_promote_takes_one_step_and_the_last_one_makes_it_champion():
    state, names = fresh()[0], []
    for _ in range(3):
        state, (action,) = order(state, "promote")
        names.append((action.kind, action.verb, action.actor, state.phase, state.weight))
    assert names == [
        ("route", "step", "me", "canary", 0.1), ("route", "step", "me", "canary", 0.5),
        ("promote", "promote", "me", "promoted", 0.0),
    ]  # fmt: skip
    state, _ = order(order(fresh()[0], "pause")[0], "promote")
    assert state.phase == "canary"
    assert order(fresh()[0], "promote-full")[0].phase == "promoted"


def test_abort_and_rollback_take_it_back():
    for verb, phase in (("abort", "aborted"), ("rollback", "rolled_back")):
        state, (action,) = order(fresh()[0], verb)
        assert (state.outcome, action.kind, action.verb) == (phase, "take_back", verb)


def test_undo_goes_one_step_back_and_waits_for_the_person():
    state = order(order(fresh()[0], "promote")[0], "promote")[0]
    state, (action,) = order(state, "undo", 1_010.0)
    assert (state.phase, state.step, state.weight, action.verb) == ("paused", 1, 0.1, "undo")
    assert state.steps[-1].requests == 0 and [s.name for s in state.steps] == ["shadow", "10 %", "50 %", "10 %"]
    state = order(state, "resume")[0]
    assert state.phase == "canary"
    state = order(state, "undo")[0]
    assert state.shadow and "undo" not in state.legal


def test_undo_of_an_abort_takes_up_the_step_that_was_left():
    state = order(order(fresh()[0], "promote")[0], "abort")[0]
    state, _ = order(state, "undo")
    assert (state.phase, state.weight, state.outcome, state.ended_at) == ("paused", 0.1, None, None)


def test_undo_of_a_promotion_makes_the_former_champion_serve():
    state = order(fresh()[0], "promote-full")[0]
    state, (action,) = order(state, "undo", 1_020.0)
    assert (state.phase, action.kind) == ("rolled_back", "restore")
    intent = desired(state, Intent(champion=ref("2"), previous=ref("1")), 1_020.0)
    assert (intent.champion, intent.previous, intent.candidate) == (ref("1"), ref("2"), None)
    assert applied(state, action, 1_020.04).rollback_seconds == pytest.approx(0.04)


def test_retry_begins_anew_with_guards_that_have_seen_nothing():
    state, _ = step(fresh()[0], shadowed(30, ok=False), 1_001.0)
    assert state.phase == "rolled_back"
    state, _ = order(state, "retry", 1_050.0)
    assert (state.phase, state.step, state.entered_at, state.outcome) == ("shadow", 0, 1_050.0, None)
    assert state.guards == fresh()[0].guards and state.requests == 30
    state, _ = step(state, [*shadowed(20), *audits(10)], 1_060.0)
    assert state.step == 1


COURSES = {
    "shadow": [], "canary": ["promote"], "paused": ["promote", "pause"], "promoted": ["promote-full"],
    "rolled_back": ["rollback"], "aborted": ["abort"],
}  # fmt: skip


@pytest.mark.parametrize("phase", COURSES)
@pytest.mark.parametrize("verb", get_args(Verb))
def test_each_verb_is_carried_out_or_refused_with_those_that_are_legal(phase, verb):
    state = fresh()[0]
    for before in COURSES[phase]:
        state, _ = order(state, before)
    assert (state.phase == phase and state.legal == LEGAL[phase]) or phase == "shadow"
    if verb in state.legal:
        after, actions = command(state, verb, 1_002.0, order="new", actor="me", reason="why")
        assert actions and command(after, verb, 1_003.0, order="new", actor="me", reason="why") == (after, ())
        return
    with pytest.raises(TransitionError) as caught:
        command(state, verb, 1_002.0, order="new", actor="me", reason="why")
    assert caught.value.legal == state.legal


def test_the_revision_counts_decisions_and_not_evidence():
    state, _ = fresh()
    seen, _ = step(state, shadowed(5), 1_001.0)
    assert seen.revision == state.revision
    assert order(seen, "pause")[0].revision == state.revision + 1


def test_a_request_counts_for_a_weight_once_it_was_applied_everywhere():
    state, (action,) = fresh(skip_shadow=True)
    assert state.weight_of(1_005.0) is None
    state = applied(state, action, 1_000.5)
    assert (state.weight_of(1_000.4), state.weight_of(1_000.5)) == (None, 0.1)
    assert order(state, "abort")[0].weight_of(1_002.0) is None


def test_settling_empties_the_outbox_and_keeps_the_times():
    state, (action,) = fresh()
    state = settled(applied(state, action, 1_000.25), action)
    assert state.outbox == () and state.active
    assert state.steps[-1].applied_seconds == 0.25
    state, (action,) = command(state, "rollback", 1_005.0, order="o", actor="me", reason="")
    assert state.active
    state = settled(applied(state, action, 1_005.07), action)
    assert not state.active and state.rollback_seconds == pytest.approx(0.07)


class Rollouts(RuleBasedStateMachine):
    """Any evidence and any orders, in any order."""

    @initialize(
        skip=st.booleans(),
        audit=st.sampled_from([0.0, 0.5, 1.0]),
        advance=st.sampled_from(["evidence", "early", "proven"]),
        inconclusive=st.sampled_from(["wait", "pause", "abort"]),
    )
    def start(self, skip, audit, advance, inconclusive):
        self.now, self.orders = 1_000.0, []
        policy = msgspec.structs.replace(POLICY, advance=advance, on_inconclusive=inconclusive)
        self.state, _ = fresh(policy, skip_shadow=skip, audit_share=audit)
        self.ended, self.revived = False, False

    @rule(
        n=st.integers(0, 40),
        arm=st.sampled_from(["champion", "candidate"]),
        ok=st.sampled_from([True] * 9 + [False, None]),
        weight=st.sampled_from([None, 0.0, 0.1, 0.5]),
        bad=st.booleans(),
        seconds=st.floats(0, 120),
    )
    def see(self, n, arm, ok, weight, bad, seconds):
        self.now += seconds
        reply = None if ok is None else Reply(ok=ok, latency_ms=1.0)
        seen = [Answered(id="i", arm=arm, weight=weight, champion=Reply(ok=True), candidate=reply)] * n
        before = self.state
        self.state, actions = step(before, [*seen, *audits(n // 2, candidate=bad and n % 3 == 0)], self.now)
        assert self.state.actions == before.actions + len(actions)

    @rule(verb=st.sampled_from(get_args(Verb)))
    def order(self, verb):
        legal = verb in self.state.legal
        key = f"order-{len(self.orders)}"
        try:
            self.state, _ = command(self.state, verb, self.now, order=key, actor="me", reason="why")
            assert legal
            self.revived |= verb in ("retry", "undo")
            self.orders.append((verb, key))
        except TransitionError:
            assert not legal

    @precondition(lambda self: self.orders)
    @rule(which=st.randoms())
    def deliver_again(self, which):
        verb, key = which.choice(self.orders)
        again, actions = command(self.state, verb, self.now, order=key, actor="me", reason="why")
        assert again == self.state and actions == ()

    @precondition(lambda self: self.state.outbox)
    @rule()
    def carry_out(self):
        action = self.state.outbox[0]
        self.state = settled(applied(self.state, action, self.now), action)

    @invariant()
    def weight_is_the_steps_or_none(self):
        assert self.state.weight in (0.0, STEPS[self.state.step].weight)
        if self.state.ended:
            assert self.state.weight == 0.0 and not self.state.shadow
            assert self.state.outcome == self.state.phase

    @invariant()
    def only_a_person_goes_on_after_the_end(self):
        assert self.state.ended or not self.ended or self.revived
        self.ended, self.revived = self.state.ended, False

    @invariant()
    def every_phase_leaves_a_person_something_to_do(self):
        assert self.state.legal
        assert len(set(self.state.orders)) == len(self.state.orders)

    @invariant()
    def there_is_exactly_one_champion(self):
        intent = desired(self.state, Intent(champion=ref("1")), self.now)
        assert intent.champion == ref("2" if self.state.phase == "promoted" else "1")
        assert (intent.candidate is None) == self.state.ended
        assert intent.weight == self.state.weight
        assert intent.weight_at(self.now + POLICY.lease_seconds) == 0.0

    @invariant()
    def it_survives_json(self):
        assert from_dict(json.loads(json.dumps(as_dict(self.state)))) == self.state

    @invariant()
    def counts_add_up(self):
        assert sum(s.requests for s in self.state.steps) == self.state.requests >= self.state.candidate_requests


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
