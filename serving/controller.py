"""The controller of a workload's rollouts: takes orders, reads evidence, decides by the pure state machine, acts.

Decisions are durable before they are carried out, and carrying one out twice changes nothing, so that a controller
that dies anywhere leaves a state from which the next one goes on.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from components.contracts.errors import ArtifactError, CohobateError, NotFoundError, RecordError, TransitionError
from components.contracts.records import Label, Prediction, decode
from components.contracts.spec import Spec
from components.control.intent import Intent, ModelRef
from components.control.store import ControlStore
from components.control.tables import OrderRow
from components.ledger.ledger import append
from components.registry.registry import Registry
from components.stream.contract import Broker, Consumer, TopicPartition
from serving.admission import admit
from serving.journal import Journal
from serving.rollout.evidence import Observation, Teachings, failures, join, observe
from serving.rollout.replay import Begun, Looked, Ordered
from serving.rollout.state import Action, RolloutState, as_dict, desired, from_dict
from serving.rollout.step import applied, command, settled, step

log = logging.getLogger(__name__)

TICK_SECONDS = 0.05
ACK_SECONDS = 10.0
"""How long an order waits for the replicas that are alive; one that does not follow is no longer alive after 5 s."""

REGISTRY_SECONDS = 0.5
"""How often the registry is asked for a new candidate."""

TEACHINGS = 100_000
"""The teacher's labels that are kept for audits, by content."""


class Controller:
    """Drives the rollouts of one workload. One at a time per workload."""

    def __init__(
        self,
        spec: Spec,
        store: ControlStore,
        registry: Registry,
        broker: Broker,
        journals: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.spec, self.store, self.registry, self.broker, self._clock = spec, store, registry, broker, clock
        self._folder = journals
        self._teachings = Teachings(TEACHINGS)
        self._labels = broker.consumer([spec.topic("labels")])
        self._predictions: Consumer | None = None
        self._journal: Journal | None = None
        self._revision = 0
        self._asked_registry = float("-inf")
        self._refused: set[str] = set()
        self.state: RolloutState | None = None
        self._resume()

    def _resume(self) -> None:
        row = self.store.active_rollout(self.spec.name)
        if row is not None:
            self.state, self._revision = from_dict(row.state), row.revision
            self._open(self.state)
            log.info("%s: going on with rollout %s", self.spec.name, row.id)

    def _open(self, state: RolloutState) -> None:
        self._journal = Journal(self._folder, state.id, state.reading.journal)
        places = {_place(name): offset for name, offset in state.reading.positions.items()}
        self._predictions = self.broker.consumer([self.spec.topic("predictions")], start=places)

    def run(self, stop: threading.Event) -> None:
        """Tick until ``stop`` is set."""
        while not stop.is_set():
            self.tick()
            stop.wait(TICK_SECONDS)
        self._labels.close()

    def tick(self) -> None:
        """One cycle.

        1. Learn the teacher's new labels.
        2. Carry out orders.
        3. Take a new candidate from the registry, when no rollout is under way.
        4. Look at the evidence and decide; make the decision durable.
        5. Carry out what was decided: intent, acknowledgements, aliases, ledger.
        6. Renew the candidate's lease.
        """
        # Step 1
        for record in self._labels.poll(500, timeout=0.0):
            self._teachings.learn(decode(Label, record.value))
        # Step 2
        for order in self.store.open_orders(self.spec.name):
            self._carry_out_order(order)
        # Step 3
        if self.state is None:
            self._take_candidate()
        # Step 4
        if self.state is not None and not self.state.ended:
            self._look(self.state)
        # Step 5
        if self.state is not None:
            self._settle()
        # Step 6
        if self.state is not None and not self.state.ended:
            until = self._clock() + self.state.policy.lease_seconds
            self.store.renew_lease(self.spec.name, self.store.intent(self.spec.name)[1].epoch, until)

    # Orders

    def _carry_out_order(self, order: OrderRow) -> None:
        try:
            outcome = self._order(order)
        except CohobateError as error:
            append(
                self.store, self.spec.name, order.actor, f"refused {order.verb}",
                {"order": order.id, "why": str(error), "reason": order.reason},
            )  # fmt: skip
            self.store.finish_order(order.id, False, str(error))
            return
        self.store.finish_order(order.id, True, outcome)

    def _order(self, order: OrderRow) -> str:
        if order.verb == "start":
            model = self._model(str(order.args.get("version", "")))
            forced = bool(order.args.get("forced", False))
            skip = bool(order.args.get("skip_shadow", False))
            return self._start(model, order.reason, order.actor, forced=forced, skip_shadow=skip)
        if self.state is not None and not self.state.ended:
            now = self._clock()
            verb: Any = order.verb
            state, _ = command(self.state, verb, now, order=order.id, actor=order.actor, reason=order.reason)
            line = Ordered(at=now, order=order.id, verb=verb, actor=order.actor, reason=order.reason)
            self._keep(state, line)
            self._settle()
            return f"rollout {state.id} is {state.phase.replace('_', ' ')}"
        if order.verb == "rollback":
            return self._roll_back(str(order.args.get("to", "previous")), order)
        raise TransitionError(order.verb, "no rollout is under way", ("start", "rollback"))

    def _roll_back(self, to: str, order: OrderRow) -> str:
        """Make ``to`` champion: intent, acknowledgements, aliases, ledger."""
        revision, intent = self.store.intent(self.spec.name)
        target = intent.previous if to == "previous" else self._model(to)
        if target is None or intent.champion is None:
            raise NotFoundError("version", to, "there is no previous champion to go back to")
        if target.version == intent.champion.version:
            raise TransitionError("rollback", f"version {target.version} is champion already", ())
        began = self._clock()
        changed = msgspec.structs.replace(
            intent, champion=target, previous=intent.champion, candidate=None, weight=0.0, shadow=False
        )
        self._await_acks(self.store.put_intent(self.spec.name, revision, changed))
        took = self._clock() - began
        self.registry.set_alias(self.spec.name, "champion", target.version)
        self.registry.set_alias(self.spec.name, "previous", intent.champion.version)
        detail = {"to": target.version, "from": intent.champion.version, "seconds": took, "reason": order.reason}
        append(self.store, self.spec.name, order.actor, "rollback", detail)
        return (
            f"version {target.version} is champion again, {intent.champion.version} is previous ({took * 1000:.0f} ms)"
        )

    def _model(self, version: str) -> ModelRef:
        model = self.registry.get(self.spec.name, version)
        if model is None:
            raise NotFoundError("model version", version, "list them with 'cohobate status'")
        return model

    # Starting

    def _take_candidate(self) -> None:
        if self._clock() - self._asked_registry < REGISTRY_SECONDS:
            return
        self._asked_registry = self._clock()
        model = self.registry.get(self.spec.name, "candidate")
        if model is None or model.version in self._refused:
            return
        info = self.registry.info(self.spec.name, model.version)
        if info.verdict.get("decision") != "promote":
            return
        if any(r.state["candidate"]["version"] == model.version for r in self.store.rollouts(self.spec.name)):
            return
        try:
            self._start(model, "registered as candidate", "controller", forced=False, skip_shadow=False)
        except CohobateError as error:
            self._refused.add(model.version)
            append(self.store, self.spec.name, "controller", "refused start",
                   {"version": model.version, "why": str(error)})  # fmt: skip

    def _start(self, model: ModelRef, reason: str, actor: str, *, forced: bool, skip_shadow: bool) -> str:
        if self.state is not None and not self.state.ended:
            raise TransitionError("start", f"rollout {self.state.id} is {self.state.phase}", ())
        verdict = self.registry.info(self.spec.name, model.version).verdict.get("decision")
        if verdict != "promote" and not forced:
            raise ArtifactError(model.uri, f"the gate's verdict on it is {verdict!r}; start it with force to override")
        admit(model, self.spec.source)
        champion = self.store.intent(self.spec.name)[1].champion
        if champion is None:
            return self._crown(model, reason, actor)
        if champion.digest == model.digest:
            raise TransitionError("start", f"version {model.version} is champion already", ())
        self._predictions = self.broker.consumer([self.spec.topic("predictions")], start="latest")
        line = Begun(
            at=self._clock(),
            id=f"rollout-{uuid.uuid4().hex[:12]}",
            workload=self.spec.name,
            candidate=model,
            champion=champion,
            policy=self.spec.rollout,
            audit_share=self.spec.serve.audit_share,
            forced=forced,
            skip_shadow=skip_shadow,
            reason=reason,
            actor=actor,
        )
        state, _ = line.state()
        self._journal, self._revision = Journal(self._folder, state.id, 0), 0
        self._keep(state, line)
        self._settle()
        return f"rollout {state.id} of version {model.version} started"

    def _crown(self, model: ModelRef, reason: str, actor: str) -> str:
        """Make the first student champion: there is nothing to compare it with."""
        revision, intent = self.store.intent(self.spec.name)
        self._await_acks(
            self.store.put_intent(self.spec.name, revision, msgspec.structs.replace(intent, champion=model))
        )
        self.registry.set_alias(self.spec.name, "champion", model.version)
        self.registry.drop_alias(self.spec.name, "candidate")
        append(self.store, self.spec.name, actor, "first champion", {"version": model.version, "reason": reason})
        return f"version {model.version} is the first champion"

    # Evidence

    def _look(self, state: RolloutState) -> None:
        now = self._clock()
        seen = self._evidence(state)
        pending = state.reading.pending + tuple(p for _, p in seen if p is not None)
        audits, waiting = join(pending, self._teachings, state.champion.teacher)
        acknowledged = self.store.acknowledgements(self.spec.name)
        failed = failures([(a.replica, a.detail.get("failed", {})) for a in acknowledged], state.candidate.digest)
        evidence: list[Observation] = [a for a, _ in seen if a is not None]
        evidence += [*audits, *failed]
        decided, actions = step(state, evidence, now)
        if not (evidence or actions or seen):
            return
        reading = msgspec.structs.replace(state.reading, positions=self._positions(), pending=waiting)
        self._keep(msgspec.structs.replace(decided, reading=reading), Looked(at=now, seen=tuple(evidence)))

    def _evidence(self, state: RolloutState) -> list[tuple[Any, Any]]:
        if self._predictions is None:
            raise CohobateError(f"rollout {state.id} has no open stream of predictions")
        seen = []
        for record in self._predictions.poll(2_000, timeout=0.0):
            try:
                prediction = decode(Prediction, record.value)
            except RecordError as error:
                log.warning("%s: a prediction is no evidence: %s", self.spec.name, error)
                continue
            seen.append(observe(prediction, state.champion.version, state.candidate.version))
        return seen

    def _positions(self) -> dict[str, int]:
        found = self._predictions.positions() if self._predictions else {}
        return {f"{p.topic}:{p.partition}": offset for p, offset in found.items()}

    def _keep(self, state: RolloutState, line: Any) -> None:
        """Write the journal line, then the state that knows of it."""
        if self._journal is not None:
            lines = self._journal.append(line)
            reading = msgspec.structs.replace(state.reading, journal=lines)
            if not reading.positions:
                reading = msgspec.structs.replace(reading, positions=self._positions())
            state = msgspec.structs.replace(state, reading=reading)
        self._persist(state)

    def _persist(self, state: RolloutState) -> None:
        self._revision = self.store.put_rollout(state.id, self.spec.name, self._revision, state.active, as_dict(state))
        self.state = state

    # Acting

    def _settle(self) -> None:
        """Carry out the outbox, oldest first; a rollout that has nothing left is put aside.

        1. Write the intent.
        2. Wait until every live replica has acknowledged it.
        3. Note the time that took.
        4. Set the registry's aliases.
        5. Append to the ledger.
        6. Take the action from the outbox.
        """
        while self.state is not None and self.state.outbox:
            action, state = self.state.outbox[0], self.state
            # Step 1 and 2
            self._await_acks(self._write_intent(state))
            # Step 3
            state = applied(state, action, self._clock())
            # Step 4
            self._alias(state, action)
            # Step 5
            detail = {
                "rollout": state.id, "version": state.candidate.version, "reason": action.reason,
                "weight": state.weight, "forced": state.forced, "requests": state.requests,
                "candidate_requests": state.candidate_requests,
            }  # fmt: skip
            append(self.store, self.spec.name, action.actor, f"rollout {action.verb}", detail)
            # Step 6
            self._persist(settled(state, action))
        if self.state is not None and not self.state.active:
            self.state, self._journal = None, None
            if self._predictions is not None:
                self._predictions.close()
                self._predictions = None

    def _write_intent(self, state: RolloutState) -> int:
        revision, intent = self.store.intent(self.spec.name)
        wanted = desired(state, intent, self._clock())
        if _same_routing(wanted, intent):
            return revision
        return self.store.put_intent(self.spec.name, revision, wanted)

    def _await_acks(self, revision: int) -> None:
        deadline = time.monotonic() + ACK_SECONDS
        while time.monotonic() < deadline:
            alive = self.store.acknowledgements(self.spec.name)
            if all(a.revision >= revision for a in alive):
                return
            time.sleep(0.005)
        log.warning("%s: not every replica acknowledged revision %d", self.spec.name, revision)

    def _alias(self, state: RolloutState, action: Action) -> None:
        if action.kind == "route":
            return
        if action.kind == "promote":
            self.registry.set_alias(self.spec.name, "previous", state.champion.version)
            self.registry.set_alias(self.spec.name, "champion", state.candidate.version)
        candidate = self.registry.get(self.spec.name, "candidate")
        if candidate is not None and candidate.version == state.candidate.version:
            self.registry.drop_alias(self.spec.name, "candidate")


def _same_routing(a: Intent, b: Intent) -> bool:
    return msgspec.structs.replace(a, lease_until=0.0) == msgspec.structs.replace(b, lease_until=0.0)


def _place(name: str) -> TopicPartition:
    topic, _, partition = name.rpartition(":")
    return TopicPartition(topic, int(partition))
