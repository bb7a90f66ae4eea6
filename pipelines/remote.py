"""Starting runs on a Kubeflow server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from components.contracts.errors import ConfigError
from components.contracts.reference import parse
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from pipelines.compiled import Package
from pipelines.kubeflow_api import Kubeflow
from pipelines.parameters import arguments, place_in_image
from pipelines.placing import experiment_of

REASON_CHARACTERS = 60
"""As much of the reason as a run's name has room for."""


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """A run on the cluster."""

    id: str
    name: str
    host: str


def run_name(pipeline: str, workload: str, reason: str, now: datetime) -> str:
    """A name that tells a run apart in a list of runs."""
    why = re.sub(r"\s+", " ", reason).strip()[:REASON_CHARACTERS]
    return f"{pipeline} {workload} {now.astimezone(UTC):%Y-%m-%d %H:%M:%S}{f': {why}' if why else ''}"


def arguments_there(
    name: str, spec_path: str, given: Mapping[str, str], reason: str, settings: Settings
) -> dict[str, Any]:
    """A pipeline's arguments (:func:`pipelines.parameters.arguments`) as the steps of a cluster can read them.

    Raises:
        ConfigError: a parameter is missing or wrong, or nothing tells where the steps have the spec.

    """
    made = arguments(name, spec_path, given, reason)
    if "://" not in given.get("history_uri", "://"):
        raise ConfigError("param history_uri", given["history_uri"], "must be a URI that the steps can read: s3://…")
    return {**made, "spec": _place(spec_path, settings, given.get("spec", ""))}


def _place(source: str, settings: Settings, given: str) -> str:
    """What the steps read the spec by: its place in their image, or its bundle where they reach the artifact root."""
    if not given and parse(source) is not None and not settings.artifacts.startswith("file://"):
        return source
    return place_in_image(load_spec(source), settings, given)


def submit(
    server: Kubeflow,
    package: Package,
    made: Mapping[str, Any],
    *,
    workload: str,
    reason: str,
    settings: Settings,
    called: str = "",
) -> Submitted:
    """Start one run of a pipeline, in the experiment of the workload; ``called``: its name, empty: :func:`run_name`.

    Raises:
        RefusedError, UnavailableError, AccessError: see :mod:`pipelines.kubeflow_api`.

    """
    body = {
        "display_name": called or run_name(package.name, workload, reason, datetime.now(UTC)),
        "experiment_id": experiment_of(server, workload),
        "pipeline_spec": package.body,
        "runtime_config": {"parameters": dict(made)},
    }
    if settings.kfp_service_account:
        body["service_account"] = settings.kfp_service_account
    run = server.ask("POST", "runs", body=body)
    return Submitted(id=str(run["run_id"]), name=str(run["display_name"]), host=server.host)
