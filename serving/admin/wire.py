"""Bodies of the admin API, as pydantic models, and so its OpenAPI schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from components.control.order_client import REASON_CHARACTERS
from serving.rollout.state import Verb

VERBS: tuple[str, ...] = ("start", *get_args(Verb))
"""What may be ordered."""

Why = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=REASON_CHARACTERS, pattern=r"^[^\x00]*$"),
]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Problem(BaseModel):
    """Why a request was not carried out (RFC 9457). ``title`` is a stable code, ``detail`` is for people."""

    model_config = ConfigDict(extra="allow")

    title: str
    status: int
    detail: str
    revision: int | None = Field(default=None, description="The rollout's present revision, where another was given.")


class VerbBody(BaseModel):
    """An order. Members that its verb does not take are refused."""

    model_config = ConfigDict(extra="forbid")

    reason: Why = Field(description="Why; it goes into the ledger.")
    revision: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="Carry it out only at this revision of the rollout."
    )
    rollout: Name | None = Field(default=None, description="With a revision: and only if it is this rollout's.")
    wait_seconds: float = Field(default=20.0, ge=0, le=60, description="How long to wait for the outcome.")
    version: Name | None = Field(default=None, description="start: the registered version. Default: the candidate.")
    forced: bool | None = Field(default=None, description="start: against the gate's verdict; needs the role admin.")
    skip_shadow: bool | None = Field(default=None, description="start: begin at the first step with a weight.")
    to: Name | None = Field(default=None, description="rollback: alias or version that becomes champion.")

    def args(self) -> dict[str, Any]:
        """The order's own arguments, as given."""
        return {n: getattr(self, n) for n in ARGUMENTS if n in self.model_fields_set and getattr(self, n) is not None}


ARGUMENTS = {"version": "start", "forced": "start", "skip_shadow": "start", "to": "rollback"}
"""The arguments that only one verb takes."""


class OrderOutcome(BaseModel):
    """What came of an order; ``ok`` is null while it waits for a controller."""

    order: str
    ok: bool | None
    outcome: str | None


class OrderView(OrderOutcome):
    """An order and who gave it."""

    workload: str
    verb: str
    args: dict[str, Any]
    actor: str
    reason: str
    created_at: float
    done_at: float | None


class Orders(BaseModel):
    """Orders, oldest first."""

    orders: list[dict[str, Any]]


class Evidence(BaseModel):
    """What a rollout has seen so far. ``guards``: the state of its guards, as the state machine keeps it."""

    requests: int
    candidate_requests: int
    audited: int
    guards: Any


class RolloutView(BaseModel):
    """A rollout. ``revision`` counts its decisions; ``legal`` are the verbs that it takes now."""

    id: str
    workload: str
    revision: int
    active: bool
    phase: str
    outcome: str | None
    reason: str
    forced: bool
    candidate: str
    champion: str
    step: int
    weight: float
    steps: list[dict[str, Any]]
    legal: list[str]
    created_at: float
    ended_at: float | None
    evidence: Evidence


class Rollouts(BaseModel):
    """All rollouts of a workload in full, oldest first."""

    rollouts: list[dict[str, Any]]


class Workload(BaseModel):
    """A workload's routing as it is intended, the replicas that live, and what its workers say of themselves."""

    workload: str
    routing_revision: int
    intent: dict[str, Any]
    replicas: list[dict[str, Any]]
    gauges: dict[str, dict[str, Any]]
    alarms: list[dict[str, Any]]


class Workloads(BaseModel):
    """Names of all workloads."""

    workloads: list[str]


class Versions(BaseModel):
    """Registered versions with lineage, verdict and aliases, oldest first."""

    versions: list[dict[str, Any]]


class Entry(BaseModel):
    """An entry of the ledger."""

    seq: int
    at: float
    workload: str
    actor: str
    action: str
    detail: dict[str, Any]
    previous: str
    hash: str


class Entries(BaseModel):
    """Entries of the ledger, oldest first; ``next_after`` asks for those that follow, null at the end."""

    entries: list[Entry]
    next_after: int | None


class Head(BaseModel):
    """The ledger's last entry: keep it elsewhere, and a ledger that was cut or rewritten before it is found out."""

    seq: int
    hash: str
    at: float


class Verified(BaseModel):
    """Whether the ledger is what was written; ``seq`` is the first entry that does not fit."""

    ok: bool
    entries: int | None = None
    seq: int | None = None
    detail: str | None = None


class Me(BaseModel):
    """Who the API takes the caller for."""

    actor: str
    role: Literal["viewer", "operator", "admin"]
    via: str
    credential: str


class Health(BaseModel):
    """Whether the API lives, or is ready."""

    status: str
