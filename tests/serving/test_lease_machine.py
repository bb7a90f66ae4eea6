"""Controllers that die and come back, replicas that lag and restart, in any order: who serves, and for how long.

Decisions, intents, leases and choices are the product's own code; only the database and the students are made up.
"""

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from components.contracts.errors import TransitionError
from components.contracts.spec import RolloutPolicy, Step
from components.control.database import StaleRevisionError
from components.control.intent import Intent, ModelRef
from serving.control.replicas import ReplacedError, Replicas
from serving.replica.loaded_versions import Loaded, Routing
from serving.rollout.state import desired
from serving.rollout.step import begin, command

LEASE = 10.0
STEPS = (Step(weight=0.0), Step(weight=0.2), Step(weight=0.6))
POLICY = RolloutPolicy(steps=STEPS, lease_seconds=LEASE)
VERBS = [
    "promote",
    "promote",
    "promote",
    "retry",
    "retry",
    "undo",
    "pause",
    "resume",
    "promote-full",
    "abort",
    "rollback",
]
"""Those that lead to a canary more often."""
KEYS = [f"key-{n}" for n in range(40)]


def ref(version):
    return ModelRef(version=version, uri="file:///x", digest=version * 64, snapshot="s", teacher="t@1")


class Intents:
    """The control database's part of this, in memory, with its comparisons."""

    def __init__(self):
        self.revision, self.value = 1, Intent(champion=ref("1"))

    def intent(self, workload):
        return self.revision, self.value

    def put_intent(self, workload, expected, intent):
        if expected != self.revision:
            raise StaleRevisionError("routing", expected, self.revision)
        self.revision, self.value = expected + 1, intent
        return self.revision

    def renew_lease(self, workload, epoch, until):
        if self.value.epoch == epoch:
            self.value = msgspec.structs.replace(self.value, lease_until=until)


class Serving(RuleBasedStateMachine):
    @initialize(skip=st.booleans(), read=st.booleans())
    def start(self, skip, read):
        self.now, self.store = 1_000.0, Intents()
        self.dead, self.held_at = [], -LEASE
        self.routings = [self.read(), self.read()]
        self.state, _ = begin("r1", "w", ref("2"), ref("1"), POLICY, self.now, audit_share=0.0, skip_shadow=skip)
        self.controller = Replicas(self.store, "w", lambda: self.now)
        self.controller.take_over()
        if read:
            self.carry_out()
            self.routings = [self.read(), self.read()]

    def read(self):
        """What a replica makes of the intent."""
        intent = self.store.value
        champion, candidate = (Loaded(r, None) if r else None for r in (intent.champion, intent.candidate))
        return Routing(
            workload="w", revision=self.store.revision, intent=intent, champion=champion, candidate=candidate
        )

    @rule(verb=st.sampled_from(VERBS), after=st.sampled_from(["nothing", "written", "read by one", "read by both"]))
    def decide(self, verb, after):
        """A decision is durable; how far it is carried out is another matter."""
        try:
            key = f"o{self.state.actions}"
            self.state, _ = command(self.state, verb, self.now, order=key, actor="me", reason="why")
        except TransitionError:
            return
        if after != "nothing":
            self.carry_out()
        for n in range(("nothing", "written", "read by one", "read by both").index(after) - 1):
            self.follow(n)

    @rule()
    def carry_out(self):
        self.controller.change(lambda intent: desired(self.state, intent, self.now))
        if not self.state.ended:
            self.held_at = self.now

    @precondition(lambda self: not self.state.ended)
    @rule()
    def hold(self):
        self.controller.hold(LEASE)
        self.held_at = self.now

    @rule()
    def die(self):
        """The next controller takes over; the one before may still believe that it leads."""
        self.dead.append(self.controller)
        self.controller = Replicas(self.store, "w", lambda: self.now)
        self.controller.take_over()

    @precondition(lambda self: self.dead)
    @rule(which=st.randoms(use_true_random=False), weight=st.sampled_from([0.2, 1.0]))
    def a_dead_one_writes(self, which, weight):
        zombie, before = which.choice(self.dead), self.store.value
        with pytest.raises(ReplacedError):
            zombie.change(lambda intent: msgspec.structs.replace(intent, candidate=ref("2"), weight=weight))
        with pytest.raises(ReplacedError):
            zombie.hold(1e9)
        self.store.renew_lease("w", zombie.epoch, self.now + 1e9)
        assert self.store.value == before

    @rule(n=st.integers(0, 1))
    def follow(self, n):
        """A replica reads the intent: in its time, or because it was started anew."""
        self.routings[n] = self.read()

    @rule(seconds=st.floats(0.1, 12.0))
    def wait(self, seconds):
        self.now += seconds

    def share(self, routing):
        served = [routing.choose(key, self.now) for key in KEYS]
        assert all(choice is not None for choice in served)
        return sum(choice.arm == "candidate" for choice in served)

    @invariant()
    def there_is_one_champion(self):
        assert self.store.value.champion in (ref("1"), ref("2"))
        for routing in self.routings:
            assert {c.served.ref for k in KEYS if (c := routing.choose(k, self.now)).arm == "champion"} <= {
                routing.intent.champion
            }

    @invariant()
    def nobody_gives_a_candidate_more_than_the_intent_that_it_has_read(self):
        for routing in self.routings:
            share = self.share(routing)
            if routing.intent.weight_at(self.now) == 0.0 or routing.intent.candidate is None:
                assert share == 0
            if routing.revision == self.store.revision:
                assert routing.intent.weight_at(self.now) <= self.store.value.weight

    @invariant()
    def no_lease_outlives_its_controller(self):
        assert self.store.value.lease_until <= self.held_at + LEASE
        if self.now >= self.held_at + LEASE:
            assert [self.share(routing) for routing in self.routings] == [0, 0]

    @invariant()
    def what_was_decided_is_served_once_it_is_carried_out_and_read(self):
        wanted = desired(self.state, self.store.value, self.now)
        if msgspec.structs.replace(wanted, lease_until=0) == msgspec.structs.replace(self.store.value, lease_until=0):
            for routing in self.routings:
                if routing.revision == self.store.revision and self.state.ended:
                    assert self.share(routing) == 0
                    assert routing.intent.champion == ref("2" if self.state.phase == "promoted" else "1")


TestServing = Serving.TestCase
TestServing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
