"""All workloads in a table, worst first: what is wrong, since when, and why."""

from __future__ import annotations

from typing import Any

import msgspec

from components.contracts.settings import Settings
from components.control.alarms import acknowledged, silenced
from components.control.store import ControlStore
from components.control.tables import AlarmRow
from serving.admin.console.traffic import Rate, Traffic
from serving.control.facts import read_facts
from serving.rollout.condition import Alarm as RaisedAlarm
from serving.rollout.condition import Condition, Facts, condition, is_open


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How often the champion agrees with its teacher, with the lower bound where known."""

    value: float
    lower: float | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A workload as the overview shows it. ``lag``: records that its labelers have not taken; None: none reports."""

    workload: str
    condition: Condition
    facts: Facts
    rate: Rate | None
    agreement: Agreement | None
    lag: int | None
    alarms: int


OPEN_ALARMS = 20
"""The newest alarms of a workload that are looked at for those that are open."""


def overview(store: ControlStore, settings: Settings, traffic: Traffic) -> list[Row]:
    """All workloads, the worst first."""
    traffic.look()
    rows = [row_of(store, settings, traffic, workload) for workload in store.workloads()]
    return sorted(rows, key=lambda row: (row.condition.rank, row.workload))


def row_of(store: ControlStore, settings: Settings, traffic: Traffic, workload: str) -> Row:
    """One workload."""
    now = store.clock()
    facts = read_facts(store, workload, now, leader_term=settings.leader_seconds, spec=workload)
    gauges = {name: gauge.value for name, gauge in store.gauges(workload).items()}
    lags = [g["lag"] for n, g in gauges.items() if n.partition("-")[0] == "labeler" and isinstance(g.get("lag"), int)]
    return Row(
        workload=workload,
        condition=condition(facts),
        facts=facts,
        rate=traffic.rate(workload),
        agreement=_agreement(store, workload, gauges),
        lag=sum(lags) if lags else None,
        alarms=len(open_alarms(store, facts)),
    )


def open_alarms(store: ControlStore, facts: Facts) -> list[AlarmRow]:
    """The alarms about which something is still to be done, and that nobody has seen or silenced; oldest first."""
    found = [
        row
        for row in store.last_alarms(facts.workload, OPEN_ALARMS)
        if is_open(
            RaisedAlarm(
                kind=row.kind, at=row.at, champion=row.detail.get("champion"), rollout=row.detail.get("rollout")
            ),
            facts,
        )
    ]
    if not found:
        return []
    with store.session() as s:
        seen, silent = acknowledged(s, [row.id for row in found]), silenced(s, facts.now)
    return [row for row in found if row.id not in seen and (row.workload, row.kind) not in silent]


def _agreement(store: ControlStore, workload: str, gauges: dict[str, dict[str, Any]]) -> Agreement | None:
    """On the monitor's newest window; before there is one, as the champion's own evaluation found it."""
    seen, evaluation = gauges.get("agreement"), gauges.get("evaluation", {})
    if seen is not None:
        return Agreement(value=float(seen["share"]), lower=float(seen["lower"]))
    champion = store.intent(workload)[1].champion
    value, lower = evaluation.get("agreement"), evaluation.get("agreement_lower")
    if champion is None or evaluation.get("digest") != champion.digest or not isinstance(value, int | float):
        return None
    return Agreement(value=float(value), lower=float(lower) if isinstance(lower, int | float) else None)
