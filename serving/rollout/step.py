"""The decisions of a rollout, pure: ``(state, evidence, now) -> (state, actions)``.

A step ends when it has the evidence that the policy asks for: requests, the candidate's own answers, and its share of
them audited against the teacher. What is missing never counts as good: a rollout that waits longer than its patience
pauses at the weight it has, and asks. The guards go on in a pause.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from components.contracts.errors import TransitionError
from components.contracts.spec import RolloutPolicy, Step
from components.control.intent import ModelRef
from serving.rollout import guards as g
from serving.rollout.evidence import Answered, Audited, Failed, Observation
from serving.rollout.state import LEGAL, Action, Phase, RolloutState, StepRecord, Verb

CONTROLLER = "controller"
"""The actor of decisions that no person ordered."""

Decided = tuple[RolloutState, tuple[Action, ...]]


def begin(
    rollout_id: str,
    workload: str,
    candidate: ModelRef,
    champion: ModelRef,
    policy: RolloutPolicy,
    now: float,
    *,
    audit_share: float,
    forced: bool = False,
    skip_shadow: bool = False,
    reason: str = "",
    actor: str = CONTROLLER,
) -> Decided:
    """A new rollout at its first step; with ``skip_shadow`` at the first step with a weight (if there is one)."""
    first = 0
    if skip_shadow:
        first = next((i for i, s in enumerate(policy.steps) if s.weight > 0), 0)
    state = RolloutState(
        id=rollout_id,
        workload=workload,
        candidate=candidate,
        champion=champion,
        policy=policy,
        audit_share=audit_share,
        created_at=now,
        guards=g.guards_of(policy),
        phase=_phase(policy.steps[first]),
        step=first,
        entered_at=now,
        steps=(_record(policy.steps[first].weight, now),),
        forced=forced,
        reason=reason,
    )
    return _act(state, "route", "start", now, reason, actor)


def step(state: RolloutState, evidence: Sequence[Observation], now: float) -> Decided:
    """Take in evidence and decide. A rollout that has ended stays as it is."""
    if state.ended:
        return state, ()
    objection = None
    for observation in evidence:
        state = _seen(state, observation, counts=objection is None)
        objection = objection or _objection(state, observation)
    if evidence:
        state = _timed(state, now)
    if objection is not None:
        return _end(state, "rolled_back", now, objection, CONTROLLER)
    if state.phase == "paused":
        return state, ()
    missing = _missing(state)
    if not missing:
        return _advance(state, now)
    if now - state.entered_at > state.policy.patience_seconds:
        reason = (
            f"no decision after {state.policy.patience_seconds:g} s: {', '.join(missing)}; resume, promote or abort"
        )
        return _act(_change(state, phase="paused", reason=reason), "route", "pause", now, reason, CONTROLLER)
    return state, ()


def command(state: RolloutState, verb: Verb, now: float, *, order: str, actor: str, reason: str) -> Decided:
    """Apply a person's order; the same ``order`` again changes nothing.

    Raises:
        TransitionError: the phase does not allow ``verb``.

    """
    if order in state.orders:
        return state, ()
    legal = LEGAL.get(state.phase, ())
    if verb not in legal:
        raise TransitionError(verb, f"rollout {state.id} is {state.phase.replace('_', ' ')}", legal)
    state = _change(state, orders=(*state.orders, order))
    if verb == "pause":
        return _act(_change(state, phase="paused", reason=reason), "route", verb, now, reason, actor)
    if verb == "resume":
        phase = _phase(state.policy.steps[state.step])
        return _act(_change(state, phase=phase, entered_at=now, reason=reason), "route", verb, now, reason, actor)
    if verb == "promote":
        return _end(state, "promoted", now, reason, actor)
    return _end(state, "aborted" if verb == "abort" else "rolled_back", now, reason, actor)


def applied(state: RolloutState, action: Action, at: float) -> RolloutState:
    """Note when the last live replica had applied an action."""
    took = max(0.0, at - action.at)
    steps = (*state.steps[:-1], msgspec.structs.replace(state.steps[-1], applied_seconds=took))
    if action.kind == "take_back":
        return _change(state, rollback_seconds=took)
    return _change(state, steps=steps)


def settled(state: RolloutState, action: Action) -> RolloutState:
    """Take an action that was carried out from the outbox."""
    return _change(state, outbox=tuple(a for a in state.outbox if a.number != action.number))


def _seen(state: RolloutState, observation: Observation, counts: bool) -> RolloutState:
    """The state after one observation; once a guard objects (``counts`` false) only requests are counted on."""
    current = state.steps[-1]
    if isinstance(observation, Answered):
        asked = observation.ok is not None
        if asked and counts:
            latency_ms = observation.latency_ms or 0.0
            state = _change(state, guards=g.answered(state.guards, state.policy, bool(observation.ok), latency_ms))
        current = msgspec.structs.replace(current, requests=current.requests + 1, candidate=current.candidate + asked)
        served = observation.arm == "candidate"
        state = _change(state, requests=state.requests + 1, candidate_requests=state.candidate_requests + served)
    elif isinstance(observation, Audited) and counts:
        guards = g.audited(state.guards, state.policy, observation.champion, observation.candidate)
        current = msgspec.structs.replace(current, audited=current.audited + (observation.candidate is not None))
        state = _change(state, guards=guards)
    return _change(state, steps=(*state.steps[:-1], current))


def _objection(state: RolloutState, observation: Observation) -> str | None:
    if isinstance(observation, Failed):
        return f"replica {observation.replica} cannot load it: {observation.error}"
    return g.tripped(state.guards, state.policy)


def _missing(state: RolloutState) -> list[str]:
    """What the step still needs, in words; empty when it has all its evidence."""
    wanted, current = state.policy.steps[state.step], state.steps[-1]
    audits = math.ceil(state.audit_share * wanted.min_candidate)
    have = (
        ("requests", current.requests, wanted.min_requests),
        ("answers of the candidate", current.candidate, wanted.min_candidate),
        ("of them audited against the teacher", current.audited, audits),
    )
    return [f"{n} of {least} {what}" for what, n, least in have if n < least]


def _advance(state: RolloutState, now: float) -> Decided:
    state = _timed(state, now)
    following = state.step + 1
    if following == len(state.policy.steps):
        return _end(state, "promoted", now, "all steps have their evidence and no guard objects", CONTROLLER)
    weight = state.policy.steps[following].weight
    state = _change(
        state,
        phase=_phase(state.policy.steps[following]),
        step=following,
        entered_at=now,
        steps=(*state.steps, _record(weight, now)),
    )
    return _act(state, "route", "step", now, f"to {_name(weight)}", CONTROLLER)


def _end(state: RolloutState, phase: Phase, now: float, reason: str, actor: str) -> Decided:
    state = _change(_timed(state, now), phase=phase, outcome=phase, reason=reason, ended_at=now)
    if phase == "promoted":
        state = _change(state, steps=(*state.steps, _record(1.0, now)))
        return _act(state, "promote", "promote", now, reason, actor)
    return _act(state, "take_back", "abort" if phase == "aborted" else "rollback", now, reason, actor)


def _act(state: RolloutState, kind: Any, verb: str, now: float, reason: str, actor: str) -> Decided:
    action = Action(number=state.actions + 1, kind=kind, verb=verb, at=now, reason=reason, actor=actor)
    return _change(state, actions=action.number, outbox=(*state.outbox, action)), (action,)


def _timed(state: RolloutState, now: float) -> RolloutState:
    last = state.steps[-1]
    timed = msgspec.structs.replace(last, seconds=max(0.0, now - last.started_at))
    return _change(state, steps=(*state.steps[:-1], timed))


def _change(state: RolloutState, **fields: Any) -> RolloutState:
    changed: RolloutState = msgspec.structs.replace(state, **fields)
    return changed


def _record(weight: float, now: float) -> StepRecord:
    return StepRecord(name=_name(weight), weight=weight, started_at=now)


def _name(weight: float) -> str:
    return f"{weight * 100:g} %" if weight > 0 else "shadow"


def _phase(step: Step) -> Phase:
    return "canary" if step.weight > 0 else "shadow"
