"""A workload's versions: where each comes from, what the gate said of it, and two of them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import select

from components.control.store import ControlStore
from components.control.tables import LedgerRow, RolloutRow, WindowRow
from components.registry.registry import VersionInfo

ARTIFACT = (
    "parity", "probability_gap", "largest_probability_gap", "p50_ms", "p95_ms", "p99_ms", "latency_ratio", "bytes",
    "memory_bytes", "cold_start_ms", "cost",
)  # fmt: skip
"""What the names of measures of the artifact itself begin with: its exports' parity, latency and size."""

ROLLOUTS = 10
"""Rollouts of a version that are shown."""


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout in which a version was the candidate."""

    id: str
    at: float
    phase: str
    reason: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that a version was trained on; ``number`` and ``rows`` are None of one that is not at hand."""

    digest: str
    number: int | None
    rows: int | None
    at: float | None


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """A version with its lineage. ``verdict`` is the whole one; ``registered`` the ledger's word on it."""

    info: VersionInfo
    verdict: dict[str, Any]
    snapshots: tuple[Snapshot, ...]
    rollouts: tuple[Tried, ...]
    registered: LedgerRow | None

    @property
    def artifact(self) -> dict[str, float | None]:
        """The measures of the artifact itself."""
        return {n: v for n, v in sorted(self.info.metrics.items()) if n.startswith(ARTIFACT)}

    @property
    def quality(self) -> dict[str, float | None]:
        """All other measures."""
        return {n: v for n, v in sorted(self.info.metrics.items()) if not n.startswith(ARTIFACT)}


def version_view(store: ControlStore, info: VersionInfo, verdict: dict[str, Any], workload: str) -> VersionView:
    """A version, from what the registry says of it."""
    with store.session() as s:
        windows = s.scalars(select(WindowRow).where(WindowRow.workload == workload))
        found = {digest: row for row in windows for digest in row.digests}
        entries = s.scalars(
            select(LedgerRow).where(LedgerRow.workload == workload, LedgerRow.action == "register")
            .order_by(LedgerRow.seq.desc())
        )  # fmt: skip
        registered = next((e for e in entries if e.detail.get("version") == info.version), None)
    return VersionView(
        info=info,
        verdict=verdict,
        snapshots=tuple(
            Snapshot(
                digest=digest,
                number=found[digest].number if digest in found else None,
                rows=found[digest].rows if digest in found else None,
                at=found[digest].created_at if digest in found else None,
            )
            for digest in info.snapshots
        ),
        rollouts=_rollouts(store, workload, info.version),
        registered=registered,
    )


def _rollouts(store: ControlStore, workload: str, version: str) -> tuple[Tried, ...]:
    state = RolloutRow.state
    query = (
        select(RolloutRow.id, RolloutRow.created_at, state["phase"].as_string(), state["reason"].as_string())
        .where(RolloutRow.workload == workload, state[("candidate", "version")].as_string() == version)
        .order_by(RolloutRow.created_at.desc())
        .limit(ROLLOUTS)
    )
    with store.session() as s:
        return tuple(Tried(id=i, at=at, phase=phase, reason=why) for i, at, phase, why in s.execute(query))


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a comparison: what each of the two versions has; ``change`` of a number, None of other things."""

    name: str
    first: str | float | None
    second: str | float | None
    change: float | None

    @property
    def differs(self) -> bool:
        """Whether the two have something else."""
        return self.first != self.second


def compared(first: VersionInfo, second: VersionInfo) -> tuple[list[Compared], list[Compared]]:
    """Two versions side by side: their lineage, and their measures."""
    lineage = [
        _line(name, one, two)
        for name, one, two in (
            (name, _told(first, name), _told(second, name))
            for name in ("decision", "variant", "teacher", "parent", "code", "snapshots", "digest", "defer_below")
        )
    ]
    names = sorted(first.metrics.keys() | second.metrics.keys())
    return lineage, [_line(name, first.metrics.get(name), second.metrics.get(name)) for name in names]


def _told(info: VersionInfo, name: str) -> str | float | None:
    told: dict[str, str | float | None] = {
        "decision": str(info.verdict.get("decision", "")) or None,
        "variant": info.variant,
        "teacher": info.ref.teacher,
        "parent": None if info.parent is None else f"v{info.parent}",
        "code": info.code,
        "snapshots": ", ".join(s[:12] for s in info.snapshots),
        "digest": info.ref.digest[:12],
        "defer_below": info.ref.defer_below,
    }
    return told[name]


def _line(name: str, first: str | float | None, second: str | float | None) -> Compared:
    numbers = isinstance(first, int | float) and isinstance(second, int | float)
    change = float(second) - float(first) if numbers else None  # type: ignore[arg-type]  # numbers both
    return Compared(name=name.replace("_", " "), first=first, second=second, change=change)


def newest_first(versions: Sequence[VersionInfo]) -> list[VersionInfo]:
    """Versions in the order in which a person looks for them."""
    return sorted(versions, key=lambda v: int(v.version) if v.version.isdigit() else 0, reverse=True)
