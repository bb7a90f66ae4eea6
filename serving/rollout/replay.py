"""Every decision can be recomputed: a rollout's journal, or evidence that somebody made, goes through the same code.

**A journal** is JSON lines in the order in which the state machine saw them (``kind``: ``begin``, ``evidence``,
``order``): how the rollout began, evidence with the time at which it was looked at, and orders. The same lines give the
same decisions, byte for byte.

**Evidence** is JSON lines without a ``kind``, one object for each request, in the order of ``time``. It needs a policy.
Lines of kind ``order`` may stand between.

==================  =====================================================================================
``time``            when it was answered (Unix seconds, or seconds from any start)
``arm``             who served it: ``champion`` or ``candidate``
``ok``              whether that student answered (false: it failed)
``latency_ms``      what that took
``label``           its label; a number as text for a regression
``confidence``      its confidence, in [0, 1]
``entropy``         its entropy, in nats
``other``           a pair: what the other student, unserved, made of the same input: an object of ``ok``,
                    ``latency_ms``, ``label``, ``confidence``, ``entropy``
``turn``            the arm that the split gave it to, where that is not ``arm``: ``candidate`` where that failed (then
                    ``other`` says how) and the champion answered in its place
``teacher``         the teacher's label, where it was audited
``truth``           the true label, where it is known
``slice``           the part of the inputs that it belongs to; without it, the class that the teacher says
``weight``          the candidate's share of requests at that time, 0 in shadow; without it, that of the step
                    that the replay is in, as if the traffic had been split by the replayed policy
``repeat``          true when the key had a request before in this rollout (it does not count for the split)
``id``              the request's id
==================  =====================================================================================

``time``, ``arm``, ``ok`` and ``latency_ms`` are required; labels are compared for equality. A pair in shadow, and one
request of the canary that was not audited::

    {"time": 1.0, "arm": "champion", "ok": true, "latency_ms": 1.9, "label": "a", "confidence": 0.9,
     "other": {"ok": true, "latency_ms": 2.2, "label": "b", "confidence": 0.6}, "teacher": "a"}
    {"time": 2.0, "arm": "candidate", "ok": true, "latency_ms": 2.0, "label": "a", "weight": 0.05}
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

from components.contracts.errors import ConfigError, TransitionError
from components.contracts.records import Arm
from components.contracts.spec import RolloutPolicy, check_steps
from components.control.intent import ModelRef
from serving.rollout.evidence import Answered, Audited, Observation, Reply
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


class Request(Reply, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line of evidence: a request and what is known of it; the fields are the module's table."""

    time: float
    arm: Arm
    latency_ms: float
    other: Reply | None = None
    turn: Arm | None = None
    teacher: str | None = None
    truth: str | None = None
    slice: str | None = None
    weight: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None = None
    repeat: bool = False
    id: str = ""

    def observations(self, weight: float) -> tuple[Observation, ...]:
        """What a rollout sees of it; ``weight`` where it names none itself."""
        given = weight if self.weight is None else self.weight
        share = given if given < 1.0 else None  # at the last step there is no split to compare the arms by
        own = Reply(
            ok=self.ok,
            latency_ms=self.latency_ms,
            label=self.label,
            confidence=self.confidence,
            entropy=self.entropy,
        )
        champion, candidate = (own, self.other) if self.arm == "champion" else (self.other, own)
        answered = Answered(
            id=self.id, arm=self.arm, weight=share, champion=champion, candidate=candidate, repeat=self.repeat,
            turn=self.turn or self.arm,
        )  # fmt: skip
        if answered.judged == (None, None):
            return (answered,)
        told = ((self.teacher, "teacher"), (self.truth, "truth"))
        return (answered, *(_audit(self, share, champion, candidate, label, by) for label, by in told if label))


def _audit(line: Request, weight: float | None, champion: Any, candidate: Any, label: str, by: Any) -> Audited:
    wrong = [None if r is None or not r.ok else r.label != label for r in (champion, candidate)]
    return Audited(
        id=line.id, champion=wrong[0], candidate=wrong[1], weight=weight, slice=line.slice or label, by=by
    )  # fmt: skip


Line = Begun | Looked | Ordered

_line = msgspec.json.Decoder(Line)
_request = msgspec.json.Decoder(Request)


class _Kind(msgspec.Struct):
    kind: str | None = None


_kind = msgspec.json.Decoder(_Kind)


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


def decode_line(raw: bytes) -> Line:
    """The line that :func:`encode_line` made."""
    line: Line = _line.decode(raw)
    return line


def replay(lines: Iterable[bytes], policy: RolloutPolicy | None = None, audit_share: float = 0.1) -> Replay:
    """Recompute the decisions from a journal; with ``policy``, those that it would have made on this evidence.

    Evidence without a beginning is a rollout under ``policy`` that begins at its first line; ``audit_share`` of the
    candidate's answers have to be audited before it goes on. Each of its lines is looked at by itself.

    Raises:
        ConfigError: the journal does not start with a beginning, or a line is not one of a journal or of evidence.

    """
    state: RolloutState | None = None
    decisions: list[Action] = []
    refused: list[str] = []
    for number, text in enumerate(filter(bytes.strip, lines), start=1):
        line = _decode(text, number)
        actions: tuple[Action, ...] = ()
        if isinstance(line, Begun):
            state, actions = line.state(policy)
        elif isinstance(line, Request):
            if state is None:
                state, actions = _begun(line.time, policy, audit_share).state()
                decisions.extend(actions)
            state, actions = step(state, line.observations(state.weight), line.time)
        elif state is None:
            raise ConfigError("journal", f"line {number}", "must start with how the rollout began, or be evidence")
        elif isinstance(line, Looked):
            state, actions = step(state, line.seen, line.at)
        else:
            state, actions = _order(state, line, refused)
        decisions.extend(actions)
    if state is None:
        raise ConfigError("journal", "empty", "must start with how the rollout began, or be evidence")
    return Replay(
        decisions=tuple(decisions),
        refused=tuple(refused),
        phase=state.phase,
        reason=state.reason,
        requests=state.requests,
        candidate_requests=state.candidate_requests,
    )


def _begun(at: float, policy: RolloutPolicy | None, audit_share: float) -> Begun:
    """The beginning of a rollout that never was, for evidence that somebody made."""
    if policy is None:
        raise ConfigError("policy", None, "evidence that is no journal names none: give one")
    champion, candidate = (
        ModelRef(version=name, uri="", digest=name, snapshot="", teacher="") for name in ("champion", "candidate")
    )
    return Begun(
        at=at,
        id="replay",
        workload="replay",
        candidate=candidate,
        champion=champion,
        policy=policy,
        audit_share=audit_share,
        forced=False,
        skip_shadow=False,
        reason="replay of evidence",
        actor="replay",
    )


def policy_of(text: bytes, source: str) -> RolloutPolicy:
    """The rollout policy in YAML: its fields, or a spec with a section ``rollout``. ``source`` names it in errors.

    Raises:
        ConfigError: it is not one.

    """
    try:
        data = msgspec.yaml.decode(text)
        if isinstance(data, dict) and "rollout" in data:
            data = data["rollout"]
        policy = msgspec.convert(data or {}, RolloutPolicy)
    except msgspec.MsgspecError as error:
        raise ConfigError(source, "policy", f"must be a rollout policy: {error}") from error
    check_steps(policy)
    return policy


def _order(state: RolloutState, line: Ordered, refused: list[str]) -> tuple[RolloutState, tuple[Action, ...]]:
    try:
        return command(state, line.verb, line.at, order=line.order, actor=line.actor, reason=line.reason)
    except TransitionError as error:  # legal when it was given; not in the course that another policy takes
        refused.append(str(error))
        return state, ()


def _decode(text: bytes, number: int) -> Line | Request:
    try:
        kind = _kind.decode(text).kind
        line: Line | Request = _request.decode(text) if kind is None else _line.decode(text)
        return line
    except msgspec.MsgspecError as error:
        raise ConfigError("journal", f"line {number}", f"must be of a journal or of evidence: {error}") from error
