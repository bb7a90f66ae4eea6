"""What ``cohobate status`` shows, read from the control database and the registry; works with the platform down.

``cohobate status --json`` prints a :class:`Report`; ``docs/status.schema.json`` is its JSON Schema (:func:`schema`).
Members are added, never renamed or taken away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from components.contracts.errors import NotFoundError
from components.contracts.reference import Reference
from components.contracts.settings import Settings
from components.control import several
from components.control.looks import said
from components.control.schema import SchemaError
from components.control.store import ControlStore
from components.control.workloads import Version, registered
from components.registry import glance
from components.telemetry.announced import announced
from infra.state import read_state
from serving.control.facts import Known, read_all
from serving.rollout.condition import Condition, Crowned, Facts, condition, stale_reports

LAST = 5
"""How many runs and alarms are shown."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version. ``defer_below``: the confidence below which its answers defer."""

    version: str
    aliases: tuple[str, ...]
    teacher: str
    defer_below: float | None


class NotOurs(msgspec.Struct, frozen=True, kw_only=True):
    """A version that no pipeline registered."""

    version: str
    aliases: tuple[str, ...]


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """The intent: which versions serve. ``weight``: the candidate's share in force, in [0, 1]."""

    revision: int
    champion: str | None
    candidate: str | None
    previous: str | None
    weight: float
    shadow: bool


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """A live replica, the revision of the routing that it has applied, and the age of its last sign of life."""

    replica: str
    revision: int
    age_seconds: float


class Windows(msgspec.Struct, frozen=True, kw_only=True):
    """How many windows were frozen, and the labels in them.

    ``learnt_share``: of the labels by the teacher of the newest one, those that it lets a student learn from, in
    [0, 1]; null where it was frozen before that was known.
    """

    count: int
    labels: int
    learnt_share: float | None = None


class RunSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline run. ``seconds``: how long it took, or has taken so far."""

    id: str
    pipeline: str
    status: str
    reason: str
    seconds: float


class AlarmSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm, and the count of inputs when it was raised."""

    kind: str
    input_index: int
    age_seconds: float


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """The version of the spec that is in force, its bundle's digest, and who made it a version, why and when."""

    version: int
    digest: str
    actor: str
    reason: str
    age_seconds: float


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """All of one workload.

    ``rollout``: the state of the last one, as its state machine keeps it. ``gauges``: what the workers reported last,
    by the report's name, each with its ``age_seconds``; ``stale``: the names of those that are older than they should
    be. ``crowned``: the decision by which the champion serves. ``runs`` and ``alarms``: the last, oldest first.
    ``spec``: the registry's version in force, null of a workload that is not registered.
    """

    condition: Condition
    crowned: Crowned | None
    models: tuple[Model, ...]
    not_ours: tuple[NotOurs, ...]
    intent: Routing
    replicas: tuple[Replica, ...]
    rollout: dict[str, Any] | None
    windows: Windows
    gauges: dict[str, dict[str, Any]]
    stale: tuple[str, ...]
    runs: tuple[RunSeen, ...]
    alarms: tuple[AlarmSeen, ...]
    spec: Registered | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The platform and its workloads. Times are Unix seconds, ages seconds.

    ``processes``: process ids by name, null for one that does not run; ``metrics``: where workers answer Prometheus.
    """

    home: str
    up: bool
    gateway: str | None
    kafka: str
    processes: dict[str, int | None]
    metrics: dict[str, str]
    workloads: dict[str, Workload]


def schema() -> dict[str, Any]:
    """The JSON Schema of ``cohobate status --json``."""
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "cohobate status --json"}
    return found | msgspec.json.schema(Report)


def read(settings: Settings, only: str | None = None) -> Report:
    """Everything that ``status`` shows; of the workload ``only`` alone, where one is named.

    Raises:
        NotFoundError: there is none of this name.

    """
    state = read_state(settings)
    store = _store(settings)
    try:
        return Report(
            home=str(settings.home.resolve()),
            up=state is not None and state.alive and state.ready,
            gateway=state.gateway if state else None,
            kafka=settings.kafka,
            processes=state.children if state and state.alive else {},
            metrics=announced(settings.home),
            workloads=_workloads(store, settings, only),
        )
    finally:
        if store:
            store.close()


def _store(settings: Settings) -> ControlStore | None:
    """The control database; None where there is none yet. A look creates and migrates nothing."""
    try:
        return ControlStore.open(settings.control_url)
    except SchemaError as error:
        if error.schema.state == "missing":
            return None
        raise


def _workloads(store: ControlStore | None, settings: Settings, only: str | None) -> dict[str, Workload]:
    """All workloads, or one; by as many questions to the database and to the registry as one takes."""
    versions = registered(store) if store else {}
    known = sorted({*versions, *store.workloads()}) if store else []
    if only is not None and only not in known:
        named = ", ".join(known) or "there is none yet"
        raise NotFoundError("workload", only, f"known to {settings.home.resolve()}: {named}")
    names = known if only is None else [only]
    if store is None or not names:
        return {}
    now, models = store.clock(), glance.versions_of(settings, names)
    seen = several.shown(store, names, LAST)
    specs = {name: str(Reference(name)) for name in names if name in versions}
    kept = Known()
    facts = read_all(store, names, now, leader_term=settings.leader_seconds, specs=specs, known=kept)
    rollouts = {name: state for name, (_, _, state) in kept.rollouts.items()}
    return {
        name: _workload(now, models[name], seen[name], facts[name], rollouts.get(name), versions.get(name))
        for name in names
    }


def _workload(
    now: float,
    models: Sequence[glance.Glimpse],
    seen: several.Shown,
    facts: Facts,
    rollout: dict[str, Any] | None,
    version: Version | None,
) -> Workload:
    intent = seen.intent
    return Workload(
        condition=condition(facts),
        crowned=facts.crowned,
        models=tuple(
            Model(version=v.version, aliases=v.aliases, teacher=v.teacher[:40], defer_below=v.defer_below)
            for v in models
            if v.ours
        ),
        not_ours=tuple(NotOurs(version=v.version, aliases=v.aliases) for v in models if not v.ours),
        intent=Routing(
            revision=seen.revision,
            champion=intent.champion.version if intent.champion else None,
            candidate=intent.candidate.version if intent.candidate else None,
            previous=intent.previous.version if intent.previous else None,
            weight=intent.weight_at(now),
            shadow=intent.shadow,
        ),
        replicas=tuple(
            Replica(replica=a.replica, revision=a.revision, age_seconds=_age(now, a.at)) for a in seen.replicas
        ),
        rollout=rollout,
        windows=Windows(
            count=seen.windows.windows, labels=seen.windows.rows, learnt_share=seen.windows.newest.get("learnt_share")
        ),
        gauges={name: {"age_seconds": _age(now, g.at), **said(g.value)} for name, g in seen.gauges.items()},
        stale=tuple(stale_reports(facts.reports)),
        runs=tuple(
            RunSeen(id=r.id, pipeline=r.pipeline, status=r.status, reason=r.reason,
                    seconds=_age(r.finished_at or now, r.started_at))
            for r in seen.runs
        ),
        alarms=tuple(
            AlarmSeen(kind=a.kind, input_index=a.input_index, age_seconds=_age(now, a.at)) for a in seen.alarms
        ),
        spec=Registered(
            version=version.number, digest=version.digest, actor=version.actor, reason=version.reason,
            age_seconds=_age(now, version.at),
        ) if version is not None else None,
    )  # fmt: skip


def _age(now: float, at: float) -> float:
    """Seconds since ``at``; what was written while this was read, or by a clock that is ahead, is new."""
    return round(max(0.0, now - at), 1)
