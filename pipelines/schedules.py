"""Schedules of a workload's pipelines on a Kubeflow server: one for each pipeline, replaced and never doubled.

The server lets any number of recurring runs have one name. So each of ours says in its description which generation it
is, and the greatest one (of equals, the greatest id) is the schedule; whoever sees others takes them away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from components.contracts.errors import CohobateError, ConfigError, NotFoundError, PipelineError
from components.contracts.settings import Settings
from pipelines.cron import Timing, read_by_server, told, upcoming, zone_of
from pipelines.kubeflow_api import Kubeflow
from pipelines.parameters import PARAMETERS
from pipelines.placing import SCHEDULED, Placed, experiment_of, remember, undoing

GENERATION = re.compile(r"\(generation (\d+), by cohobate\)")

OWN_COPY = "a copy of its own"
"""The version of a schedule that was made with the pipeline's text instead of a version."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule on the server.

    ``cron``: as the server holds it; ``next``: the next times in UTC (ISO 8601), none where it is disabled or not
    understood; ``version``: the name of the pipeline's version that it runs.
    """

    id: str
    pipeline: str
    cron: str
    enabled: bool
    version: str
    next: tuple[str, ...]
    parameters: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """For a person, a line and one for each of the next times."""
        state = "enabled" if self.enabled else "disabled"
        lines = [f"{self.pipeline}: {self.cron}, {state}, version {self.version}, id {self.id}"]
        return "\n".join([*lines, *(f"  next {told(datetime.fromisoformat(time))}" for time in self.next)])


def put_schedule(
    server: Kubeflow,
    placed: Placed,
    when: Timing,
    parameters: Mapping[str, Any],
    *,
    workload: str,
    reason: str,
    settings: Settings,
) -> Schedule:
    """Make a schedule of an installed pipeline in place of the one that is there.

    Missed times are not made up for, and one run is under way at a time. Any number of callers may do this at once,
    and one schedule is left:

    1. See which schedules are there, and count on from the greatest generation.
    2. Make the new one. From here on both are there, so that no time is missed.
    3. Look again, and take away all but the greatest. Nobody ever takes that one away, and whoever made it sees all
       that were made before it, while those that come later see it.

    Raises:
        PipelineError: another caller scheduled something else at the same moment, and that stays; or an older one could
            not be taken away.
        RefusedError, UnavailableError, AccessError: see :mod:`pipelines.kubeflow_api`.

    """
    experiment = experiment_of(server, workload)
    # Step 1
    last = max((_generation(row) for row in _rows(server, experiment, placed.name)), default=0)
    # Step 2
    body = {
        "display_name": placed.name,
        "description": f"{reason} (generation {last + 1}, by cohobate)",
        "experiment_id": experiment,
        "pipeline_version_reference": {"pipeline_id": placed.pipeline_id, "pipeline_version_id": placed.version_id},
        "runtime_config": {"parameters": dict(parameters)},
        "max_concurrency": "1",
        "no_catchup": True,
        "mode": "ENABLE",
        "trigger": {"cron_schedule": {"cron": when.sent}},
    }
    if settings.kfp_service_account:
        body["service_account"] = settings.kfp_service_account
    with undoing("schedule", workload) as undo:
        made = server.ask("POST", "recurringruns", body=body)
        remember(undo, f"schedule {made['recurring_run_id']}", server, f"recurringruns/{made['recurring_run_id']}")
        # Step 3
        *others, kept = sorted(_rows(server, experiment, placed.name), key=_rank) or [made]
    for row in others:
        _remove(server, row, workload)
    if _does(kept) != _does(made):
        detail = f"another caller scheduled {placed.name} as {_cron(kept)} at the same moment, and that stays"
        raise PipelineError("schedule", workload, detail)
    return _schedule(server, kept, settings, {placed.version_id: placed.version})


def standing(server: Kubeflow, workload: str, name: str) -> tuple[Timing, dict[str, Any]]:
    """When the schedule of a workload's pipeline runs, and with which parameters: to be made anew as it is.

    Raises:
        NotFoundError: there is none.
        ConfigError: its expression is not understood here.

    """
    found = server.experiment(workload)
    rows = _rows(server, found["experiment_id"], f"{workload}-{name}") if found else []
    if not rows:
        raise NotFoundError("schedule", f"{workload}-{name}", "--cron says when it is to run")
    kept = max(rows, key=_rank)
    when = read_by_server(_cron(kept))
    if when is None:
        raise ConfigError("cron", _cron(kept), "is not understood: say it anew with --cron")
    return when, dict(kept.get("runtime_config", {}).get("parameters", {}))


def schedules(server: Kubeflow, workload: str, settings: Settings) -> list[Schedule]:
    """All schedules of a workload's pipelines, those too that are double or were made without a version."""
    found = server.experiment(workload)
    if found is None:
        return []
    rows = [row for name in PARAMETERS for row in _rows(server, found["experiment_id"], f"{workload}-{name}")]
    known: dict[str, str] = {}
    return [_schedule(server, row, settings, known) for row in rows]


def unschedule(server: Kubeflow, workload: str, name: str) -> list[str]:
    """Take away all schedules of a workload's pipeline; returns their ids."""
    found = server.experiment(workload)
    rows = _rows(server, found["experiment_id"], f"{workload}-{name}") if found else []
    for row in rows:
        server.find("DELETE", f"recurringruns/{row['recurring_run_id']}")
    return [str(row["recurring_run_id"]) for row in rows]


def outdated(server: Kubeflow, workload: str, experiment: str, placed: Mapping[str, Placed]) -> list[str]:
    """Names of the pipelines with a schedule that runs another version than the one that was placed."""
    return [
        name
        for name, one in placed.items()
        if any(_version_id(row) != one.version_id for row in _rows(server, experiment, f"{workload}-{name}"))
    ]


def users_of(server: Kubeflow, pipelines: set[str]) -> list[str]:
    """Names of all schedules of the namespace that run one of the pipelines with these ids, whoever made them."""
    rows = server.each(*SCHEDULED, server.place)
    return sorted(
        str(row.get("display_name"))
        for row in rows
        if (row.get("pipeline_version_reference") or {}).get("pipeline_id") in pipelines
    )


def _rows(server: Kubeflow, experiment: str, name: str) -> list[dict[str, Any]]:
    rows = server.each(*SCHEDULED, {"experiment_id": experiment})
    return [row for row in rows if row.get("display_name") == name]


def _remove(server: Kubeflow, row: Mapping[str, Any], workload: str) -> None:
    try:
        server.find("DELETE", f"recurringruns/{row['recurring_run_id']}")
    except CohobateError as error:
        detail = f"{error}; the older one {row['recurring_run_id']} is still there, and runs too: schedule once more"
        raise PipelineError("schedule", workload, detail) from error


def _generation(row: Mapping[str, Any]) -> int:
    """0 of one that was made otherwise."""
    found = GENERATION.search(str(row.get("description", "")))
    return int(found[1]) if found else 0


def _rank(row: Mapping[str, Any]) -> tuple[int, str]:
    return _generation(row), str(row["recurring_run_id"])


def _cron(row: Mapping[str, Any]) -> str:
    trigger = row.get("trigger", {})
    if "periodic_schedule" in trigger:
        return f"@every {trigger['periodic_schedule'].get('interval_second')}s"
    return str(trigger.get("cron_schedule", {}).get("cron", ""))


def _version_id(row: Mapping[str, Any]) -> str:
    return str((row.get("pipeline_version_reference") or {}).get("pipeline_version_id", ""))


def _does(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return _cron(row), _version_id(row), row.get("runtime_config", {}).get("parameters", {})


def _schedule(server: Kubeflow, row: Mapping[str, Any], settings: Settings, known: dict[str, str]) -> Schedule:
    """A row of the server; ``known``: names of versions by their ids, to which it adds what it asks for."""
    cron, enabled = _cron(row), row.get("status", "ENABLED") == "ENABLED"
    when = read_by_server(cron) if enabled else None
    times: Sequence[datetime] = upcoming(when, datetime.now(UTC), zone_of(settings.kfp_timezone)) if when else ()
    reference, version = row.get("pipeline_version_reference") or {}, _version_id(row)
    if version and version not in known:
        found = server.find("GET", f"pipelines/{reference.get('pipeline_id')}/versions/{version}")
        known[version] = str(found.get("name") or found.get("display_name")) if found else f"{version} (removed)"
    return Schedule(
        id=str(row["recurring_run_id"]), pipeline=str(row["display_name"]), cron=cron, enabled=enabled,
        version=known[version] if version else OWN_COPY, next=tuple(time.isoformat() for time in times),
        parameters=dict(row.get("runtime_config", {}).get("parameters", {})),
    )  # fmt: skip
