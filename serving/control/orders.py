"""What people, pipelines and the registry ask of a controller: starts, verbs on a rollout, and rollbacks.

An order may be delivered twice (a controller died before it could note the outcome); the second time changes nothing.
It may name the ``revision`` of the rollout that whoever gave it had seen (:attr:`RolloutState.revision`, the number of
decisions so far): when another decision came between, it is refused, so that nobody unknowingly undoes another's.

Whatever an order holds, it gets an outcome and the controller goes on. It stays open only while it cannot be decided:
another controller has taken over, the control database is away, or a service that it needs does not answer.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any, Protocol, cast, get_args

import msgspec

from components.contracts.errors import (
    ArtifactError,
    CohobateError,
    ConfigError,
    ForeignVersionError,
    NotFoundError,
    TransitionError,
    UnavailableError,
)
from components.contracts.failpoint import failpoint
from components.contracts.spec import Spec
from components.control.database import DATABASE_AWAY, StaleRevisionError
from components.control.intent import Intent, ModelRef
from components.control.store import ControlStore, rollout_of
from components.control.tables import OrderRow, RolloutRow
from components.registry.registry import Alias, Registry
from serving.control.replicas import Applied, ReplacedError, Replicas, UnconfirmedError
from serving.rollout.replay import Begun, Line, Ordered
from serving.rollout.state import RolloutState, Verb, from_dict
from serving.rollout.step import CONTROLLER, command

log = logging.getLogger(__name__)

REGISTRY_SECONDS = 0.5
"""How often the registry is asked for a new candidate, and a service that was away is asked again for an order."""

PLAN = "rollback_plan"
"""The gauge that keeps what an unfinished rollback goes back to: afterwards ``previous`` means another version."""


class Arguments(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of all verbs. An order's row is another process's: nothing is taken for what it should be.

    ``version``: of a start; None: the candidate. ``returns``: it was champion before, and its traffic has returned: all
    steps but the last it has behind it. ``to``: what a rollback makes champion. ``revision``: see above.
    """

    version: str | None = None
    forced: bool | None = None
    skip_shadow: bool | None = None
    returns: bool | None = None
    to: str | None = None
    revision: int | None = None


def _arguments(order: OrderRow) -> Arguments:
    """An order's arguments.

    Raises:
        ConfigError: one is of another type.

    """
    try:
        return msgspec.convert(order.args or {}, Arguments)
    except msgspec.ValidationError as error:
        raise ConfigError("args", order.args, f"{error}; text are version and to, a whole number is revision") from None


class Carrier(Protocol):
    """What orders need of the controller that carries them out (:mod:`serving.control.controller`)."""

    spec: Spec
    store: ControlStore
    registry: Registry
    replicas: Replicas
    state: RolloutState | None
    clock: Callable[[], float]
    trial: Callable[[ModelRef, str], None]
    vouch: Callable[[ModelRef, str | None], None]

    def settle(self) -> None:
        """Carry out what was decided."""

    def begin(self, begun: Begun) -> RolloutState:
        """Begin a rollout."""

    def reopen(self, state: RolloutState, revision: int) -> RolloutState:
        """Take up a rollout that had ended."""

    def keep(self, state: RolloutState, line: Line) -> None:
        """Make a decision durable."""

    def record(self, actor: str, action: str, detail: dict[str, Any], *, key: str) -> None:
        """Append to the ledger, once for each ``key``."""

    def last(self) -> RolloutRow | None:
        """The last rollout."""

    def started(self, rollout_id: str) -> bool:
        """Whether there ever was a rollout with this id."""

    def tried(self, version: str) -> bool:
        """Whether a version was ever a candidate."""

    def served(self, version: str) -> bool:
        """Whether a version was ever champion."""

    def model(self, alias_or_version: str) -> ModelRef:
        """The registered version."""

    def drop_candidate(self, version: str) -> None:
        """Take the alias ``candidate`` from a version."""


class Orders:
    """The orders of one controller."""

    def __init__(self, controller: Carrier) -> None:
        self._controller = controller
        self._asked_registry, self._unsure = float("-inf"), True
        self._waiting: dict[str, float] = {}
        """When an order that found a service away is carried out again."""
        self._told: set[str] = set()

    @property
    def waiting(self) -> bool:
        """Whether an order is to be carried out again, a service having been away."""
        return bool(self._waiting)

    def carry_out(self, order: OrderRow) -> None:
        """Carry out an order and note its outcome; a refusal goes into the ledger too.

        An exception that is none of ours is a fault, of this program or of a library: it is logged with its traceback
        and is the order's outcome, since the next controller would only meet it again.

        Raises:
            ReplacedError: another controller has taken over; the order stays for it.
            SQLAlchemyError: the control database is away; the order stays.

        """
        c = self._controller
        if c.clock() < self._waiting.get(order.id, float("-inf")):
            return
        try:
            outcome = self._do(order)
        except (ReplacedError, *DATABASE_AWAY):
            raise
        except UnavailableError as error:
            if order.id not in self._waiting:
                log.warning("%s: the order to %s waits: %s", c.spec.name, order.verb, error)
            self._waiting[order.id] = c.clock() + REGISTRY_SECONDS
            return
        except CohobateError as error:
            self._refuse(order, str(error))
            return
        except Exception as error:
            log.exception("%s: the order to %s failed", c.spec.name, order.verb)
            self._refuse(order, f"failed by {type(error).__name__}: {error}")
            return
        failpoint("order.1")
        c.store.finish_order(order.id, True, outcome)
        self._waiting.pop(order.id, None)
        failpoint("order.2")

    def _refuse(self, order: OrderRow, why: str) -> None:
        """Note that an order was not carried out, if it is still ours to say: a replaced controller fails in many ways.

        Raises:
            ReplacedError: another controller has taken over; the order stays for it.

        """
        c, why = self._controller, why.replace("\0", "\\0")  # PostgreSQL holds no null byte
        c.replicas.intent()
        detail = {"order": order.id, "why": why, "reason": order.reason}
        c.record(order.actor, f"refused {order.verb}", detail, key=f"order/{order.id}")
        c.store.finish_order(order.id, False, why)
        self._waiting.pop(order.id, None)

    def _do(self, order: OrderRow) -> str:
        _arguments(order)
        if order.verb == "start":
            return self._start_by_order(order)
        steered = self._applied_before(order.id)
        if steered is not None:
            self._controller.settle()
            return self._after(_phase(steered), order)
        if self._controller.state is not None and self._controller.state.ended:
            self._controller.settle()  # of a rollout that has ended nothing is left, or the order waits for that
        if order.verb == "rollback" and (self._controller.state is None or self._plan(order.id) is not None):
            return self._roll_back(order)
        if self._controller.state is None:
            return self._revive(order)
        return self._after(self._steer(self._controller.state, order), order)

    def _applied_before(self, order_id: str) -> dict[str, Any] | None:
        rows = self._controller.store.rollouts_naming(self._controller.spec.name, order_id)
        return next((r.state for r in reversed(rows) if order_id in r.state["orders"]), None)

    # Verbs on the rollout that is under way.

    def _steer(self, state: RolloutState, order: OrderRow) -> str:
        """Apply a verb to the rollout, and carry it out.

        Raises:
            StaleRevisionError: the order was given on an older state of the rollout.
            TransitionError: its phase does not allow the verb.

        """
        c, now = self._controller, self._controller.clock()
        if order.verb not in get_args(Verb):
            raise TransitionError(order.verb, _phase({"id": state.id, "phase": state.phase}), state.legal)
        verb = cast(Verb, order.verb)
        seen = _arguments(order).revision
        if seen is not None and seen != state.revision:
            raise StaleRevisionError(f"rollout {state.id}", seen, state.revision)
        decided, _ = command(state, verb, now, order=order.id, actor=order.actor, reason=order.reason)
        c.keep(decided, Ordered(at=now, order=order.id, verb=verb, actor=order.actor, reason=order.reason))
        c.settle()
        return _phase({"id": decided.id, "phase": decided.phase})

    def _revive(self, order: OrderRow) -> str:
        """Apply ``retry`` or ``undo`` to the last rollout, which has ended.

        Raises:
            TransitionError: there is none, its end does not allow the verb, or the champion has changed since.

        """
        c, row = self._controller, self._controller.last()
        if row is None:
            raise TransitionError(order.verb, "no rollout is under way", ("start", "rollback"))
        state = from_dict(row.state)
        if order.verb not in state.legal:
            why = f"no rollout is under way, and the last, {state.id}, is {state.phase.replace('_', ' ')}"
            raise TransitionError(order.verb, why, ("start", "rollback", *state.legal))
        serving = state.candidate if state.phase == "promoted" else state.champion
        champion = c.replicas.intent().champion
        if champion is None or champion.version != serving.version:
            now_serves = "none" if champion is None else champion.version
            why = f"version {now_serves} is champion, and rollout {state.id} left version {serving.version}"
            raise TransitionError(order.verb, why, ("start", "rollback"))
        if state.phase != "promoted":
            c.trial(state.candidate, c.spec.source)
        return self._steer(c.reopen(state, row.revision), order)

    def _after(self, outcome: str, order: OrderRow) -> str:
        """A ``rollback`` of a rollout that names a version goes on to make that one champion."""
        to = _arguments(order).to or "previous"
        champion = self._controller.replicas.intent().champion
        named = order.verb == "rollback" and to not in ("previous", "champion")
        if not named or (champion is not None and champion.version == to and self._plan(order.id) is None):
            return outcome
        return f"{outcome}; {self._roll_back(order)}"

    # Rollback after a promotion.

    def _plan(self, order_id: str) -> dict[str, Any] | None:
        gauge = self._controller.store.gauges(self._controller.spec.name).get(PLAN)
        return gauge.value if gauge is not None and gauge.value.get("order") == order_id else None

    def _roll_back(self, order: OrderRow) -> str:
        """Make another version champion.

        1. Settle what it goes back to, and keep that: a repetition must not go back and forth.
        2. Try the artifact in a process of its own, unless the replicas hold it already.
        3. Write the intent and wait for the replicas.
        4. Set the aliases.
        5. Append to the ledger.

        Raises:
            NotFoundError: there is nothing to go back to.
            TransitionError: it is champion already.
            UnconfirmedError: all was written, but a replica did not confirm in time.

        """
        c, began = self._controller, self._controller.clock()
        # Step 1
        target, left = self._goal(order)
        failpoint("rollback.1")
        # Step 2
        if target != c.replicas.intent().previous:
            c.trial(target, c.spec.source)
        # Step 3
        reached = self._crown(target, left)
        took = reached.at - began
        failpoint("rollback.3")
        # Step 4
        c.registry.set_alias(c.spec.name, "champion", target.version)
        failpoint("alias.1")
        c.registry.set_alias(c.spec.name, "previous", left.version)
        failpoint("rollback.4")
        # Step 5
        detail = {
            "order": order.id, "to": target.version, "from": left.version, "seconds": took, "reason": order.reason,
            "unconfirmed": list(reached.waiting),
        }  # fmt: skip
        c.record(order.actor, "rollback", detail, key=f"order/{order.id}")
        failpoint("rollback.5")
        _require(reached)
        return f"version {target.version} is champion again, {left.version} is previous ({took * 1000:.0f} ms)"

    def _goal(self, order: OrderRow) -> tuple[ModelRef, ModelRef]:
        """The version to go back to, and the one that is left; from the plan where this order has one."""
        c, plan = self._controller, self._plan(order.id)
        if plan is not None:
            return c.model(plan["to"]), c.model(plan["from"])
        intent, to = c.replicas.intent(), _arguments(order).to or "previous"
        target = intent.previous if to == "previous" else c.model(to)
        if target is None or intent.champion is None:
            raise NotFoundError("model version", to, "there is no previous champion to go back to")
        if target.version == intent.champion.version:
            raise TransitionError("rollback", f"version {target.version} is champion already", ())
        c.store.put_gauge(c.spec.name, PLAN, {"order": order.id, "to": target.version, "from": intent.champion.version})
        return target, intent.champion

    def _crown(self, model: ModelRef, previous: ModelRef | None) -> Applied:
        def change(intent: Intent) -> Intent:
            return msgspec.structs.replace(
                intent, champion=model, previous=previous, candidate=None, weight=0.0, shadow=False
            )

        revision = self._controller.replicas.change(change)
        failpoint("crown.1")
        return self._controller.replicas.await_applied(revision)

    # Starts.

    def _start_by_order(self, order: OrderRow) -> str:
        c = self._controller
        rollout_id = rollout_of(order.id)
        if c.started(rollout_id):
            return f"rollout {rollout_id} started"
        args = _arguments(order)
        return self._start(
            c.model(args.version or "candidate"),
            rollout_id,
            order.reason,
            order.actor,
            forced=bool(args.forced),
            skip_shadow=bool(args.skip_shadow),
            returns=bool(args.returns),
        )

    def take_candidate(self) -> None:
        """Start the rollout of a version that was registered as candidate; one that cannot start loses the alias.

        While the registry cannot be read there is none.
        """
        c, now = self._controller, self._controller.clock()
        if now - self._asked_registry < REGISTRY_SECONDS:
            return
        self._asked_registry = now
        if not (c.registry.changed() or self._unsure):
            return
        self._unsure = True
        try:
            self._adopt()
            version = c.registry.named(c.spec.name, "candidate")
            if version is not None:
                self._take(version)
            self._unsure = version is not None
        except (ReplacedError, StaleRevisionError, *DATABASE_AWAY):
            raise
        except Exception as error:
            self._tell_once("the registry gave no candidate: %s", error)

    def _take(self, version: str) -> None:
        c = self._controller
        try:
            if c.tried(version):
                raise TransitionError("start", f"version {version} had its rollout", ("rollout start",))
            self._start(c.model(version), f"rollout-{uuid.uuid4().hex[:12]}", "registered as candidate", CONTROLLER)
            return
        except (ReplacedError, UnavailableError, *DATABASE_AWAY):
            raise
        except CohobateError as error:
            why = str(error)
            log.warning("%s: version %s does not start: %s", c.spec.name, version, why)
        except Exception as error:
            why = f"failed by {type(error).__name__}: {error}"
            log.exception("%s: version %s does not start", c.spec.name, version)
        c.replicas.intent()  # a replaced controller refuses nothing
        detail = {"version": version, "why": why}
        c.record(CONTROLLER, "refused start", detail, key=f"start/{version}/{uuid.uuid4().hex[:8]}")
        c.drop_candidate(version)

    def _tell_once(self, message: str, error: Exception) -> None:
        """Log what would else be logged at every look; with its traceback where it is none of our own errors."""
        if str(error) not in self._told:
            self._told.add(str(error))
            foreign = None if isinstance(error, CohobateError) else error
            log.warning("%s: " + message, self._controller.spec.name, error, exc_info=foreign)

    def _adopt(self) -> None:
        """With no champion in the intent (a new control database) serve the registry's."""
        c = self._controller
        if c.replicas.intent().champion is not None:
            return
        champion = self._ours("champion")
        if champion is not None:
            self._crown(champion, self._ours("previous"))
            detail = {"version": champion.version, "reason": "the registry's champion, not known to the intent"}
            c.record(CONTROLLER, "adopted champion", detail, key=f"adopt/{c.replicas.epoch}")

    def _ours(self, alias: Alias) -> ModelRef | None:
        """The version that has an alias; one that is not ours cannot serve, and counts as none."""
        c = self._controller
        try:
            return c.registry.get(c.spec.name, alias)
        except ForeignVersionError as error:
            self._tell_once(f"the alias {alias} is of no use: %s", error)
            return None

    def _start(
        self, model: ModelRef, rollout_id: str, reason: str, actor: str, *, forced: bool = False,
        skip_shadow: bool = False, returns: bool = False,
    ) -> str:  # fmt: skip
        c = self._controller
        if c.state is not None:
            raise TransitionError("start", f"rollout {c.state.id} is {c.state.phase}", c.state.legal)
        verdict = c.registry.info(c.spec.name, model.version).verdict.get("decision")
        c.vouch(model, verdict)
        if verdict != "promote" and not forced:
            raise ArtifactError(model.uri, f"the gate's verdict on it is {verdict!r}; start it with force to override")
        champion = c.replicas.intent().champion
        crowned = champion is not None and champion.version == model.version
        if crowned and c.registry.named(c.spec.name, "champion") is not None:
            raise TransitionError("start", f"version {model.version} is champion already", ())
        if returns and not c.served(model.version):
            raise TransitionError("start", f"version {model.version} never served, and cannot return", ("start",))
        c.trial(model, c.spec.source)
        if champion is None or crowned:
            return self._first(model, reason, actor)
        if c.registry.named(c.spec.name, "candidate") is None:
            c.registry.set_alias(c.spec.name, "candidate", model.version)
        policy = c.spec.rollout
        begun = Begun(
            at=c.clock(),
            id=rollout_id,
            workload=c.spec.name,
            candidate=model,
            champion=champion,
            policy=msgspec.structs.replace(policy, steps=policy.steps[-1:]) if returns else policy,
            audit_share=c.spec.serve.audit_share,
            forced=forced,
            skip_shadow=skip_shadow,
            reason=reason,
            actor=actor,
        )
        c.begin(begun)
        return f"rollout {rollout_id} of version {model.version} started"

    def _first(self, model: ModelRef, reason: str, actor: str) -> str:
        """Make the first student champion: there is nothing to compare it with.

        Whoever finds the alias set takes all for done, so it comes last but one, and then the candidate's goes.
        """
        c = self._controller
        reached = self._crown(model, None)
        detail = {"version": model.version, "reason": reason, "unconfirmed": list(reached.waiting)}
        c.record(actor, "first champion", detail, key=f"first/{model.version}")
        failpoint("first.1")
        c.registry.set_alias(c.spec.name, "champion", model.version)
        failpoint("first.2")
        c.drop_candidate(model.version)
        return f"version {model.version} is the first champion"


def _phase(state: dict[str, Any]) -> str:
    return f"rollout {state['id']} is {state['phase'].replace('_', ' ')}"


def _require(reached: Applied) -> None:
    if not reached.ok:
        raise UnconfirmedError(reached.waiting)
