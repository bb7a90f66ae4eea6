import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from components.contracts.errors import TransitionError
from components.contracts.spec import RolloutPolicy, Step
from components.control.intent import Intent, ModelRef
from serving.rollout.evidence import Answered, Audited, Failed
from serving.rollout.state import LEGAL, as_dict, desired, from_dict
from serving.rollout.step import applied, begin, command, settled, step


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
    return [Answered(id=str(i), arm="champion", ok=ok, latency_ms=1.0) for i in range(n)]


def served(n):
    return [Answered(id=str(i), arm="candidate", ok=True, latency_ms=1.0) for i in range(n)]


def audits(n, champion=False, candidate=False):
    return [Audited(id=str(i), champion=champion, candidate=candidate) for i in range(n)]


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
    for now, evidence in ((1_010, shadowed(20)), (1_020, served(20)), (1_030, served(20))):
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
    state, _ = step(state, shadowed(3, ok=False), 1_002.0)
    assert state.phase == "rolled_back" and "errors" in state.reason


def test_a_replica_that_cannot_load_it_ends_it():
    state, _ = fresh()
    state, _ = step(state, [Failed(replica="r7", error="corrupt")], 1_001.0)
    assert state.phase == "rolled_back" and "r7" in state.reason and "corrupt" in state.reason


def test_an_ended_rollout_sees_nothing_more():
    state, _ = fresh()
    state, _ = command(state, "abort", 1_001.0, order="o", actor="me", reason="no")
    assert step(state, shadowed(50), 1_002.0) == (state, ())


def test_verbs_do_what_they_say():
    state, _ = fresh()
    state, _ = command(state, "pause", 1_001.0, order="1", actor="me", reason="wait")
    assert state.phase == "paused"
    state, _ = command(state, "resume", 1_200.0, order="2", actor="me", reason="go")
    assert (state.phase, state.entered_at) == ("shadow", 1_200.0)
    assert step(state, [], 1_250.0)[0].phase == "shadow"
    promoted, actions = command(state, "promote", 1_201.0, order="3", actor="me", reason="sure")
    assert promoted.phase == "promoted" and actions[0].actor == "me"
    aborted, actions = command(state, "abort", 1_201.0, order="3", actor="me", reason="no")
    assert (aborted.outcome, actions[0].verb) == ("aborted", "abort")


@pytest.mark.parametrize(("verb", "phase"), [("resume", "shadow"), ("pause", "paused"), ("pause", "aborted")])
def test_verbs_that_are_not_legal_are_refused_with_those_that_are(verb, phase):
    state, _ = fresh()
    for before in {"shadow": [], "paused": ["pause"], "aborted": ["abort"]}[phase]:
        state, _ = command(state, before, 1_001.0, order=before, actor="me", reason="")
    with pytest.raises(TransitionError) as caught:
        command(state, verb, 1_002.0, order="again", actor="me", reason="")
    assert caught.value.legal == LEGAL.get(phase, ())


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

    @initialize(skip=st.booleans(), audit=st.sampled_from([0.0, 0.5, 1.0]))
    def start(self, skip, audit):
        self.now, self.orders = 1_000.0, []
        self.state, _ = fresh(skip_shadow=skip, audit_share=audit)
        self.ended = False

    @rule(
        n=st.integers(0, 40),
        arm=st.sampled_from(["champion", "candidate"]),
        ok=st.sampled_from([True] * 9 + [False, None]),
        bad=st.booleans(),
        seconds=st.floats(0, 120),
    )
    def see(self, n, arm, ok, bad, seconds):
        self.now += seconds
        seen = [Answered(id=str(i), arm=arm, ok=ok, latency_ms=1.0 if ok is not None else None) for i in range(n)]
        before = self.state
        self.state, actions = step(before, [*seen, *audits(n // 2, candidate=bad and n % 3 == 0)], self.now)
        assert self.state.actions == before.actions + len(actions)

    @rule(verb=st.sampled_from(["pause", "resume", "promote", "abort", "rollback"]))
    def order(self, verb):
        legal = verb in LEGAL.get(self.state.phase, ())
        key = f"order-{len(self.orders)}"
        try:
            self.state, _ = command(self.state, verb, self.now, order=key, actor="me", reason="why")
            assert legal
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
    def the_end_is_final(self):
        assert self.state.ended or not self.ended
        self.ended = self.state.ended

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
