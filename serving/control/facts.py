"""The facts from which a workload's condition follows, read from the control database (:mod:`serving.rollout`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import or_, select

from components.control.intent import Intent
from components.control.leader import last_sign
from components.control.store import ControlStore
from components.control.tables import AlarmRow, LedgerRow, RolloutRow
from components.control.teachers import teachers
from serving.rollout.condition import Alarm, Crowned, Facts, Rollout, Run, under_way

LEDGER = 50
"""Entries about rollouts that are looked at for the one by which the champion serves; a rollout makes about ten."""

ALARMS = 20
"""Alarms that are looked at."""


def read_facts(store: ControlStore, workload: str, now: float, *, leader_term: float, spec: str = "SPEC") -> Facts:
    """What is known of a workload at ``now`` (Unix seconds). Asks a few small questions, however long its history.

    ``leader_term``: ``COHOBATE_LEADER_SECONDS``; ``spec``: its spec's name or path, for the commands to press.
    """
    _, intent = store.intent(workload)
    decided = _decisions(store, workload)
    row, runs, alarms = store.last_rollout(workload), store.last_runs(workload, 1), store.last_alarms(workload, ALARMS)
    gauges = store.gauges(workload)
    statuses = {t.state["status"] for t in teachers(store, workload)}
    sign = last_sign(store, f"controller/{workload}")
    return Facts(
        now=now,
        workload=workload,
        champion=intent.champion.version if intent.champion else None,
        candidate=intent.candidate.version if intent.candidate else None,
        previous=intent.previous.version if intent.previous else None,
        weight=intent.weight_at(now),
        replicas=len(store.acknowledgements(workload)),
        leader_age=None if sign is None else max(0.0, now - sign),
        leader_term=leader_term,
        reports={name: max(0.0, now - gauge.at) for name, gauge in gauges.items()},
        crowned=_crowned(decided, intent),
        rollout=None if row is None else _rollout(row, decided),
        alarms=tuple(_alarm(row) for row in alarms),
        run=Run(id=runs[-1].id, pipeline=runs[-1].pipeline, status=runs[-1].status) if runs else None,
        teacher=next((s for s in ("suspect", "held", "trusted") if s in statuses), None),
        trigger=str(gauges["trigger"].value.get("last", "")) if "trigger" in gauges else "",
        spec=spec,
    )


def _decisions(store: ControlStore, workload: str) -> Sequence[LedgerRow]:
    """The last entries about who serves, newest first."""
    told = or_(LedgerRow.action.startswith("rollout "), LedgerRow.action.in_(("first champion", "rollback")))
    query = select(LedgerRow).where(LedgerRow.workload == workload, told).order_by(LedgerRow.seq.desc()).limit(LEDGER)
    with store.session() as s:
        return s.scalars(query).all()


def _crowned(decided: Sequence[LedgerRow], intent: Intent) -> Crowned | None:
    champion = intent.champion.version if intent.champion else None
    for entry in decided:
        version = _made_champion(entry)
        if version is None:
            continue
        if version != champion:
            return None  # written to the routing, not yet to the ledger
        return Crowned(
            version=version, how=entry.action.removeprefix("rollout "), at=entry.at, actor=entry.actor,
            reason=str(entry.detail.get("reason", "")),
        )  # fmt: skip
    return None


def _made_champion(entry: LedgerRow) -> str | None:
    """The version that this decision made champion; None where it made none."""
    named = {"first champion": "version", "rollout promote": "version", "rollback": "to"}.get(entry.action)
    if entry.action == "rollout undo" and "rollback_seconds" in entry.detail:
        named = "champion"  # a promotion was undone; of a step or an abort, the champion stayed
    return None if named is None or entry.detail.get(named) is None else str(entry.detail[named])


def _rollout(row: RolloutRow, decided: Sequence[LedgerRow]) -> Rollout:
    told = row.state
    last = next((e for e in decided if e.detail.get("rollout") == told["id"]), None)
    paused = last is not None and told["phase"] == "paused" and last.action in ("rollout pause", "rollout undo")
    entered = last.at if paused and last is not None else told["entered_at"]
    seen = Rollout(
        id=told["id"],
        phase=told["phase"],
        candidate=told["candidate"]["version"],
        champion=told["champion"]["version"],
        at=entered if told.get("ended_at") is None else told["ended_at"],
        reason=told.get("reason", ""),
        actor=last.actor if last is not None else "",
    )
    return _evidence(told, seen) if under_way(seen) else seen


def _evidence(told: dict[str, Any], seen: Rollout) -> Rollout:
    """The rollout with its guards' evidence and its step's weight; of one that has ended nobody asks for them."""
    from serving.rollout.guards import assess
    from serving.rollout.state import from_dict

    state = from_dict(told)
    evidence = sum(g.share * g.e_value for g in assess(state.guards, state.policy))
    return msgspec.structs.replace(seen, weight=state.weight, evidence=evidence, limit=1.0 / state.policy.alpha)


def _alarm(row: AlarmRow) -> Alarm:
    return Alarm(kind=row.kind, at=row.at, champion=row.detail.get("champion"), rollout=row.detail.get("rollout"))
