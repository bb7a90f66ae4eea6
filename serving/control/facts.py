"""The facts from which a workload's condition follows, read from the control database (:mod:`serving.rollout`).

They are read for one workload or for many by the same few questions. Who reads them again and again keeps
:class:`Known`, so that decisions and rollouts that have not changed are not read anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Text, cast, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

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
from serving.rollout.condition import (
    FAILED,
    LOADING,
    MOST_AGE,
    RETENTION,
    Alarm,
    Crowned,
    Facts,
    Promise,
    Rollout,
    Run,
    under_way,
)

LEDGER = 50
"""Entries about rollouts that are looked at for the one by which the champion serves; a rollout makes about ten."""

ALARMS = 20
"""Alarms that are looked at."""

TOLD = or_(LedgerRow.action.startswith("rollout "), LedgerRow.action.in_(("first champion", "rollback")))
"""Which entries of the ledger are about who serves."""

ENTRY = (LedgerRow.at, LedgerRow.actor, LedgerRow.action, LedgerRow.detail)

FEW = 20
"""So many workloads are asked for by their names; of more, all rows are read, which takes less."""

Names = Sequence[str]


class Decided(NamedTuple):
    """An entry of the ledger about who serves."""

    at: float
    actor: str
    action: str
    detail: dict[str, Any]


def read_facts(store: ControlStore, workload: str, now: float, *, leader_term: float, spec: str = "SPEC") -> Facts:
    """What is known of a workload at ``now`` (Unix seconds). Asks a few small questions, however long its history.

    ``leader_term``: ``COHOBATE_LEADER_SECONDS``; ``spec``: its spec's name or path, for the commands to press.
    """
    specs = {workload: spec}
    return read_all(store, [workload], now, leader_term=leader_term, specs=specs, every_report=True)[workload]


class Known:
    """What was read before and holds still. ``decided``: by workload, the last entries of the ledger, newest first.

    ``rollouts``: by workload, the last one as a fact, with the id and revision of the row that it was made of.
    ``alarms``: by workload, how many there were, the id of the last, and the open ones of the last.
    ``concluded``: by workload, what followed from its entries, champion and rollout, which it begins with.
    For one thread at a time.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.decided: dict[str, tuple[Decided, ...]] = {}
        self.rollouts: dict[str, tuple[str, int, dict[str, Any]]] = {}
        self.alarms: dict[str, tuple[int, int, list[Alarm]]] = {}
        self.concluded: dict[str, tuple[Any, str | None, Any, Crowned | None, Rollout | None]] = {}

    def learn(self, s: Session, workloads: Names) -> None:
        """Read the entries that came since the last time; of a workload that is new here, its last ones."""
        top = s.scalar(select(func.max(LedgerRow.seq))) or 0
        if top < self.seq:  # another ledger was put in its place
            self.decided.clear()
            self.rollouts.clear()
            self.alarms.clear()
        if self.decided and top > self.seq:
            came = select(LedgerRow.workload, *ENTRY).where(LedgerRow.seq > self.seq, LedgerRow.seq <= top, TOLD)
            for workload, *entry in s.execute(came.order_by(LedgerRow.seq)):
                if workload in self.decided:
                    self.decided[workload] = (Decided(*entry), *self.decided[workload])[:LEDGER]
        for workload in workloads:
            if workload not in self.decided:
                mine = select(*ENTRY).where(LedgerRow.workload == workload, LedgerRow.seq <= top, TOLD)
                last = s.execute(mine.order_by(LedgerRow.seq.desc()).limit(LEDGER))
                self.decided[workload] = tuple(Decided(*entry) for entry in last)
        self.seq = top

    def conclude(
        self, workload: str, champion: str | None, told: dict[str, Any] | None
    ) -> tuple[Crowned | None, Rollout | None]:
        """How the champion came to serve, and the last rollout as a fact; worked out anew where something changed."""
        decided, kept = self.decided[workload], self.concluded.get(workload)
        if kept is None or kept[0] is not decided or kept[1] != champion or kept[2] is not told:
            rollout = None if told is None else _rollout(told, decided)
            kept = self.concluded[workload] = (decided, champion, told, _crowned(decided, champion), rollout)
        return kept[3], kept[4]


def of(workload: InstrumentedAttribute[str], workloads: Names) -> ColumnElement[bool]:
    """Which rows to read for so many workloads; others' may be among them."""
    return workload.in_(workloads) if len(workloads) <= FEW else true()


def by_worker(name: str) -> ColumnElement[bool]:
    """The reports of workers of a kind: ``labeler-2`` is a labeler."""
    return or_(GaugeRow.name == name, GaugeRow.name.startswith(f"{name}-"))


def read_all(
    store: ControlStore,
    workloads: Names,
    now: float,
    *,
    leader_term: float,
    specs: Mapping[str, str] | None = None,
    known: Known | None = None,
    every_report: bool = False,
) -> dict[str, Facts]:
    """The same of several workloads, by name. ``known`` is brought up to date.

    ``every_report``: the ages of all reports are wanted, not only of those that are too old.
    """
    known = known or Known()
    with store.session() as s:
        known.learn(s, workloads)
        rollouts = _rollouts(s, workloads, known)
        routing = select(RoutingRow.workload, cast(RoutingRow.intent, Text)).where(of(RoutingRow.workload, workloads))
        intents = {workload: msgspec.json.decode(text, type=Intent) for workload, text in s.execute(routing)}
        heard = select(AckRow.workload, AckRow.detail).where(
            of(AckRow.workload, workloads), AckRow.at >= store.clock() - ALIVE_SECONDS
        )
        replicas: dict[str, list[Mapping[str, Any]]] = {}
        for workload, said in s.execute(heard):
            replicas.setdefault(workload, []).append(said)
        leading = select(LeaderRow.name, LeaderRow.at).where(LeaderRow.holder != NOBODY)
        leaders = {name: at for name, at in s.execute(leading)}
        reports, triggers, absent = _reports(s, workloads, now, every=every_report)
        alarms, runs, statuses = _alarms(s, workloads, known), _runs(s, workloads), _statuses(s, workloads)
        promises = _promises(s, [workload for workload, intent in intents.items() if intent.guard is not None])
    found = {}
    for workload in workloads:
        intent = intents.get(workload, Intent())
        sign = leaders.get(f"controller/{workload}")
        taught = statuses.get(workload, set())
        champion = intent.champion.version if intent.champion else None
        crowned, rollout = known.conclude(workload, champion, rollouts.get(workload))
        found[workload] = Facts(
            now=now,
            workload=workload,
            champion=champion,
            candidate=intent.candidate.version if intent.candidate else None,
            previous=intent.previous.version if intent.previous else None,
            weight=intent.weight_at(now),
            replicas=len(replicas.get(workload, ())),
            leader_age=None if sign is None else max(0.0, now - sign),
            leader_term=leader_term,
            reports=reports.get(workload, {}),
            crowned=crowned,
            rollout=rollout,
            alarms=tuple(alarms.get(workload, ())),
            run=runs.get(workload),
            teacher=next((word for word in ("suspect", "held", "trusted") if word in taught), None),
            trigger=triggers.get(workload, ""),
            spec=(specs or {}).get(workload, "SPEC"),
            guard=_promise(intent, promises.get(workload, {})),
            columns_absent=absent.get(workload),
            refused=_refused(intent, replicas.get(workload, ())),
        )
    return found


def _refused(intent: Intent, replicas: Sequence[Mapping[str, Any]]) -> str:
    """Why the champion answers nowhere, where no live replica has one; empty else."""
    if intent.champion is None or not replicas or any(said.get("champion", "") is not None for said in replicas):
        return ""
    whys = (said.get(kind, {}).get(intent.champion.digest) for kind in ("failed", "waiting") for said in replicas)
    return next((str(why) for why in whys if why), LOADING)


def _reports(
    s: Session, workloads: Names, now: float, *, every: bool
) -> tuple[dict[str, dict[str, float]], dict[str, str], dict[str, tuple[str, ...]]]:
    """The ages of the workers' reports, what the trigger said last, and absent masking columns, by workload."""
    mine = of(GaugeRow.workload, workloads)
    reported = select(GaugeRow.workload, GaugeRow.name, GaugeRow.at).where(mine)
    if not every:
        reported = reported.where(or_(*(by_worker(name) & (GaugeRow.at < now - age) for name, age in MOST_AGE.items())))
    ages: dict[str, dict[str, float]] = {}
    for workload, name, at in s.connection().execute(reported.order_by(GaugeRow.workload, GaugeRow.name)):
        ages.setdefault(workload, {})[name] = max(0.0, now - at)
    last = select(GaugeRow.workload, GaugeRow.value["last"].as_string()).where(mine, GaugeRow.name == "trigger")
    triggers = {workload: said or "" for workload, said in s.connection().execute(last)}
    absent = select(GaugeRow.workload, GaugeRow.value["columns_absent"]).where(mine, GaugeRow.name == "masking")
    columns = {workload: tuple(names) for workload, names in s.connection().execute(absent) if names is not None}
    return ages, triggers, columns


def _promises(s: Session, workloads: Names) -> dict[str, dict[str, Any]]:
    """Since when, and why, workloads are guarded."""
    if not workloads:
        return {}
    value = GaugeRow.value
    query = select(GaugeRow.workload, value["guarded_at"].as_float(), value["reason"].as_string())
    found = s.execute(query.where(of(GaugeRow.workload, workloads), GaugeRow.name == "certificate"))
    return {workload: {"at": at, "reason": reason or ""} for workload, at, reason in found}


def _promise(intent: Intent, known: Mapping[str, Any]) -> Promise | None:
    guard = intent.guard
    if guard is None or intent.champion is None or guard.digest != intent.champion.digest:
        return None
    return Promise(defer_below=guard.defer_below, at=known.get("at"), reason=known.get("reason", ""))


def _alarms(s: Session, workloads: Names, known: Known) -> dict[str, list[Alarm]]:
    """Those of the last alarms of each workload that were not answered, oldest first.

    They are read again where another was raised, and where there are any: they may be answered by now.
    """
    counted = select(AlarmRow.workload, func.count(), func.max(AlarmRow.id)).where(of(AlarmRow.workload, workloads))
    asked = set(workloads)
    seen = {w: (count, last) for w, count, last in s.execute(counted.group_by(AlarmRow.workload)) if w in asked}
    stale = [w for w in seen if _may_differ(known.alarms.get(w), seen[w])]
    found: dict[str, tuple[int, int, list[Alarm]]] = {workload: (*seen[workload], []) for workload in stale}
    if stale:
        answered, champion, rollout = (AlarmRow.detail[n].as_string() for n in ("answered", "champion", "rollout"))
        query = select(AlarmRow.workload, AlarmRow.id, AlarmRow.kind, AlarmRow.at, champion, rollout)
        last = AlarmRow.id.in_(newest(AlarmRow, AlarmRow.id, stale, ALARMS))
        for workload, id_, kind, at, about, own in s.execute(
            query.where(last, answered.is_(None)).order_by(AlarmRow.id)
        ):
            alarm = Alarm(id=id_, kind=kind, at=at, champion=about, rollout=own)
            found[workload][2].append(alarm)
        known.alarms |= found  # once all are read: half of them would count as all
    return {workload: known.alarms[workload][2] for workload in seen}


def _may_differ(known: tuple[int, int, list[Alarm]] | None, seen: tuple[int, int]) -> bool:
    return known is None or known[:2] != seen or bool(known[2])


def _runs(s: Session, workloads: Names) -> dict[str, Run]:
    """The run of each workload that began last. A sweep by age counts where it failed, after a run that did not."""
    last = (
        select(RunRow.workload, RunRow.pipeline, func.max(RunRow.started_at).label("at"))
        .where(of(RunRow.workload, workloads))
        .group_by(RunRow.workload, RunRow.pipeline)
        .subquery()
    )
    mine = (RunRow.workload == last.c.workload) & (RunRow.pipeline == last.c.pipeline)
    query = select(RunRow.workload, RunRow.id, RunRow.pipeline, RunRow.status)
    query = query.join(last, mine & (RunRow.started_at == last.c.at)).order_by(RunRow.started_at)
    found: dict[str, Run] = {}
    for workload, run, pipeline, status in s.connection().execute(query):
        before = found.get(workload)
        if pipeline != RETENTION or (status in FAILED and (before is None or before.status not in FAILED)):
            found[workload] = Run(id=run, pipeline=pipeline, status=status)
    return found


def _statuses(s: Session, workloads: Names) -> dict[str, set[str]]:
    """What the teachers of each workload are: their probes and answers are not read."""
    query = select(TeacherRow.workload, TeacherRow.state["status"].as_string())
    found: dict[str, set[str]] = {}
    for workload, status in s.execute(query.where(of(TeacherRow.workload, workloads))):
        found.setdefault(workload, set()).add(status)
    return found


def _rollouts(s: Session, workloads: Names, known: Known) -> dict[str, dict[str, Any]]:
    """The state of the rollout of each workload that began last; one that has not changed is not read again."""
    last = (
        select(RolloutRow.workload, func.max(RolloutRow.created_at).label("at"))
        .where(of(RolloutRow.workload, workloads))
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


def _crowned(decided: Sequence[Decided], champion: str | None) -> Crowned | None:
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


def _made_champion(entry: Decided) -> str | None:
    """The version that this decision made champion; None where it made none."""
    named = {"first champion": "version", "rollout promote": "version", "rollback": "to"}.get(entry.action)
    if entry.action == "rollout undo" and "rollback_seconds" in entry.detail:
        named = "champion"  # a promotion was undone; of a step or an abort, the champion stayed
    return None if named is None or entry.detail.get(named) is None else str(entry.detail[named])


def _rollout(told: Mapping[str, Any], decided: Sequence[Decided]) -> Rollout:
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
