"""All workloads in a table, worst first: what is wrong, since when, and why."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from components.contracts.settings import Settings
from components.control.alarms import acknowledged, silenced
from components.control.store import ControlStore
from components.control.tables import GaugeRow
from serving.admin.console.traffic import Rate, Traffic
from serving.control.facts import Known, by_worker, of, read_all
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
            opened = {name: found.open_alarms for name, found in facts.items()}
            with self._store.session() as s:
                lags, agreements = _lags(s, names), _agreements(s, names)
                ids = {alarm.id for alarms in opened.values() for alarm in alarms}
                seen = acknowledged(s, ids) if ids else {}
                silent = silenced(s, now)
        rows = [
            Row(
                workload=name,
                condition=condition(facts[name]),
                facts=facts[name],
                rate=self._traffic.rate(name),
                agreement=agreements.get(name),
                lag=lags.get(name),
                alarms=sum(a.id not in seen and (name, a.kind) not in silent for a in opened[name]),
            )
            for name in names
        ]
        return sorted(rows, key=lambda row: (row.rank, row.workload))


def _lags(s: Session, workloads: Sequence[str]) -> dict[str, int]:
    """The sum of what the labelers of each workload report."""
    query = select(GaugeRow.workload, func.sum(GaugeRow.value["lag"].as_integer())).group_by(GaugeRow.workload)
    found = s.execute(query.where(of(GaugeRow.workload, workloads), by_worker("labeler")))
    return {workload: int(lag) for workload, lag in found if lag is not None}


def _agreements(s: Session, workloads: Sequence[str]) -> dict[str, Agreement]:
    """On the monitors' newest windows."""
    share, lower = (GaugeRow.value[name].as_float() for name in ("share", "lower"))
    query = select(GaugeRow.workload, share, lower).where(GaugeRow.name == "agreement")
    found = s.execute(query.where(of(GaugeRow.workload, workloads)))
    return {workload: Agreement(value=value, lower=least) for workload, value, least in found}
