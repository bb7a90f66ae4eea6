"""The decisions of a rollout, pure: ``(state, evidence, now) -> (state, actions)``.

A step ends when it has the evidence that the policy asks for: requests, the candidate's own answers, and its share of
them audited against the teacher; where the policy says so, sooner or only once the candidate is shown to be within its
limits. What is missing never counts as good: a rollout that waits longer than its patience is inconclusive, and by
policy waits on, pauses at the weight it has and asks, or is aborted. The guards go on in a pause.
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
from serving.rollout.comparison import Tally
from serving.rollout.evidence import Answered, Audited, Failed, Observation
from serving.rollout.state import Action, Phase, RolloutState, StepRecord, Verb

CONTROLLER = "controller"
"""The actor of decisions that no person ordered."""

LEAST_RATE = 1e-6
"""Stands for a limit of zero where a share is held against it."""

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
    objection: str | None = None
    actions: tuple[Action, ...] = ()
    for observation in evidence:
        state = _seen(state, observation, counts=objection is None)
        if objection is None and (objection := _objection(state, observation)) is not None:
            state, actions = _end(_timed(state, now), "rolled_back", now, objection, CONTROLLER)
    if objection is not None:
        return state, actions
    if evidence:
        state = _timed(state, now)
    state, actions = _alarm(state, now)
    if state.phase == "paused":
        return state, actions
    state, more = _proceed(state, now)
    return state, (*actions, *more)


def _proceed(state: RolloutState, now: float) -> Decided:
    """The next step where this one has what it needs; else what the policy says once patience is over."""
    missing = needs(state)
    if not missing:
        return _advance(state, now, "", CONTROLLER)
    patience, does = state.policy.patience_seconds, state.policy.on_inconclusive
    if now - state.entered_at <= patience:
        return state, ()
    reason = f"inconclusive: no decision after {patience:g} s: {', '.join(missing)}{_champion_fails(state)}"
    if does == "abort":
        return _end(state, "aborted", now, reason, CONTROLLER)
    if does == "wait":
        return _change(state, reason=f"{reason}; waits on"), ()
    reason = f"{reason}; resume, promote or abort"
    return _act(_change(state, phase="paused", reason=reason), "route", "pause", now, reason, CONTROLLER)


def _champion_fails(state: RolloutState) -> str:
    """In words that the champion is what keeps the rollout, where it is shown to; else nothing.

    A pair of which one failed is not audited, so that a champion that fails starves its candidate of audits.
    """
    errors, most = state.guards.tests["errors"], state.policy.max_error_rate
    if not _exceeds(errors.champion, most) or _exceeds(errors.candidate, most):
        return ""
    return (
        f"; the champion, version {state.champion.version}, fails: {errors.champion} requests failed with it and "
        f"{errors.candidate} with the candidate: make the candidate champion by 'cohobate rollout promote --full', "
        "or another version by 'cohobate rollout rollback --to'"
    )


def _exceeds(tally: Tally, most: float) -> bool:
    """Whether a share is shown to be more than ``most`` at 5 %: H. Chernoff's bound of a binomial's tail (1952)."""
    if not tally.n or tally.bad <= most * tally.n:
        return False
    share, allowed = tally.bad / tally.n, max(most, LEAST_RATE)
    apart = share * math.log(share / allowed)
    if share < 1.0:
        apart += (1.0 - share) * math.log((1.0 - share) / (1.0 - allowed))
    return tally.n * apart >= -math.log(0.05)


def _alarm(state: RolloutState, now: float) -> Decided:
    """Report a sample-ratio mismatch, once a rollout."""
    found = None if state.alarmed else g.mismatch(state.guards, state.policy)
    if found is None:
        return state, ()
    return _act(_change(state, alarmed=True), "alarm", "alarm", now, found, CONTROLLER)


def command(state: RolloutState, verb: Verb, now: float, *, order: str, actor: str, reason: str) -> Decided:
    """Apply a person's order; the same ``order`` again changes nothing.

    Raises:
        TransitionError: the phase does not allow ``verb``.

    """
    if order in state.orders:
        return state, ()
    if verb not in state.legal:
        raise TransitionError(verb, f"rollout {state.id} is {state.phase.replace('_', ' ')}", state.legal)
    state = _change(state, orders=(*state.orders, order))
    if verb == "pause":
        return _act(_change(state, phase="paused", reason=reason), "route", verb, now, reason, actor)
    if verb == "resume":
        phase = _phase(state.policy.steps[state.step])
        return _act(_change(state, phase=phase, entered_at=now, reason=reason), "route", verb, now, reason, actor)
    if verb == "promote":
        return _advance(state, now, reason, actor)
    if verb == "promote-full":
        return _end(state, "promoted", now, reason, actor)
    if verb == "retry":
        return _retry(state, now, reason, actor)
    if verb == "undo":
        return _undo(state, now, reason, actor)
    return _end(state, "aborted" if verb == "abort" else "rolled_back", now, reason, actor)


def _retry(state: RolloutState, now: float, reason: str, actor: str) -> Decided:
    """Begin anew at the first step, with guards that have seen nothing."""
    state = _change(
        _reopen(state, 0, now),
        guards=g.guards_of(state.policy),
        phase=_phase(state.policy.steps[0]),
        alarmed=False,
        reason=reason,
    )
    return _act(state, "route", "retry", now, reason, actor)


def _undo(state: RolloutState, now: float, reason: str, actor: str) -> Decided:
    """Take the last change back: a promotion, an abort, or a step."""
    if state.phase == "promoted":
        state = _change(state, phase="rolled_back", outcome="rolled_back", reason=reason, ended_at=now, restored=True)
        return _act(state, "restore", "undo", now, reason, actor)
    index = state.step if state.ended else state.step - 1
    state = _change(_reopen(_timed(state, now), index, now), phase="paused", reason=reason)
    return _act(state, "route", "undo", now, reason, actor)


def _reopen(state: RolloutState, index: int, now: float) -> RolloutState:
    """The rollout at a step of its policy, with what that step needs still to come."""
    return _change(
        state,
        step=index,
        entered_at=now,
        steps=(*state.steps, _record(state.policy.steps[index].weight, now)),
        guards=g.anew(state.guards),
        outcome=None,
        ended_at=None,
        rollback_seconds=None,
        restored=False,
    )


def applied(state: RolloutState, action: Action, at: float) -> RolloutState:
    """Note when the last live replica had applied an action."""
    took = max(0.0, at - action.at)
    if action.kind == "alarm":
        return state
    steps = (*state.steps[:-1], msgspec.structs.replace(state.steps[-1], applied_seconds=took))
    if action.kind in ("take_back", "restore"):
        return _change(state, rollback_seconds=took)
    return _change(state, steps=steps)


def settled(state: RolloutState, action: Action) -> RolloutState:
    """Take an action that was carried out from the outbox."""
    return _change(state, outbox=tuple(a for a in state.outbox if a.number != action.number))


def _seen(state: RolloutState, observation: Observation, counts: bool) -> RolloutState:
    """The state after one observation; once a guard objects (``counts`` false) only requests are counted on."""
    current = state.steps[-1]
    if isinstance(observation, Answered):
        asked = observation.candidate is not None and (state.weight == 0.0 or observation.given_to == "candidate")
        if counts:
            state = _change(state, guards=g.answered(state.guards, state.policy, observation))
        current = msgspec.structs.replace(current, requests=current.requests + 1, candidate=current.candidate + asked)
        served = observation.arm == "candidate"
        state = _change(state, requests=state.requests + 1, candidate_requests=state.candidate_requests + served)
    elif isinstance(observation, Audited) and counts:
        guards = g.audited(state.guards, state.policy, observation)
        audits = observation.by == "teacher" and observation.candidate is not None
        current = msgspec.structs.replace(current, audited=current.audited + audits)
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
    missing = [f"{n} of {least} {what}" for what, n, least in have if n < least]
    floor, own = state.policy.min_agreement, state.guards.candidate
    if floor is not None and not missing and own.bad > (1.0 - floor) * own.n:
        missing.append(f"it disagrees with the teacher on {own}, and must agree on {floor:.3g}")
    return missing


def needs(state: RolloutState) -> list[str]:
    """What the step still needs before the next one, by the policy's way to advance; empty when it has it."""
    missing = _missing(state)
    if state.policy.advance == "evidence" or (state.policy.advance == "early" and not missing):
        return missing
    open_ = [f"{what} not shown" for what in g.shown(state.guards, state.policy, state.audit_share > 0.0)]
    if state.policy.advance == "early":
        return [*missing, *open_] if open_ else []
    return [*missing, *open_]


def _advance(state: RolloutState, now: float, reason: str, actor: str) -> Decided:
    state = _timed(state, now)
    following = state.step + 1
    if following == len(state.policy.steps):
        return _end(state, "promoted", now, reason or "all steps have their evidence and no guard objects", actor)
    weight = state.policy.steps[following].weight
    state = _change(
        _reopen(state, following, now),
        phase=_phase(state.policy.steps[following]),
        reason=reason or state.reason,
    )
    told = f"to {_name(weight)}: {reason}" if reason else f"to {_name(weight)}"
    return _act(state, "route", "step", now, told, actor)


def _end(state: RolloutState, phase: Phase, now: float, reason: str, actor: str) -> Decided:
    state = _change(_timed(state, now), phase=phase, outcome=phase, reason=reason, ended_at=now)
    if phase == "promoted":
        state = _change(state, steps=(*state.steps, _record(1.0, now)))
        return _act(state, "promote", "promote", now, reason, actor)
    return _act(state, "take_back", "abort" if phase == "aborted" else "rollback", now, reason, actor)


def _act(state: RolloutState, kind: Any, verb: str, now: float, reason: str, actor: str) -> Decided:
    action = Action(
        number=state.actions + 1, kind=kind, verb=verb, at=now, reason=reason, actor=actor, request=state.requests
    )  # fmt: skip
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
