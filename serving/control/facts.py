"""The facts from which a workload's condition follows, read from the control database (:mod:`serving.rollout`).

They are read for one workload or for many by the same few questions. Who reads them again and again keeps
:class:`Known`, so that decisions and rollouts that have not changed are not read anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from components.control.intent import Intent
from components.control.leader import NOBODY
from components.control.several import newest
from components.control.store import ALIVE_SECONDS, ControlStore
from components.control.tables import (
    AckRow,
    AlarmRow,
    GaugeRow,
    LeaderRow,
    LedgerRow,
    RolloutRow,
    RoutingRow,
    RunRow,
    TeacherRow,
)
from serving.rollout.condition import FAILED, RETENTION, Alarm, Crowned, Facts, Promise, Rollout, Run, under_way

LEDGER = 50
"""Entries about rollouts that are looked at for the one by which the champion serves; a rollout makes about ten."""

ALARMS = 20
"""Alarms that are looked at."""

TOLD = or_(LedgerRow.action.startswith("rollout "), LedgerRow.action.in_(("first champion", "rollback")))
"""Which entries of the ledger are about who serves."""

Names = Sequence[str]


def read_facts(store: ControlStore, workload: str, now: float, *, leader_term: float, spec: str = "SPEC") -> Facts:
    """What is known of a workload at ``now`` (Unix seconds). Asks a few small questions, however long its history.

    ``leader_term``: ``COHOBATE_LEADER_SECONDS``; ``spec``: its spec's name or path, for the commands to press.
    """
    return read_all(store, [workload], now, leader_term=leader_term, specs={workload: spec})[workload]


class Known:
    """What was read before and holds still. ``decided``: by workload, the last entries of the ledger, newest first.

    ``rollouts``: by workload, the last one as a fact, with the id and revision of the row that it was made of.
    For one thread at a time.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.decided: dict[str, list[LedgerRow]] = {}
        self.rollouts: dict[str, tuple[str, int, dict[str, Any]]] = {}

    def learn(self, s: Session, workloads: Names) -> None:
        """Read the entries that came since the last time; of a workload that is new here, its last ones."""
        top = s.scalar(select(func.max(LedgerRow.seq))) or 0
        if top < self.seq:  # another ledger was put in its place
            self.decided.clear()
        if self.decided and top > self.seq:
            came = select(LedgerRow).where(LedgerRow.seq > self.seq, LedgerRow.seq <= top, TOLD).order_by(LedgerRow.seq)
            for row in s.scalars(came):
                if row.workload in self.decided:
                    self.decided[row.workload].insert(0, row)
                    del self.decided[row.workload][LEDGER:]
        for workload in workloads:
            if workload not in self.decided:
                mine = select(LedgerRow).where(LedgerRow.workload == workload, LedgerRow.seq <= top, TOLD)
                self.decided[workload] = list(s.scalars(mine.order_by(LedgerRow.seq.desc()).limit(LEDGER)))
        self.seq = top


def read_all(
    store: ControlStore,
    workloads: Names,
    now: float,
    *,
    leader_term: float,
    specs: Mapping[str, str] | None = None,
    known: Known | None = None,
) -> dict[str, Facts]:
    """The same of several workloads, by name. ``known`` is brought up to date."""
    known = known or Known()
    with store.session() as s:
        known.learn(s, workloads)
        rollouts = _rollouts(s, workloads, known)
        intents = {
            row.workload: msgspec.convert(row.intent, Intent)
            for row in s.execute(
                select(RoutingRow.workload, RoutingRow.intent).where(RoutingRow.workload.in_(workloads))
            )
        }
        heard = (
            select(AckRow.workload, func.count())
            .where(AckRow.workload.in_(workloads), AckRow.at >= store.clock() - ALIVE_SECONDS)
            .group_by(AckRow.workload)
        )
        replicas = {workload: count for workload, count in s.execute(heard)}
        leading = select(LeaderRow.name, LeaderRow.at).where(LeaderRow.holder != NOBODY)
        leaders = {name: at for name, at in s.execute(leading)}
        reports, triggers, absent = _reports(s, workloads, now)
        alarms, runs, statuses = _alarms(s, workloads), _runs(s, workloads), _statuses(s, workloads)
        promises = _promises(s, [workload for workload, intent in intents.items() if intent.guard is not None])
    found = {}
    for workload in workloads:
        intent = intents.get(workload, Intent())
        sign = leaders.get(f"controller/{workload}")
        taught = statuses.get(workload, set())
        decided = known.decided[workload]
        found[workload] = Facts(
            now=now,
            workload=workload,
            champion=intent.champion.version if intent.champion else None,
            candidate=intent.candidate.version if intent.candidate else None,
            previous=intent.previous.version if intent.previous else None,
            weight=intent.weight_at(now),
            replicas=replicas.get(workload, 0),
            leader_age=None if sign is None else max(0.0, now - sign),
            leader_term=leader_term,
            reports=reports.get(workload, {}),
            crowned=_crowned(decided, intent),
            rollout=_rollout(rollouts[workload], decided) if workload in rollouts else None,
            alarms=tuple(alarms.get(workload, ())),
            run=runs.get(workload),
            teacher=next((word for word in ("suspect", "held", "trusted") if word in taught), None),
            trigger=triggers.get(workload, ""),
            spec=(specs or {}).get(workload, "SPEC"),
            guard=_promise(intent, promises.get(workload, {})),
            columns_absent=absent.get(workload),
        )
    return found


def _reports(
    s: Session, workloads: Names, now: float
) -> tuple[dict[str, dict[str, float]], dict[str, str], dict[str, tuple[str, ...]]]:
    """The ages of the workers' reports, what the trigger said last, and absent masking columns, by workload."""
    ages: dict[str, dict[str, float]] = {}
    for workload, name, at in s.execute(
        select(GaugeRow.workload, GaugeRow.name, GaugeRow.at)
        .where(GaugeRow.workload.in_(workloads))
        .order_by(GaugeRow.name)
    ):
        ages.setdefault(workload, {})[name] = max(0.0, now - at)
    last = select(GaugeRow.name, GaugeRow.workload, GaugeRow.value)
    said = list(s.execute(last.where(GaugeRow.workload.in_(workloads), GaugeRow.name.in_(("trigger", "masking")))))
    triggers = {workload: str(value.get("last", "")) for name, workload, value in said if name == "trigger"}
    masking = {w: value for name, w, value in said if name == "masking" and "columns_absent" in value}
    return ages, triggers, {w: tuple(value["columns_absent"]) for w, value in masking.items()}


def _promises(s: Session, workloads: Names) -> dict[str, dict[str, Any]]:
    """Since when, and why, workloads are guarded."""
    if not workloads:
        return {}
    value = GaugeRow.value
    query = select(GaugeRow.workload, value["guarded_at"].as_float(), value["reason"].as_string())
    found = s.execute(query.where(GaugeRow.workload.in_(workloads), GaugeRow.name == "certificate"))
    return {workload: {"at": at, "reason": reason or ""} for workload, at, reason in found}


def _promise(intent: Intent, known: Mapping[str, Any]) -> Promise | None:
    guard = intent.guard
    if guard is None or intent.champion is None or guard.digest != intent.champion.digest:
        return None
    return Promise(defer_below=guard.defer_below, at=known.get("at"), reason=known.get("reason", ""))


def _alarms(s: Session, workloads: Names) -> dict[str, list[Alarm]]:
    """The last alarms of each workload, oldest first."""
    columns = (AlarmRow.workload, AlarmRow.id, AlarmRow.kind, AlarmRow.at, AlarmRow.detail)
    query = select(*columns).where(AlarmRow.id.in_(newest(AlarmRow, AlarmRow.id, workloads, ALARMS)))
    found: dict[str, list[Alarm]] = {}
    for workload, id_, kind, at, detail in s.execute(query.order_by(AlarmRow.id)):
        found.setdefault(workload, []).append(_alarm(id_, kind, at, detail))
    return found


def _runs(s: Session, workloads: Names) -> dict[str, Run]:
    """The run of each workload that began last. A sweep by age counts where it failed, after a run that did not."""
    last = (
        select(RunRow.workload, RunRow.pipeline, func.max(RunRow.started_at).label("at"))
        .where(RunRow.workload.in_(workloads))
        .group_by(RunRow.workload, RunRow.pipeline)
        .subquery()
    )
    mine = (RunRow.workload == last.c.workload) & (RunRow.pipeline == last.c.pipeline)
    query = select(RunRow.workload, RunRow.id, RunRow.pipeline, RunRow.status)
    query = query.join(last, mine & (RunRow.started_at == last.c.at)).order_by(RunRow.started_at)
    found: dict[str, Run] = {}
    for workload, run, pipeline, status in s.execute(query):
        before = found.get(workload)
        if pipeline != RETENTION or (status in FAILED and (before is None or before.status not in FAILED)):
            found[workload] = Run(id=run, pipeline=pipeline, status=status)
    return found


def _statuses(s: Session, workloads: Names) -> dict[str, set[str]]:
    """What the teachers of each workload are: their probes and answers are not read."""
    query = select(TeacherRow.workload, TeacherRow.state["status"].as_string())
    found: dict[str, set[str]] = {}
    for workload, status in s.execute(query.where(TeacherRow.workload.in_(workloads))):
        found.setdefault(workload, set()).add(status)
    return found


def _rollouts(s: Session, workloads: Names, known: Known) -> dict[str, dict[str, Any]]:
    """The state of the rollout of each workload that began last; one that has not changed is not read again."""
    last = (
        select(RolloutRow.workload, func.max(RolloutRow.created_at).label("at"))
        .where(RolloutRow.workload.in_(workloads))
        .group_by(RolloutRow.workload)
        .subquery()
    )
    newest = (
        select(RolloutRow.workload, RolloutRow.id, RolloutRow.revision)
        .join(last, (RolloutRow.workload == last.c.workload) & (RolloutRow.created_at == last.c.at))
        .order_by(RolloutRow.id)
    )
    wanted = {workload: (rollout, revision) for workload, rollout, revision in s.execute(newest)}
    stale = [
        rollout for w, (rollout, revision) in wanted.items() if known.rollouts.get(w, ())[:2] != (rollout, revision)
    ]
    if stale:
        query = select(RolloutRow.workload, RolloutRow.id, RolloutRow.revision, RolloutRow.state)
        for workload, rollout, revision, state in s.execute(query.where(RolloutRow.id.in_(stale))):
            known.rollouts[workload] = (rollout, revision, state)
    return {workload: known.rollouts[workload][2] for workload in wanted}


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


def _rollout(told: Mapping[str, Any], decided: Sequence[LedgerRow]) -> Rollout:
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


def _evidence(told: Mapping[str, Any], seen: Rollout) -> Rollout:
    """The rollout with its guards' evidence and its step's weight; of one that has ended nobody asks for them."""
    from serving.rollout.guards import assess
    from serving.rollout.state import from_dict

    state = from_dict(dict(told))
    evidence = sum(g.share * g.e_value for g in assess(state.guards, state.policy))
    return msgspec.structs.replace(seen, weight=state.weight, evidence=evidence, limit=1.0 / state.policy.alpha)


def _alarm(id_: int, kind: str, at: float, detail: Mapping[str, Any]) -> Alarm:
    """An alarm that was answered is no champion's any more."""
    champion = None if "answered" in detail else detail.get("champion")
    return Alarm(id=id_, kind=kind, at=at, champion=champion, rollout=detail.get("rollout"))
