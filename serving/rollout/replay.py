"""Every decision can be recomputed: the journal of a rollout, and its replay, under the same or another policy.

A journal is JSON lines in the order in which the state machine saw them: how the rollout began, evidence with the
time at which it was looked at, and orders. The same lines give the same decisions, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from components.contracts.errors import ConfigError, TransitionError
from components.contracts.spec import RolloutPolicy
from components.control.intent import ModelRef
from serving.rollout.evidence import Observation
from serving.rollout.state import Action, RolloutState, Verb
from serving.rollout.step import begin, command, step


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag="begin", tag_field="kind"):
    """How a rollout began."""

    at: float
    id: str
    workload: str
    candidate: ModelRef
    champion: ModelRef
    policy: RolloutPolicy
    audit_share: float
    forced: bool
    skip_shadow: bool
    reason: str
    actor: str

    def state(self, policy: RolloutPolicy | None = None) -> tuple[RolloutState, tuple[Action, ...]]:
        """The rollout's first state and actions, under its own policy or another."""
        return begin(
            self.id,
            self.workload,
            self.candidate,
            self.champion,
            policy or self.policy,
            self.at,
            audit_share=self.audit_share,
            forced=self.forced,
            skip_shadow=self.skip_shadow,
            reason=self.reason,
            actor=self.actor,
        )


class Looked(msgspec.Struct, frozen=True, kw_only=True, tag="evidence", tag_field="kind"):
    """One look at the evidence."""

    at: float
    seen: tuple[Observation, ...] = ()


class Ordered(msgspec.Struct, frozen=True, kw_only=True, tag="order", tag_field="kind"):
    """A person's order that was applied."""

    at: float
    order: str
    verb: Verb
    actor: str
    reason: str


Line = Begun | Looked | Ordered

_line = msgspec.json.Decoder(Line)


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """The decisions that a journal leads to, and the state after it; ``refused``: orders that were not legal."""

    decisions: tuple[Action, ...]
    refused: tuple[str, ...]
    phase: str
    reason: str
    requests: int
    candidate_requests: int


def encode_line(line: Line) -> bytes:
    """A journal line, without its newline."""
    return msgspec.json.encode(line)


def replay(lines: Iterable[bytes], policy: RolloutPolicy | None = None) -> Replay:
    """Recompute the decisions from a journal; with ``policy``, those that it would have made on this evidence.

    Raises:
        ConfigError: the journal does not start with a beginning, or a line is not one of a journal.

    """
    state: RolloutState | None = None
    decisions: list[Action] = []
    refused: list[str] = []
    for number, text in enumerate(filter(bytes.strip, lines), start=1):
        line = _decode(text, number)
        if isinstance(line, Begun):
            state, actions = line.state(policy)
        elif state is None:
            raise ConfigError("journal", f"line {number}", "must start with how the rollout began")
        elif isinstance(line, Looked):
            state, actions = step(state, line.seen, line.at)
        else:
            state, actions = _order(state, line, refused)
        decisions.extend(actions)
    if state is None:
        raise ConfigError("journal", "empty", "must start with how the rollout began")
    return Replay(
        decisions=tuple(decisions),
        refused=tuple(refused),
        phase=state.phase,
        reason=state.reason,
        requests=state.requests,
        candidate_requests=state.candidate_requests,
    )


def _order(state: RolloutState, line: Ordered, refused: list[str]) -> tuple[RolloutState, tuple[Action, ...]]:
    try:
        return command(state, line.verb, line.at, order=line.order, actor=line.actor, reason=line.reason)
    except TransitionError as error:  # legal when it was given; not in the course that another policy takes
        refused.append(str(error))
        return state, ()


def _decode(text: bytes, number: int) -> Line:
    try:
        line: Line = _line.decode(text)
        return line
    except msgspec.MsgspecError as error:
        raise ConfigError("journal", f"line {number}", f"must be a line of a rollout's journal: {error}") from error
