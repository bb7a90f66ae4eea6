"""Tables of the control database. Every row carries its workload; times are Unix seconds."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

FROZEN = "frozen_of_traffic"
"""In the manifest of a window that lost rows since it was frozen: how many of traffic it had then."""


class Base(DeclarativeBase):
    """Declarative base of the control tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {dict[str, Any]: JSON, list[Any]: JSON}


class RoutingRow(Base):
    """The durable intent: which student versions serve a workload, and the candidate's leased share."""

    __tablename__ = "routing"
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    revision: Mapped[int] = mapped_column(Integer)
    intent: Mapped[dict[str, Any]]


class AckRow(Base):
    """What a gateway replica has applied, renewed by it as a heartbeat."""

    __tablename__ = "acks"
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    replica: Mapped[str] = mapped_column(String(64), primary_key=True)
    revision: Mapped[int] = mapped_column(Integer)
    at: Mapped[float] = mapped_column(Float)
    detail: Mapped[dict[str, Any]]


class RolloutRow(Base):
    """A rollout's state, as JSON of the pure state machine."""

    __tablename__ = "rollouts"
    __table_args__ = (Index("rollouts_last", "workload", "created_at", "id"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    workload: Mapped[str] = mapped_column(String(64), index=True)
    revision: Mapped[int] = mapped_column(Integer)
    active: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[float] = mapped_column(Float)
    state: Mapped[dict[str, Any]]


class JournalRow(Base):
    """One line of the journal of a rollout that is under way; ``number`` counts from 1."""

    __tablename__ = "rollout_journal"
    rollout: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    line: Mapped[str] = mapped_column(Text)


class OrderRow(Base):
    """A verb that a person, a pipeline or the controller ordered; ``id`` is its idempotency key."""

    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer)
    workload: Mapped[str] = mapped_column(String(64), index=True)
    verb: Mapped[str] = mapped_column(String(32))
    args: Mapped[dict[str, Any]]
    actor: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Float)
    done_at: Mapped[float | None] = mapped_column(Float, nullable=True)
    ok: Mapped[bool | None] = mapped_column(Boolean, nullable=True)
    outcome: Mapped[str | None] = mapped_column(Text, nullable=True)


EXPIRED = "expired"
"""The name in a window's manifest of what it lost by age: the digest before and after each time."""


class WindowRow(Base):
    """A snapshot: where it lies, how many rows, and the stream positions after it."""

    __tablename__ = "windows"
    __table_args__ = (UniqueConstraint("workload", "number"),)
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(Integer)
    uri: Mapped[str] = mapped_column(Text)
    rows: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[float] = mapped_column(Float)
    manifest: Mapped[dict[str, Any]]

    @property
    def digests(self) -> tuple[str, ...]:
        """Its digest, and those that it had before rows of it were forgotten: students name the one that they read."""
        return (self.digest, *self.manifest.get("replaces", ()))

    @property
    def of_traffic(self) -> int:
        """Rows of traffic: what was made up is none."""
        return self.rows - int(self.manifest.get("synthetic_rows", 0))

    @property
    def frozen_of_traffic(self) -> int:
        """Rows of traffic that it was frozen with: what was deleted of them since then was learnt from nevertheless."""
        return int(self.manifest.get(FROZEN, self.of_traffic))


class RunRow(Base):
    """One run of a pipeline."""

    __tablename__ = "runs"
    __table_args__ = (Index("runs_newest", "workload", "pipeline", "started_at"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    workload: Mapped[str] = mapped_column(String(64))
    pipeline: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(128))
    started_at: Mapped[float] = mapped_column(Float)
    finished_at: Mapped[float | None] = mapped_column(Float, nullable=True)
    status: Mapped[str] = mapped_column(String(16))
    detail: Mapped[dict[str, Any]]


class AlarmRow(Base):
    """A monitor's alarm, with the count of inputs of the workload that had been seen when it fired."""

    __tablename__ = "alarms"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    workload: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    input_index: Mapped[int] = mapped_column(Integer)
    at: Mapped[float] = mapped_column(Float)
    detail: Mapped[dict[str, Any]]


class AcknowledgementRow(Base):
    """A person who has seen an alarm, and what they noted; ``alarm`` is its id."""

    __tablename__ = "alarm_acknowledgements"
    alarm: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    actor: Mapped[str] = mapped_column(String(128))
    at: Mapped[float] = mapped_column(Float)
    note: Mapped[str] = mapped_column(Text)


class SilenceRow(Base):
    """Alarms of one kind that nobody wants to hear of ``until`` then (Unix seconds); they are raised all the same."""

    __tablename__ = "alarm_silences"
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    until: Mapped[float] = mapped_column(Float)
    actor: Mapped[str] = mapped_column(String(128))
    note: Mapped[str] = mapped_column(Text)


class GaugeRow(Base):
    """The last value that a worker reported of itself (lag, drift, entropy, counts), for ``cohobate status``."""

    __tablename__ = "gauges"
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[float] = mapped_column(Float)
    value: Mapped[dict[str, Any]]


class TeacherRow(Base):
    """What is known of a declared teacher's behaviour: its epoch, its probes and their answers (as JSON)."""

    __tablename__ = "teachers"
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    teacher: Mapped[str] = mapped_column(String(255), primary_key=True)
    revision: Mapped[int] = mapped_column(Integer)
    state: Mapped[dict[str, Any]]


class AccessRow(Base):
    """What all who ask a workload's teacher share: the window of a rate limit, by its field, or an outage (as JSON)."""

    __tablename__ = "teacher_access"
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[dict[str, Any]]


class CleanRow(Base):
    """The start of the last round of probes that one labeler found clean, and the labels topic's ends then."""

    __tablename__ = "clean_rounds"
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    teacher: Mapped[str] = mapped_column(String(255), primary_key=True)
    member: Mapped[str] = mapped_column(String(128), primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer)
    at: Mapped[float] = mapped_column(Float)
    positions: Mapped[dict[str, Any]]


class IncidentRow(Base):
    """A teacher that answered its probes otherwise than before, and what a person decided about it."""

    __tablename__ = "incidents"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    workload: Mapped[str] = mapped_column(String(64), index=True)
    teacher: Mapped[str] = mapped_column(String(255))
    epoch: Mapped[int] = mapped_column(Integer)
    suspect_from: Mapped[float] = mapped_column(Float)
    opened_at: Mapped[float] = mapped_column(Float)
    verdict: Mapped[str | None] = mapped_column(String(16), nullable=True)
    decided_at: Mapped[float | None] = mapped_column(Float, nullable=True)
    settled_at: Mapped[float | None] = mapped_column(Float, nullable=True)
    mixed: Mapped[bool] = mapped_column(Boolean)
    candidate: Mapped[list[Any]]
    detail: Mapped[dict[str, Any]]


class LedgerRow(Base):
    """An entry of the ledger: its hash covers its content and the hash before it."""

    __tablename__ = "ledger"
    __table_args__ = (Index("ledger_workload", "workload"),)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True)
    previous: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))
    at: Mapped[float] = mapped_column(Float)
    workload: Mapped[str] = mapped_column(String(64))
    actor: Mapped[str] = mapped_column(String(128))
    action: Mapped[str] = mapped_column(String(64))
    detail: Mapped[dict[str, Any]]


class ReviewRow(Base):
    """A question to a person: an input that waits for its soft label, and all that the label will need.

    ``key`` is the label's key. ``ends`` are the labels topic's ends (partition to offset) before the label was first
    sent: from there a publisher that goes on after a crash looks for it.
    """

    __tablename__ = "reviews"
    __table_args__ = (Index("reviews_open", "workload", "published_at", "answered_at"),)
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    teacher: Mapped[str] = mapped_column(String(255))
    space: Mapped[str] = mapped_column(String(128))
    classes: Mapped[list[Any]]
    input: Mapped[bytes] = mapped_column(LargeBinary)
    draft: Mapped[dict[str, Any] | None] = mapped_column(JSON, nullable=True)
    why: Mapped[str] = mapped_column(Text)
    policy: Mapped[str] = mapped_column(String(64))
    probability: Mapped[float] = mapped_column(Float)
    audit: Mapped[bool] = mapped_column(Boolean)
    asked_at: Mapped[float] = mapped_column(Float)
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON, nullable=True)
    annotator: Mapped[str | None] = mapped_column(String(128), nullable=True)
    answered_at: Mapped[float | None] = mapped_column(Float, nullable=True)
    ends: Mapped[dict[str, Any] | None] = mapped_column(JSON, nullable=True)
    publisher: Mapped[str | None] = mapped_column(String(64), nullable=True)
    publisher_until: Mapped[float | None] = mapped_column(Float, nullable=True)
    published_at: Mapped[float | None] = mapped_column(Float, nullable=True)


class SpendingRow(Base):
    """What labelling has cost in one hour or day (``start``: Unix seconds, UTC), open reservations included.

    ``money`` is in billionths of the currency; ``skipped`` counts the inputs that the budget kept from the teacher.
    """

    __tablename__ = "label_spending"
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    period: Mapped[str] = mapped_column(String(8), primary_key=True)
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    calls: Mapped[int] = mapped_column(BigInteger)
    money: Mapped[int] = mapped_column(BigInteger)
    skipped: Mapped[int] = mapped_column(BigInteger)


class TrafficRow(Base):
    """What a workload's workers counted in one hour (``hour``: Unix seconds, UTC), as far as the admin API asked them.

    ``student_seconds`` over ``student_answers`` answers of students; ``teacher_seconds`` over ``teacher_calls`` calls,
    each for a batch; ``labels`` were committed.
    """

    __tablename__ = "traffic"
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    hour: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    answers: Mapped[int] = mapped_column(BigInteger)
    deferred: Mapped[int] = mapped_column(BigInteger)
    student_answers: Mapped[int] = mapped_column(BigInteger)
    student_seconds: Mapped[float] = mapped_column(Float)
    labels: Mapped[int] = mapped_column(BigInteger)
    teacher_calls: Mapped[int] = mapped_column(BigInteger)
    teacher_seconds: Mapped[float] = mapped_column(Float)


class ReservationRow(Base):
    """A reservation that is not settled yet: its labeler is at work, or died and leaves it spent."""

    __tablename__ = "label_reservations"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    workload: Mapped[str] = mapped_column(String(64), index=True)
    hour: Mapped[int] = mapped_column(BigInteger)
    day: Mapped[int] = mapped_column(BigInteger)
    calls: Mapped[int] = mapped_column(BigInteger)
    money: Mapped[int] = mapped_column(BigInteger)


class MemberRow(Base):
    """A worker among those that divide a workload's partitions; ``incarnation`` is its process."""

    __tablename__ = "members"
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    incarnation: Mapped[str] = mapped_column(String(32))
    until: Mapped[float] = mapped_column(Float)


class LeaseRow(Base):
    """Which member works on a share of a workload's partitions; ``epoch`` counts how often it changed hands."""

    __tablename__ = "leases"
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    share: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    owner: Mapped[str] = mapped_column(String(128))
    until: Mapped[float] = mapped_column(Float)
    epoch: Mapped[int] = mapped_column(Integer)


class TokenRow(Base):
    """A bearer token of the admin API. ``hash``: Argon2id of its secret part; the secret itself is nowhere.

    ``id`` is the public part, by which the token is found and named in the ledger.
    """

    __tablename__ = "tokens"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    role: Mapped[str] = mapped_column(String(16))
    hash: Mapped[str] = mapped_column(String(255))
    created_by: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[float] = mapped_column(Float)
    expires_at: Mapped[float | None] = mapped_column(Float, nullable=True)
    revoked_at: Mapped[float | None] = mapped_column(Float, nullable=True)


class SessionRow(Base):
    """A person signed in to the console. ``id``: SHA-256 (hex) of the cookie's secret, which itself is nowhere.

    ``credential``: of what it was signed in with, a token's id or an issuer; a token that is revoked ends its sessions.
    """

    __tablename__ = "sessions"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    actor: Mapped[str] = mapped_column(String(128))
    role: Mapped[str] = mapped_column(String(16))
    via: Mapped[str] = mapped_column(String(16))
    credential: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[float] = mapped_column(Float)
    expires_at: Mapped[float] = mapped_column(Float)


class LeaderRow(Base):
    """Who leads in a matter; ``beats`` rises with every sign of life, ``holder`` is empty when it was given up."""

    __tablename__ = "leaders"
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    holder: Mapped[str] = mapped_column(String(128))
    beats: Mapped[int] = mapped_column(Integer)
    at: Mapped[float] = mapped_column(Float)


class CursorRow(Base):
    """How far a durable table was read: ``seq`` of the last entry of the ledger that was turned into notices."""

    __tablename__ = "notice_cursor"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer)
    since: Mapped[float] = mapped_column(Float)


class NoticeRow(Base):
    """A notice to one webhook, kept until it was taken or given up. ``id`` and ``hook`` make a delivery's identity.

    ``next_at``: when it is tried (again); ``attempts``: tries begun; ``sent_at`` or ``dead_at`` ends it.
    """

    __tablename__ = "notices"
    __table_args__ = (Index("notices_due", "hook", "sent_at", "dead_at", "next_at"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    hook: Mapped[str] = mapped_column(String(64), primary_key=True)
    workload: Mapped[str] = mapped_column(String(64))
    event: Mapped[str] = mapped_column(String(64))
    at: Mapped[float] = mapped_column(Float)
    content: Mapped[dict[str, Any]]
    attempts: Mapped[int] = mapped_column(Integer)
    next_at: Mapped[float] = mapped_column(Float)
    sent_at: Mapped[float | None] = mapped_column(Float, nullable=True)
    dead_at: Mapped[float | None] = mapped_column(Float, nullable=True)
    error: Mapped[str | None] = mapped_column(Text, nullable=True)


class ForgettingRow(Base):
    """An order to erase an entity from a workload, and how far it is.

    ``subject``: HMAC-SHA-256 (hex) of the entity's key under ``secret``, which nobody is told. ``step``: the number of
    steps that are done; ``found``: while it is under way, what the next ones go by, afterwards None. ``result``: what
    was erased and rewritten, and which students had learnt from it. ``retrained_at``: when the student was made that it
    asks for.
    """

    __tablename__ = "forgettings"
    __table_args__ = (Index("forgettings_of", "workload", "at"),)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    workload: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(64))
    secret: Mapped[str] = mapped_column(String(64))
    actor: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[float] = mapped_column(Float)
    step: Mapped[int] = mapped_column(Integer)
    found: Mapped[dict[str, Any] | None] = mapped_column(JSON, nullable=True)
    result: Mapped[dict[str, Any]]
    done_at: Mapped[float | None] = mapped_column(Float, nullable=True)
    retrained_at: Mapped[float | None] = mapped_column(Float, nullable=True)


class WorkloadRow(Base):
    """A registered workload: the number of its version in force (None: it was removed), and how often that changed."""

    __tablename__ = "workloads"
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int | None] = mapped_column(Integer, nullable=True)
    changes: Mapped[int] = mapped_column(Integer)


class WorkloadVersionRow(Base):
    """A version of a workload: the bundle's ``digest`` and ``size`` in bytes, and the digest of the ``spec`` alone.

    ``signed_by``: the public key of the bundle's signature; None: it has none.
    """

    __tablename__ = "workload_versions"
    __table_args__ = (UniqueConstraint("workload", "digest"),)
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(64))
    spec: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    signed_by: Mapped[str | None] = mapped_column(String(64), nullable=True)
    actor: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[float] = mapped_column(Float)


class WorkloadChangeRow(Base):
    """A change of what is in force: which version was ``before`` (None: none), and which ``version`` is since then."""

    __tablename__ = "workload_changes"
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    verb: Mapped[str] = mapped_column(String(16))
    before: Mapped[int | None] = mapped_column(Integer, nullable=True)
    version: Mapped[int | None] = mapped_column(Integer, nullable=True)
    actor: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[float] = mapped_column(Float)


class RequestRow(Base):
    """A request that is answered later. ``key``: the caller's idempotency key, of which each workload has one.

    ``fingerprint``: SHA-256 (hex) of the body; ``content``: the body with the ids of its inputs, until it is answered;
    ``callback``: where the answer is sent, in this ``mode`` of CloudEvents' HTTP binding. ``next_at``: when it is tried
    (again), None where nothing is left to do; ``attempts``: tries begun, first of the answer and then of the delivery.
    """

    __tablename__ = "requests"
    __table_args__ = (
        UniqueConstraint("workload", "key"),
        Index("requests_due", "workload", "next_at"),
        Index("requests_age", "workload", "accepted_at"),
    )
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    workload: Mapped[str] = mapped_column(String(64))
    key: Mapped[str | None] = mapped_column(String(256), nullable=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    content: Mapped[bytes | None] = mapped_column(LargeBinary, nullable=True)
    callback: Mapped[str | None] = mapped_column(Text, nullable=True)
    mode: Mapped[str] = mapped_column(String(16))
    accepted_at: Mapped[float] = mapped_column(Float)
    attempts: Mapped[int] = mapped_column(Integer)
    next_at: Mapped[float | None] = mapped_column(Float, nullable=True)
    answer: Mapped[bytes | None] = mapped_column(LargeBinary, nullable=True)
    answered_at: Mapped[float | None] = mapped_column(Float, nullable=True)
    delivered_at: Mapped[float | None] = mapped_column(Float, nullable=True)
    dead_at: Mapped[float | None] = mapped_column(Float, nullable=True)
    error: Mapped[str | None] = mapped_column(Text, nullable=True)
