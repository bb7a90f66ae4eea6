"""MLflow's connection, and the run that a registration leaves behind."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import stamina

from components.contracts.errors import ArtifactError
from components.contracts.settings import Settings
from components.contracts.spec import Spec
from components.registry.tags import VERDICT_FILE
from components.student.card import StudentCard

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

T = TypeVar("T")

TRANSIENT = (
    "TEMPORARILY_UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "CANCELLED",
    "ABORTED",
)
"""Codes of MLflow's errors that say nothing about what was asked: asked again later, it may be answered."""

RACES = 10
"""Tries of writing down which snapshots a run had, against runs that write the same ones at the same moment."""

DATASET_DIGEST = 36
"""Characters of a dataset's digest that MLflow stores."""

CHATTY = ("alembic", "alembic.runtime.migration", "mlflow.store.db.utils")
"""Loggers that tell each of MLflow's table migrations at INFO."""


def connect(settings: Settings) -> MlflowClient:
    """A client of ``settings.mlflow_uri``, with the tables made where the URI is a database and they are missing."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read while mlflow is imported
    from mlflow.tracking import MlflowClient

    uri = settings.mlflow_uri
    if uri.startswith(("http://", "https://")):
        _leave_feast_out()
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")  # MLflow's own models
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _leave_feast_out() -> None:
    """Keep MLflow's REST client from importing Feast, which registers itself there as a source of request headers.

    MLflow 3.17 loads every such source at its first request. Feast 0.67's takes seconds and puts Prometheus' client
    into multi-process mode, for this process and its children.
    """
    from mlflow.utils import plugins

    find = plugins.get_entry_points
    plugins.get_entry_points = lambda group: [p for p in find(group) if not p.value.startswith("feast.")]
    try:
        import mlflow.tracking.request_header.registry  # noqa: F401
    finally:
        plugins.get_entry_points = find


def is_away(error: Exception) -> bool:
    """Whether MLflow did not answer, rather than refuse: a server that is away or overloaded, a database's outage."""
    from mlflow.exceptions import MlflowException, RestException
    from sqlalchemy.exc import OperationalError

    if not isinstance(error, MlflowException):
        return isinstance(error, OperationalError | ConnectionError | TimeoutError)
    if error.error_code in TRANSIENT:
        return True
    # A client that reached no server, or a proxy before it, says INTERNAL_ERROR; so does a server of its own faults,
    # but in a document of its own. A database in this process has no such excuse.
    unreached = "API request to" in str(error) and not isinstance(error, RestException)
    return error.error_code == "INTERNAL_ERROR" and unreached


def unless_absent(call: Callable[[], T]) -> T | None:
    """What ``call`` returns, or None where MLflow says that the named thing does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def unless_there(call: Callable[[], object]) -> None:
    """Make ``call``, which creates a named thing; another process having just created it is fine."""
    from mlflow.exceptions import MlflowException

    try:
        call()
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def record(
    client: MlflowClient,
    artifacts: str,
    spec: Spec,
    *,
    data: bytes,
    digest: str,
    card: StudentCard,
    verdict: dict[str, Any],
    metrics: Mapping[str, float],
    params: Mapping[str, Any],
) -> Run:
    """The finished run of the artifact ``data`` with this digest: an earlier one, or a new one with everything in it.

    An earlier one gets the new verdict. A run that a crash left unfinished stays as it is, and a new one is made.
    """
    experiment = _experiment(client, f"cohobate-{spec.name}", f"{artifacts}/{spec.name}/mlflow")
    finished = client.search_runs(
        [experiment], f"tags.`cohobate.digest` = '{digest}' and attributes.status = 'FINISHED'", max_results=1
    )
    if finished:
        client.log_dict(finished[0].info.run_id, verdict, VERDICT_FILE)
        return finished[0]
    tags = {"cohobate.digest": digest, "cohobate.workload": spec.name, "cohobate.teacher": card.teacher}
    run = client.create_run(experiment, tags=tags, run_name=f"{card.variant}-{digest[:8]}")
    run_id = run.info.run_id
    _log_values(client, run_id, metrics, params)
    _log_snapshots(client, run_id, card, artifacts)
    client.log_dict(run_id, msgspec.to_builtins(card), "card.json")
    client.log_dict(run_id, verdict, VERDICT_FILE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(data)
        client.log_artifact(run_id, str(path), "student")
    client.set_terminated(run_id)
    return run


def read_json(client: MlflowClient, run_id: str, name: str) -> dict[str, Any]:
    """A JSON object among a run's artifacts.

    Raises:
        ArtifactError: it is not there, or is something else.

    """
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            found = json.loads(Path(client.download_artifacts(run_id, name, folder)).read_bytes())
        except (OSError, ValueError, MlflowException) as error:
            if is_away(error):
                raise
            raise ArtifactError(f"runs:/{run_id}/{name}", f"cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"runs:/{run_id}/{name}", "is no JSON object")
    return found


def _experiment(client: MlflowClient, name: str, artifact_location: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        unless_there(lambda: client.create_experiment(name, artifact_location=artifact_location))
        found = client.get_experiment_by_name(name)
    identity: str = found.experiment_id
    return identity


def _log_values(client: MlflowClient, run_id: str, metrics: Mapping[str, float], params: Mapping[str, Any]) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(name, float(value), now, 0) for name, value in sorted(metrics.items())],
        params=[Param(name, str(value)) for name, value in sorted(params.items())],
    )


def _log_snapshots(client: MlflowClient, run_id: str, card: StudentCard, artifacts: str) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if not card.snapshots:
        return
    datasets = []
    for age, snapshot in enumerate(card.snapshots):
        source = json.dumps({"uri": f"{artifacts}/{card.workload}/snapshots/{snapshot}.parquet"})
        dataset = Dataset(f"{card.workload}-{snapshot[:12]}", snapshot[:DATASET_DIGEST], "local", source)
        role = "training" if age == 0 else "replay"
        datasets.append(DatasetInput(dataset, [InputTag("mlflow.data.context", role)]))
    for attempt in stamina.retry_context(on=_raced, attempts=RACES, wait_initial=0.05, wait_max=0.5):
        with attempt:
            client.log_inputs(run_id, datasets=datasets)


def _raced(error: Exception) -> bool:
    """Whether another run wrote the same dataset at the same moment: MLflow 3.17 looks first, then inserts."""
    return "IntegrityError" in str(error)
