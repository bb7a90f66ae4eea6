"""The state of a rollout: all that its next decision depends on, and what was decided but not yet carried out."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from components.contracts.spec import RolloutPolicy
from components.control.intent import Intent, ModelRef
from serving.rollout.evidence import Pending
from serving.rollout.guards import Guards
from serving.rollout.truths import TruthCounts

Phase = Literal["shadow", "canary", "paused", "promoted", "rolled_back", "aborted"]
Verb = Literal["pause", "resume", "promote", "promote-full", "abort", "rollback", "retry", "undo"]

ENDED = frozenset({"promoted", "rolled_back", "aborted"})
"""Phases that a rollout leaves only by a person's order."""

LEGAL: dict[str, tuple[Verb, ...]] = {
    "shadow": ("pause", "promote", "promote-full", "abort", "rollback"),
    "canary": ("pause", "promote", "promote-full", "abort", "rollback", "undo"),
    "paused": ("resume", "promote", "promote-full", "abort", "rollback", "undo"),
    "promoted": ("undo",),
    "rolled_back": ("retry",),
    "aborted": ("retry", "undo"),
}
"""The verbs that each phase allows.

``pause`` holds the weight while the guards go on, ``resume`` goes on. ``promote`` takes the next step now,
``promote-full`` makes the candidate champion now. ``abort`` (a change of mind) and ``rollback`` (a fault) take it back.
``retry`` begins anew with the first step and fresh guards. ``undo`` takes the last change back: in a canary the step
before is taken again, after ``abort`` the step that was left, each paused for the person to look; after a promotion the
former champion serves again. In a pause of the first step there is nothing to undo.
"""


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One step as it went. ``seconds``: its length, or as of the last evidence while it lasts.

    ``requests``: answered by either arm; ``candidate``: given to the candidate (in shadow: asked of it);
    ``audited``: the candidate's audits, in pairs too;
    ``applied_seconds``: from the decision to the last live replica's acknowledgement.
    """

    name: str
    weight: float
    started_at: float
    seconds: float = 0.0
    requests: int = 0
    candidate: int = 0
    audited: int = 0
    applied_seconds: float | None = None


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """A decision to carry out; ``number`` counts a rollout's actions from 1, ``verb`` is the ledger's word for it.

    ``route``: the intent follows the step; ``promote``: the candidate becomes champion; ``take_back``: it goes;
    ``restore``: the former champion serves again after a promotion; ``alarm``: a person is told, the routing stays.
    ``request`` is the number of requests that the rollout had seen when it was decided.
    """

    number: int
    kind: Literal["route", "promote", "take_back", "restore", "alarm"]
    verb: str
    at: float
    reason: str
    actor: str
    request: int = 0


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How far the evidence was read: stream positions by ``topic:partition``, open audits, and journal lines.

    ``positions`` of the predictions, ``truths`` of the truths; ``since``: of the oldest prediction whose truth is
    waited for, ``given_up_until`` (Unix seconds): of the newest whose is no more. ``truth``: what became of truths.
    """

    positions: dict[str, int] = {}
    pending: tuple[Pending, ...] = ()
    journal: int = 0
    truths: dict[str, int] = {}
    since: dict[str, int] = {}
    given_up_until: float = 0.0
    truth: TruthCounts = TruthCounts()


class RolloutState(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout. Times are Unix seconds.

    ``step`` indexes ``policy.steps``; ``entered_at`` is when patience began to run; ``requests`` were answered by
    either arm, ``candidate_requests`` of them by the candidate; ``outbox`` is decided and not yet carried out;
    ``orders`` are the ids of the orders that were applied; ``alarmed``: a sample-ratio mismatch was reported;
    ``restored``: the candidate had been promoted, and that was undone.
    """

    id: str
    workload: str
    candidate: ModelRef
    champion: ModelRef
    policy: RolloutPolicy
    audit_share: float
    created_at: float
    guards: Guards
    phase: Phase
    step: int
    entered_at: float
    steps: tuple[StepRecord, ...]
    forced: bool = False
    reason: str = ""
    outcome: str | None = None
    requests: int = 0
    candidate_requests: int = 0
    rollback_seconds: float | None = None
    ended_at: float | None = None
    actions: int = 0
    outbox: tuple[Action, ...] = ()
    orders: tuple[str, ...] = ()
    alarmed: bool = False
    restored: bool = False
    reading: Reading = Reading()

    @property
    def revision(self) -> int:
        """Decisions so far: who orders on what they saw names it, and is refused when another decision came between.

        Evidence alone does not change it.
        """
        return self.actions

    @property
    def legal(self) -> tuple[Verb, ...]:
        """The verbs that the rollout allows now."""
        verbs = LEGAL[self.phase]
        return tuple(v for v in verbs if v != "undo" or self.ended or self.step > 0)

    @property
    def ended(self) -> bool:
        """Whether the last decision was made."""
        return self.phase in ENDED

    @property
    def active(self) -> bool:
        """Whether something is left to decide or to carry out."""
        return not self.ended or bool(self.outbox)

    @property
    def weight(self) -> float:
        """The candidate's share of requests as a candidate, in [0, 1)."""
        return 0.0 if self.ended else self.policy.steps[self.step].weight

    def weight_of(self, time: float) -> float | None:
        """The candidate's share when a request of this ``time`` was answered; None where a change was on its way."""
        if self.ended:
            return None
        current = next((s for s in reversed(self.steps) if s.started_at <= time), None)
        if current is None or current.applied_seconds is None or time < current.started_at + current.applied_seconds:
            return None
        return current.weight if current.weight < 1.0 else None

    @property
    def shadow(self) -> bool:
        """Whether the candidate answers beside the champion."""
        return not self.ended and self.weight == 0.0


def desired(state: RolloutState, intent: Intent, now: float) -> Intent:
    """The intent that ``state`` asks for, starting from the one in force."""
    change = msgspec.structs.replace
    if state.phase == "promoted":
        return change(
            intent, champion=state.candidate, previous=state.champion, candidate=None, weight=0.0, shadow=False
        )
    if state.restored:
        return change(
            intent, champion=state.champion, previous=state.candidate, candidate=None, weight=0.0, shadow=False
        )
    if state.ended:
        return change(intent, champion=state.champion, candidate=None, weight=0.0, shadow=False)
    return change(
        intent,
        champion=state.champion,
        candidate=state.candidate,
        weight=state.weight,
        shadow=state.shadow,
        lease_until=now + state.policy.lease_seconds,
    )


def as_dict(state: RolloutState) -> dict[str, Any]:
    """Plain JSON data from which :func:`from_dict` makes an equal state."""
    data: dict[str, Any] = msgspec.to_builtins(state)
    return data


def from_dict(data: dict[str, Any]) -> RolloutState:
    """The state that :func:`as_dict` described."""
    return msgspec.convert(data, RolloutState)
