"""Kubeflow Pipelines on a cluster: compile to IR YAML, submit, schedule. The one module that talks to its API."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from components.contracts.errors import ConfigError, UnavailableError
from components.contracts.settings import Settings


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """A run or a recurring run on the cluster."""

    id: str
    name: str
    host: str


def compile_all(directory: Path) -> list[Path]:
    """Compile every pipeline to ``<directory>/<name>.yaml``."""
    from kfp import compiler

    from pipelines.dags import PIPELINES

    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, pipeline in PIPELINES.items():
        path = directory / f"{name}.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        paths.append(path)
    return paths


def submit(name: str, made: Mapping[str, str], *, experiment: str, settings: Settings, workdir: Path) -> Submitted:
    """Start one run on the cluster.

    Raises:
        ConfigError: no host is set.
        UnavailableError: the host does not answer or refuses.
    """
    with _errors(settings):
        client = _client(settings)
        run = client.create_run_from_pipeline_package(
            _package(name, workdir), arguments=dict(made), experiment_name=experiment, enable_caching=False
        )
    return Submitted(id=run.run_id, name=name, host=settings.kfp_host)


def schedule(
    name: str, made: Mapping[str, str], *, cron: str, experiment: str, settings: Settings, workdir: Path
) -> Submitted:
    """Start a recurring run by a cron expression with seconds, as Kubeflow takes it.

    Raises:
        ConfigError: no host is set, or the expression has not six fields.
        UnavailableError: the host does not answer or refuses.
    """
    if len(cron.split()) != 6:
        raise ConfigError("cron", cron, "must have six fields: second minute hour day month weekday")
    with _errors(settings):
        client = _client(settings)
        found = client.create_experiment(experiment)
        job = client.create_recurring_run(
            experiment_id=found.experiment_id,
            job_name=f"{experiment}-{name}",
            cron_expression=cron,
            max_concurrency=1,
            pipeline_package_path=_package(name, workdir),
            params=dict(made),
            enable_caching=False,
        )
    return Submitted(id=job.recurring_run_id, name=name, host=settings.kfp_host)


def _package(name: str, workdir: Path) -> str:
    return str(next(p for p in compile_all(workdir) if p.stem == name))


def _client(settings: Settings) -> Any:
    from kfp import Client

    token = settings.kfp_token
    return Client(host=settings.kfp_host, existing_token=token.get_secret_value() if token else None)


class _errors:
    """Turns what the client raises into errors of ours."""

    def __init__(self, settings: Settings) -> None:
        if not settings.kfp_host:
            raise ConfigError("kfp_host", "", "set COHOBATE_KFP_HOST to the Kubeflow Pipelines API's URL")
        self.host = settings.kfp_host

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        if isinstance(error, ApiException):
            hint = "is COHOBATE_KFP_TOKEN valid?" if error.status in (401, 403) else str(error.body or error.reason)
            raise UnavailableError("Kubeflow Pipelines", self.host, f"status {error.status}: {hint}") from error
        if isinstance(error, HTTPError):
            raise UnavailableError("Kubeflow Pipelines", self.host, "is COHOBATE_KFP_HOST right?") from error
