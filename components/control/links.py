"""The address at which a person rolls a workload back by one click, as ``cohobate pipeline install`` noted it last.

Whoever shows something that may be wrong (notices, ``cohobate status``, the console) shows it beside that.
"""

from __future__ import annotations

from sqlalchemy import delete
from sqlalchemy.orm import Session

from components.control.store import ControlStore
from components.control.tables import GaugeRow

GAUGE = "rollback_link"


def note_rollback_link(store: ControlStore, workload: str, url: str) -> None:
    """Note the address; an empty one: there is none any more."""
    if url:
        store.put_gauge(workload, GAUGE, {"url": url})
        return
    with store.transaction() as s:
        s.execute(delete(GaugeRow).where(GaugeRow.workload == workload, GaugeRow.name == GAUGE))


def rollback_link(store: ControlStore, workload: str) -> str:
    """The address; empty where none was noted."""
    with store.session() as s:
        return rollback_link_in(s, workload)


def rollback_link_in(s: Session, workload: str) -> str:
    """The same, in a transaction that is open."""
    row = s.get(GaugeRow, (workload, GAUGE))
    return str(row.value.get("url", "")) if row is not None else ""
