"""The controller of a workload's rollouts: takes orders, reads evidence, decides by the pure state machine, acts.

Decisions are durable before they are carried out, and carrying one out twice changes nothing, so that a controller
that dies anywhere leaves a state from which the next one goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from components.contracts.errors import CohobateError, NotFoundError, UnavailableError
from components.contracts.failpoint import failpoint
from components.contracts.spec import Spec
from components.control.database import DATABASE_AWAY
from components.control.intent import ModelRef
from components.control.store import ControlStore, JournalLine, orders_bell
from components.control.tables import RolloutRow
from components.ledger.ledger import append, entries
from components.registry.registry import Registry
from components.stream.contract import Broker
from serving.control.certificate import Watch
from serving.control.journal import Journal, uri_of
from serving.control.orders import REGISTRY_SECONDS, Orders
from serving.control.reading import EvidenceReader
from serving.control.replicas import ReplacedError, Replicas
from serving.replica.admission import admit
from serving.rollout.evidence import failures
from serving.rollout.replay import Begun, Line, Looked
from serving.rollout.state import Action, RolloutState, as_dict, desired, from_dict
from serving.rollout.step import applied, settled, step

log = logging.getLogger(__name__)

TICK_SECONDS = 0.05
"""Wait between two cycles while there is something to do; an order ends it where bells are heard."""

IDLE_SECONDS = 1.0
"""The same while no rollout is under way and nothing new came on the streams."""

ORDERS_SECONDS = 5.0
"""How old the last look for orders may be where an order is heard of."""

PASSED_OVER = "passed_over"
"""The gauge of the records that said nothing to this controller since its start, by their topic's kind."""


class Controller:
    """Drives the rollouts of one workload, one at a time.

    ``artifacts``: the artifact root, where its rollouts' journals go. ``trial``: what an artifact must pass before it
    is routed to. ``vouch``: what must hold of a version and its verdict before its rollout starts.

    Starting one takes over from any other controller of the workload, which stops when it notices.
    """

    def __init__(
        self,
        spec: Spec,
        store: ControlStore,
        registry: Registry,
        broker: Broker,
        artifacts: str,
        clock: Callable[[], float] | None = None,
        trial: Callable[[ModelRef, str], None] = admit,
        vouch: Callable[[ModelRef, str | None], None] = lambda model, decision: None,
    ) -> None:
        self.trial, self.vouch = trial, vouch
        self.spec, self.store, self.registry, self.clock = spec, store, registry, clock or store.clock
        self.replicas = Replicas(store, spec.name, self.clock)
        self.reader = EvidenceReader(spec, broker)
        self._passed_over = 0
        self.state: RolloutState | None = None
        self._artifacts = artifacts
        self._journal: Journal | None = None
        self._revision = 0
        self._orders, self._idle = Orders(self), False
        self._look_for_orders, self._looked = True, float("-inf")
        self._rung = store.bells.listen(orders_bell(spec.name))
        self._noted: tuple[str, int] | None = None
        self._settle_after = float("-inf")
        self.watch = Watch(self, broker, self.reader.teachings, artifacts)
        self.replicas.take_over()
        failpoint("lead.1")
        self._resume()

    def _resume(self) -> None:
        row = self.store.active_rollout(self.spec.name)
        if row is not None:
            self.state, self._revision = from_dict(row.state), row.revision
            self._journal = self._journal_of(row.id, self.state.reading.journal)
            self.reader.go_on(self.state)
            log.info("%s: going on with rollout %s", self.spec.name, row.id)

    def run(self, stop: threading.Event) -> None:
        """Tick until ``stop`` is set.

        Raises:
            ReplacedError: another controller has taken over.

        """
        while not stop.is_set():
            self.tick()
            self.pause(stop)
        self.close()

    def pause(self, stop: threading.Event) -> None:
        """Wait for the next cycle: :data:`TICK_SECONDS`, idle longer, or until an order was placed."""
        wait = IDLE_SECONDS if self._idle and self.store.bells.heard else TICK_SECONDS
        rung = not stop.is_set() and self._rung.wait(wait)
        if rung:
            self._rung.clear()
        late = time.monotonic() - self._looked >= ORDERS_SECONDS
        self._look_for_orders = rung or late or self._orders.waiting or not (self._idle and self.store.bells.heard)

    def close(self) -> None:
        """Let go of the streams; the rollout stays as it is, for the next controller."""
        self.store.bells.leave(self._rung)
        self.reader.close()
        self.watch.close()

    def tick(self) -> None:
        """One cycle.

        1. Finish what was decided and not carried out, by this controller or one before it.
        2. Carry out orders, if one may have come: somebody waits for a rollback, and nothing else matters to it.
        3. Learn the teacher's new labels, and new truths.
        4. Take a new candidate from the registry, when no rollout is under way.
        5. Look at the evidence and decide; make the decision durable.
        6. Carry out what was decided.
        7. Hold the candidate's lease.
        8. Judge whether the champion keeps its promise, and guard the workload where it does not.

        Where the registry does not answer, what is routed goes on being watched; its aliases follow when it is back.
        """
        # Step 1
        self._catch_up()
        # Step 2
        if self._look_for_orders:
            self._looked = time.monotonic()
            for order in self.store.open_orders(self.spec.name):
                self._orders.carry_out(order)
        # Step 3
        learnt = self.reader.learn()
        # Step 4
        if self.state is None:
            self._orders.take_candidate()
        # Step 5
        if self.state is not None and not self.state.ended:
            self._look(self.state)
        # Step 6
        self._catch_up()
        self._report()
        # Step 7
        if self.state is not None and not self.state.ended:
            self.replicas.hold(self.state.policy.lease_seconds)
        # Step 8
        moved = self.watch.tick(self.clock())
        self._idle = self.state is None and not learnt and not moved

    def _report(self) -> None:
        """Say how many records were passed over, where that has changed."""
        passed = self.reader.passed_over
        if passed.total() != self._passed_over:
            self._passed_over = passed.total()
            self.store.put_gauge(self.spec.name, PASSED_OVER, dict(passed))

    def _catch_up(self) -> None:
        """Carry out what was decided; what the registry does not answer to waits, the routing being written."""
        if self.clock() < self._settle_after:
            return
        try:
            self.settle()
        except UnavailableError as error:
            log.warning("%s: what was decided is not in the registry yet: %s", self.spec.name, error)
            self._settle_after = self.clock() + REGISTRY_SECONDS

    def _journal_of(self, rollout: str, lines: int) -> Journal:
        return Journal(self.store, uri_of(self._artifacts, self.spec.name, rollout), rollout, lines)

    def begin(self, begun: Begun) -> RolloutState:
        """Begin a rollout: its evidence starts at the present end of the predictions."""
        reading = self.reader.begin(begun.at)
        state, _ = begun.state()
        self._journal, self._revision = self._journal_of(state.id, 0), 0
        self.keep(msgspec.structs.replace(state, reading=reading), begun)
        self.settle()
        return state

    def reopen(self, state: RolloutState, revision: int) -> RolloutState:
        """Take up a rollout that had ended; its evidence goes on at the present end of the predictions."""
        self._journal, self._revision = self._journal_of(state.id, state.reading.journal), revision
        reading, kept = self.reader.begin(self.clock()), state.reading
        reading = msgspec.structs.replace(reading, journal=kept.journal, truth=kept.truth)
        return msgspec.structs.replace(state, reading=reading)

    def keep(self, state: RolloutState, line: Line) -> None:
        """Make a decision durable: its line in the journal and the state that it led to, both at once."""
        if self._journal is None:
            raise CohobateError(f"rollout {state.id} has no open journal")
        failpoint("decision.1")
        added = self._journal.next(line)
        reading = msgspec.structs.replace(state.reading, journal=added.number)
        self._persist(msgspec.structs.replace(state, reading=reading), added)
        self._journal.lines = added.number
        failpoint("decision.2")

    def _look(self, state: RolloutState) -> None:
        now = self.clock()
        look = self.reader.look(state)
        failed = failures(self.replicas.failures(), state.candidate.digest)
        evidence = (*look.evidence, *failed)
        decided, _ = step(state, evidence, now)
        was = state.reading
        if decided == state and (look.reading.pending, look.reading.truth) == (was.pending, was.truth):
            return
        self.keep(msgspec.structs.replace(decided, reading=look.reading), Looked(at=now, seen=evidence))

    def _persist(self, state: RolloutState, line: JournalLine | None = None) -> None:
        self._revision = self.store.put_rollout(
            state.id, self.spec.name, self._revision, state.active, as_dict(state), line
        )
        self.state = state

    def settle(self) -> None:
        """Carry out what was decided, oldest first; a rollout that has nothing left is put aside.

        1. Write the intent, the candidate's lease with it; an alarm is raised instead.
        2. Wait until every live replica has acknowledged it.
        3. Note how long that took.
        4. Set the registry's aliases.
        5. Append to the ledger, once.
        6. Take the action from the outbox.
        """
        while self.state is not None and self.state.outbox:
            action, state = self.state.outbox[0], self.state
            # Step 1
            if action.kind == "alarm":
                self._alarm(state, action)
            revision = self._route(state)
            failpoint("action.1")
            # Step 2
            lease = None if state.ended else state.policy.lease_seconds
            reached = self.replicas.await_applied(revision, lease=lease)
            if not reached.ok:
                log.warning("%s: %s did not confirm revision %d", self.spec.name, ", ".join(reached.waiting), revision)
            failpoint("action.2")
            # Step 3
            if self._noted != (state.id, action.number):  # the first time, where a later step has to be tried again
                self._persist(state := applied(state, action, reached.at))
                self._noted = (state.id, action.number)
            failpoint("action.3")
            # Step 4
            refused = self._try_alias(state, action)
            failpoint("action.4")
            # Step 5
            self._record_action(state, action, reached.waiting, refused)
            failpoint("action.5")
            # Step 6
            self._persist(settled(state, action))
            failpoint("action.6")
        if self.state is not None and not self.state.active:
            if self._journal is not None:
                self._journal.retire()
            self.state, self._journal = None, None
            self.reader.end()

    def _route(self, state: RolloutState) -> int:
        return self.replicas.change(lambda intent: desired(state, intent, self.clock()))

    def _alarm(self, state: RolloutState, action: Action) -> None:
        """Raise an alarm, once."""
        key = f"{state.id}/{action.number}"
        if not any(a.detail.get("key") == key for a in self.store.alarms(self.spec.name, since=action.at)):
            detail = {"rollout": state.id, "reason": action.reason, "key": key}
            self.store.raise_alarm(self.spec.name, "sample_ratio", action.request, detail)

    def _try_alias(self, state: RolloutState, action: Action) -> str | None:
        """Set the aliases; returns why the registry refused (a version was deleted in it, say): the routing stands."""
        try:
            self._alias(state, action)
        except (ReplacedError, UnavailableError, *DATABASE_AWAY):
            raise
        except Exception as error:
            log.exception("%s: the registry's aliases do not follow rollout %s", self.spec.name, state.id)
            return f"{type(error).__name__}: {error}"
        return None

    def _alias(self, state: RolloutState, action: Action) -> None:
        if action.kind == "alarm":
            return
        if action.kind == "route":
            if action.verb in ("retry", "undo") and self.registry.named(self.spec.name, "candidate") is None:
                self.registry.set_alias(self.spec.name, "candidate", state.candidate.version)
            return
        if action.kind == "restore":
            self.registry.set_alias(self.spec.name, "champion", state.champion.version)
            failpoint("alias.1")
            self.registry.set_alias(self.spec.name, "previous", state.candidate.version)
        if action.kind == "promote":
            self.registry.set_alias(self.spec.name, "previous", state.champion.version)
            failpoint("alias.1")
            self.registry.set_alias(self.spec.name, "champion", state.candidate.version)
            failpoint("alias.2")
        self.drop_candidate(state.candidate.version)

    def drop_candidate(self, version: str) -> None:
        """Take the alias ``candidate`` from ``version``; another version keeps it."""
        if self.registry.named(self.spec.name, "candidate") == version:
            self.registry.drop_alias(self.spec.name, "candidate")

    def _record_action(
        self, state: RolloutState, action: Action, waiting: tuple[str, ...], refused: str | None
    ) -> None:
        detail: dict[str, Any] = {
            "rollout": state.id,
            "version": state.candidate.version,
            "champion": state.champion.version,
            "reason": action.reason,
            "weight": state.weight,
            "forced": state.forced,
            "requests": state.requests,
            "candidate_requests": state.candidate_requests,
            "unconfirmed": list(waiting),
        }
        if action.kind not in ("route", "alarm") and self._journal is not None:
            detail |= {"journal": self._journal.uri, "journal_sha256": self._journal.publish()}
        if refused is not None:
            detail["registry"] = refused
        if action.kind in ("take_back", "restore"):
            detail["rollback_seconds"] = state.rollback_seconds
        self.record(action.actor, f"rollout {action.verb}", detail, key=f"{state.id}/{action.number}")

    def record(self, actor: str, action: str, detail: dict[str, Any], *, key: str) -> None:
        """Append to the ledger, unless an entry of this workload with the same ``key`` is there."""
        if not any(e.detail.get("key") == key for e in entries(self.store, self.spec.name)):
            append(self.store, self.spec.name, actor, action, {**detail, "key": key})

    def last(self) -> RolloutRow | None:
        """The last rollout of the workload, under way or not."""
        rows = self.store.rollouts(self.spec.name)
        return rows[-1] if rows else None

    def started(self, rollout_id: str) -> bool:
        """Whether a rollout with this id was ever begun."""
        return any(row.id == rollout_id for row in self.store.rollouts(self.spec.name))

    def tried(self, version: str) -> bool:
        """Whether a version was ever a rollout's candidate."""
        return any(r.state["candidate"]["version"] == version for r in self.store.rollouts(self.spec.name))

    def served(self, version: str) -> bool:
        """Whether a version was champion before or after a rollout."""
        return any(
            version == r.state["champion"]["version"]
            or (version == r.state["candidate"]["version"] and r.state["phase"] == "promoted")
            for r in self.store.rollouts(self.spec.name)
        )

    def model(self, alias_or_version: str) -> ModelRef:
        """The registered version.

        Raises:
            NotFoundError: there is none.
            ForeignVersionError: it is not ours.

        """
        found = self.registry.get(self.spec.name, alias_or_version)
        if found is None:
            raise NotFoundError("model version", alias_or_version, "list them with 'cohobate status'")
        return found
