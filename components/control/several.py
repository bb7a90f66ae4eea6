"""What is shown of workloads, read for all of them by the same few questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from components.control.intent import Intent
from components.control.looks import GAUGE
from components.control.store import ALIVE_SECONDS, ControlStore
from components.control.tables import AckRow, AlarmRow, GaugeRow, RoutingRow, RunRow, WindowRow

Names = Sequence[str]


class Frozen(NamedTuple):
    """A workload's windows: how many, the rows in them, and the manifest of the newest."""

    windows: int = 0
    rows: int = 0
    newest: Mapping[str, Any] = MappingProxyType({})


class Shown(NamedTuple):
    """Of one workload. ``gauges``: all but the looks, by name; ``runs``, ``alarms``: the last, oldest first."""

    revision: int
    intent: Intent
    replicas: list[AckRow]
    windows: Frozen
    gauges: dict[str, GaugeRow]
    runs: list[RunRow]
    alarms: list[AlarmRow]


def shown(store: ControlStore, workloads: Names, last: int) -> dict[str, Shown]:
    """Of each workload, by name; ``last``: how many runs and alarms."""
    alive = store.clock() - ALIVE_SECONDS
    with store.session() as s:
        routing = {row.workload: row for row in s.scalars(select(RoutingRow).where(RoutingRow.workload.in_(workloads)))}
        heard = select(AckRow).where(AckRow.workload.in_(workloads), AckRow.at >= alive).order_by(AckRow.replica)
        replicas = _by_workload(s.scalars(heard))
        reports = select(GaugeRow).where(GaugeRow.workload.in_(workloads), GaugeRow.name != GAUGE)
        gauges = _by_workload(s.scalars(reports))
        runs = _last(s, RunRow, RunRow.started_at, workloads, last)
        alarms = _last(s, AlarmRow, AlarmRow.id, workloads, last)
        windows = _windows(s, workloads)
    return {
        name: Shown(
            revision=routing[name].revision if name in routing else 0,
            intent=msgspec.convert(routing[name].intent, Intent) if name in routing else Intent(),
            replicas=replicas.get(name, []),
            windows=windows.get(name, Frozen()),
            gauges={row.name: row for row in gauges.get(name, ())},
            runs=runs.get(name, []),
            alarms=alarms.get(name, []),
        )
        for name in workloads
    }


def _by_workload(rows: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row.workload, []).append(row)
    return found


def _last(
    s: Session, table: type[RunRow | AlarmRow], by: InstrumentedAttribute[Any], workloads: Names, most: int
) -> dict[str, list[Any]]:
    """The newest rows of each workload, at most so many, oldest first."""
    return _by_workload(s.scalars(select(table).where(table.id.in_(newest(table, by, workloads, most))).order_by(by)))


def newest(
    table: type[RunRow | AlarmRow], by: InstrumentedAttribute[Any], workloads: Names, most: int
) -> Select[tuple[Any]]:
    """The ids of the newest rows of each workload, at most so many."""
    place = func.row_number().over(partition_by=table.workload, order_by=by.desc()).label("place")
    placed = select(table.id, place).where(table.workload.in_(workloads)).subquery()
    return select(placed.c.id).where(placed.c.place <= most)


def _windows(s: Session, workloads: Names) -> dict[str, Frozen]:
    counted = (
        select(
            WindowRow.workload, func.max(WindowRow.number).label("newest"), func.count().label("count"),
            func.sum(WindowRow.rows).label("rows"),
        )
        .where(WindowRow.workload.in_(workloads))
        .group_by(WindowRow.workload)
        .subquery()
    )  # fmt: skip
    query = select(counted.c.workload, counted.c.count, counted.c.rows, WindowRow.manifest).join(
        WindowRow, (WindowRow.workload == counted.c.workload) & (WindowRow.number == counted.c.newest)
    )
    return {workload: Frozen(count, int(rows), manifest) for workload, count, rows, manifest in s.execute(query)}
