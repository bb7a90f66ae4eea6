"""Kubeflow Pipelines on a cluster: compile to IR YAML, submit, schedule. The one module that talks to its API."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from components.contracts.errors import ConfigError, UnavailableError
from components.contracts.settings import Settings

CONFIGURE = "set COHOBATE_KFP_HOST to the URL of the Kubeflow Pipelines API, as http(s)://host:port"


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """A run or a recurring run on the cluster."""

    id: str
    name: str
    host: str


def compile_all(directory: Path, image: str | None = None) -> list[Path]:
    """Compile every pipeline to ``<directory>/<name>.yaml``, ready to upload.

    ``image``: the container image that the components run in, which must hold this package; None is the one that the
    components name.
    """
    from kfp import compiler

    from pipelines.dags import PIPELINES

    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, pipeline in PIPELINES.items():
        path = directory / f"{name}.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        if image is not None:
            _set_image(path, image)
        paths.append(path)
    return paths


def _set_image(path: Path, image: str) -> None:
    document = yaml.safe_load(path.read_text())
    for executor in document["deploymentSpec"]["executors"].values():
        executor["container"]["image"] = image
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def submit(
    name: str,
    made: Mapping[str, Any],
    *,
    experiment: str,
    settings: Settings,
    workdir: Path,
    image: str | None = None,
) -> Submitted:
    """Start one run on the cluster.

    Raises:
        ConfigError: no host is set.
        UnavailableError: the host does not answer or refuses.

    """
    package = _package(name, workdir, image)
    with _client(settings) as client:
        run = client.create_run_from_pipeline_package(
            package, arguments=dict(made), run_name=name, experiment_name=experiment, enable_caching=False
        )
    return Submitted(id=run.run_id, name=name, host=settings.kfp_host)


def schedule(
    name: str,
    made: Mapping[str, Any],
    *,
    cron: str,
    experiment: str,
    settings: Settings,
    workdir: Path,
    image: str | None = None,
) -> Submitted:
    """Start a recurring run by a cron expression with seconds, as Kubeflow takes it; missed times are not made up for.

    Raises:
        ConfigError: no host is set, or the expression has not six fields.
        UnavailableError: the host does not answer or refuses.

    """
    if len(cron.split()) != 6:
        raise ConfigError("cron", cron, "must have six fields: second minute hour day month weekday")
    package = _package(name, workdir, image)
    with _client(settings) as client:
        found = client.create_experiment(experiment)
        job = client.create_recurring_run(
            experiment_id=found.experiment_id,
            job_name=f"{experiment}-{name}",
            cron_expression=cron,
            max_concurrency=1,
            no_catchup=True,
            pipeline_package_path=package,
            params=dict(made),
            enable_caching=False,
        )
    return Submitted(id=job.recurring_run_id, name=name, host=settings.kfp_host)


def _package(name: str, workdir: Path, image: str | None) -> str:
    return str(next(p for p in compile_all(workdir, image) if p.stem == name))


@contextlib.contextmanager
def _client(settings: Settings) -> Iterator[Any]:
    """A client of the host; what it raises becomes an error of ours, and what it prints goes nowhere."""
    if not settings.kfp_host.startswith(("http://", "https://")):
        raise ConfigError("kfp_host", settings.kfp_host, CONFIGURE)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # kfp warns of its own version and internals
        from kfp import Client
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        _knock(settings)
        token = settings.secret("kfp_token")
        try:
            yield Client(host=settings.kfp_host, existing_token=token)
        except ApiException as error:
            remedy = _remedy(error.status, str(error.body or error.reason))
            raise UnavailableError("Kubeflow Pipelines", settings.kfp_host, remedy) from error
        except HTTPError as error:
            remedy = f"is COHOBATE_KFP_HOST right, and the API up? ({error})"
            raise UnavailableError("Kubeflow Pipelines", settings.kfp_host, remedy) from error


def _knock(settings: Settings) -> None:
    """Ask the host for its health once: Kubeflow's client asks for 25 s before it gives up on a wrong token."""
    import httpx

    token = settings.secret("kfp_token")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.get(f"{settings.kfp_host.rstrip('/')}/apis/v2beta1/healthz", headers=headers, timeout=10.0)
    except httpx.HTTPError as error:
        remedy = f"is COHOBATE_KFP_HOST right, and the API up? ({error})"
        raise UnavailableError("Kubeflow Pipelines", settings.kfp_host, remedy) from error
    if not answer.is_success:
        raise UnavailableError("Kubeflow Pipelines", settings.kfp_host, _remedy(answer.status_code, answer.text))


def _remedy(status: int, said: str) -> str:
    if status in (401, 403):
        return f"status {status}: is COHOBATE_KFP_TOKEN valid, and may it start runs there?"
    return f"status {status}: {said}"
