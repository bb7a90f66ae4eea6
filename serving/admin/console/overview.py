"""All workloads in a table, worst first: what is wrong, since when, and why."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from components.contracts.settings import Settings
from components.control.alarms import acknowledged, silenced
from components.control.store import ControlStore
from components.control.tables import GaugeRow
from serving.admin.console.traffic import Rate, Traffic
from serving.control.facts import Known, read_all
from serving.rollout.condition import Condition, Facts, condition


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How often the champion agrees with its teacher on the newest window, with the lower bound."""

    value: float
    lower: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A workload as the overview shows it. ``lag``: records that its labelers have not taken; None: none reports.

    ``alarms``: open ones that nobody has seen or silenced.
    """

    workload: str
    condition: Condition
    facts: Facts
    rate: Rate | None
    agreement: Agreement | None
    lag: int | None
    alarms: int

    @property
    def rank(self) -> int:
        """Where it stands: the worst state first, and of one state those with an alarm."""
        return 2 * self.condition.rank + (not self.alarms)


class Rows:
    """Reads the rows; what need not be read again is kept. Safe to use from several threads, one at a time."""

    def __init__(self, store: ControlStore, settings: Settings, traffic: Traffic) -> None:
        self._store, self._settings, self._traffic = store, settings, traffic
        self._lock, self._known = threading.Lock(), Known()

    def read(self, workloads: Sequence[str] | None = None) -> list[Row]:
        """All workloads or some, the worst first."""
        self._traffic.look()
        names = self._store.workloads() if workloads is None else list(workloads)
        with self._lock:
            now = self._store.clock()
            facts = read_all(
                self._store, names, now, leader_term=self._settings.leader_seconds, known=self._known,
                specs={name: name for name in names},
            )  # fmt: skip
            with self._store.session() as s:
                gauges = _gauges(s, names)
                open_alarms = {alarm.id for found in facts.values() for alarm in found.open_alarms}
                seen = acknowledged(s, open_alarms) if open_alarms else {}
                silent = silenced(s, now)
        rows = [
            Row(
                workload=name,
                condition=condition(facts[name]),
                facts=facts[name],
                rate=self._traffic.rate(name),
                agreement=_agreement(gauges.get(name, {})),
                lag=_lag(gauges.get(name, {})),
                alarms=sum(a.id not in seen and (name, a.kind) not in silent for a in facts[name].open_alarms),
            )
            for name in names
        ]
        return sorted(rows, key=lambda row: (row.rank, row.workload))


def _gauges(s: Session, workloads: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """The labelers' and the monitors' reports that the rows show, by workload and name."""
    shown = or_(GaugeRow.name == "agreement", GaugeRow.name.startswith("labeler"))
    query = select(GaugeRow.workload, GaugeRow.name, GaugeRow.value).where(GaugeRow.workload.in_(workloads), shown)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for workload, name, value in s.execute(query):
        found.setdefault(workload, {})[name] = value
    return found


def _lag(gauges: dict[str, dict[str, Any]]) -> int | None:
    lags = [g["lag"] for n, g in gauges.items() if n.partition("-")[0] == "labeler" and isinstance(g.get("lag"), int)]
    return sum(lags) if lags else None


def _agreement(gauges: dict[str, dict[str, Any]]) -> Agreement | None:
    """On the monitor's newest window."""
    seen = gauges.get("agreement")
    return None if seen is None else Agreement(value=float(seen["share"]), lower=float(seen["lower"]))
