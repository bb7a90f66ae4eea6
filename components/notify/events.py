"""What is told: events, made of the ledger's entries and the monitors' alarms, so that none is lost in a crash."""

from __future__ import annotations

from typing import Any

import msgspec

from components.control.tables import AlarmRow, LedgerRow

ACTIONS = {
    "rollout start": "rollout.started",
    "rollout retry": "rollout.started",
    "rollout step": "rollout.step",
    "rollout promote": "rollout.promoted",
    "rollout promote-full": "rollout.promoted",
    "first champion": "rollout.promoted",
    "rollout rollback": "rollout.rolled_back",
    "rollout undo": "rollout.rolled_back",
    "rollback": "rollout.rolled_back",
    "undo": "rollout.rolled_back",
    "rollout abort": "rollout.aborted",
    "rollout pause": "rollout.paused",
}
"""The ledger's actions that are told, and as which event."""

EVENTS = (
    "rollout.started", "rollout.step", "rollout.promoted", "rollout.rolled_back", "rollout.aborted", "rollout.paused",
    "rollout.alarm", "champion.guarded", "drift.alarm", "pipeline.failed", "teacher.changed", "test.sent",
)  # fmt: skip

LINKED = (
    "rollout.promoted", "rollout.rolled_back", "rollout.aborted", "rollout.paused", "rollout.alarm", "champion.guarded",
    "drift.alarm",
)  # fmt: skip
"""Events after which a person may want the previous champion back: they carry the link that does it by one click."""

OF_ALARMS = {"teacher": "teacher.changed", "guarded": "champion.guarded"}
"""The events of alarms that are not the monitor's."""

TOLD = ("rollout", "version", "champion", "from", "to", "reason", "weight", "run", "status", "rollback_seconds")
"""Members of an entry's detail that go into the notice: no paths, no hosts."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. ``id`` is the same however often it is sent; ``at``: Unix seconds."""

    id: str
    name: str
    workload: str
    at: float
    actor: str
    text: str
    data: dict[str, Any]


def with_link(event: Event, url: str) -> Event:
    """The event with the rollback's link as ``data["rollback_url"]``, where it is one of those and there is a link."""
    if not url or event.name not in LINKED:
        return event
    return msgspec.structs.replace(event, data={**event.data, "rollback_url": url})


def of_entry(row: LedgerRow) -> Event | None:
    """The event that an entry of the ledger tells of, if any."""
    name = ACTIONS.get(row.action)
    if row.action.startswith("pipeline ") and row.detail.get("status") == "failed":
        name = "pipeline.failed"
    if name is None:
        return None
    data = {key: row.detail[key] for key in TOLD if row.detail.get(key) is not None}
    data |= {"ledger_seq": row.seq, "ledger_hash": row.hash}
    text = f"{row.workload}: {row.action} by {row.actor}: {row.detail.get('reason', '')}"
    return Event(
        id=f"ledger-{row.seq}-{row.hash[:12]}", name=name, workload=row.workload, at=row.at, actor=row.actor,
        text=text.rstrip(": "), data=data,
    )  # fmt: skip


def of_alarm(row: AlarmRow) -> Event:
    """The event of a monitor's alarm, of a guard of the teacher or of the champion, or of a rollout's own."""
    of_rollout = row.detail.get("rollout") is not None
    name = OF_ALARMS.get(row.kind) or ("rollout.alarm" if of_rollout else "drift.alarm")
    drifted = row.detail.get("drifted") or []
    columns = f" in {', '.join(map(str, drifted))}" if isinstance(drifted, list) and drifted else ""
    what = {"teacher": "the teacher changed", "guarded": "the champion is guarded"}.get(row.kind)
    what = what or f"{row.kind} alarm{columns}"
    data = {"kind": row.kind, "input_index": row.input_index, "champion": row.detail.get("champion")}
    data |= {key: row.detail[key] for key in ("rollout", "reason") if row.detail.get(key) is not None}
    return Event(
        id=f"alarm-{row.id}-{int(row.at)}", name=name, workload=row.workload, at=row.at, actor="monitor",
        text=f"{row.workload}: {what} at input {row.input_index}", data=data,
    )  # fmt: skip
