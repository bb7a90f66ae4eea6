"""Tables of the control database. Every row carries its workload; times are Unix seconds."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import JSON, Boolean, Float, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


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
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    workload: Mapped[str] = mapped_column(String(64), index=True)
    revision: Mapped[int] = mapped_column(Integer)
    active: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[float] = mapped_column(Float)
    state: Mapped[dict[str, Any]]


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


class RunRow(Base):
    """One run of a pipeline."""

    __tablename__ = "runs"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    workload: Mapped[str] = mapped_column(String(64), index=True)
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


class GaugeRow(Base):
    """The last value that a worker reported of itself (lag, drift, entropy, counts), for ``cohobate status``."""

    __tablename__ = "gauges"
    workload: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[float] = mapped_column(Float)
    value: Mapped[dict[str, Any]]


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
