"""An experiment, a pipeline and its version on a Kubeflow server: made where they are missing, left alone where not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from components.contracts.errors import CohobateError, ExistsError, PipelineError
from pipelines.compiled import Package
from pipelines.kubeflow_api import Kubeflow

MADE_BY = {"made-by": "cohobate"}
"""Tag of the pipelines and versions that were installed: what lacks it is somebody else's."""

DESCRIPTION = "Runs of the workload's pipelines; made by cohobate."
"""Of the experiment, which has no tags."""

Undo = list[tuple[str, Callable[[], Any]]]
"""What was made, and how it is taken away again."""


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline on the server. ``new``: this version was not there before."""

    name: str
    pipeline_id: str
    version: str
    version_id: str
    new: bool


SCHEDULED = ("recurringruns", "recurringRuns")
"""Where schedules are listed, and what the list is called."""


@contextlib.contextmanager
def undoing(verb: str, workload: str) -> Iterator[Undo]:
    """Take away what the body made, in reverse order, if it fails.

    Raises:
        PipelineError: it failed, and something of it is left.

    """
    undo: Undo = []
    try:
        yield undo
    except CohobateError as error:
        left = []
        for what, take in reversed(undo):
            try:
                take()
            except CohobateError:
                left.append(what)
        if left:
            detail = f"{error}; {', '.join(reversed(left))} could not be taken away again: mend it and {verb} once more"
            raise PipelineError(verb, workload, detail) from error
        raise


def experiment_of(server: Kubeflow, name: str, undo: Undo | None = None) -> str:
    """The id of the experiment of this name, which is made if there is none."""
    found = server.experiment(name)
    if found is None:
        try:
            body = {"display_name": name, "description": DESCRIPTION, **server.place}
            found = server.ask("POST", "experiments", body=body)
            remember(undo, f"experiment {name}", server, f"experiments/{found['experiment_id']}")
        except ExistsError:  # another one made it at the same moment
            found = server.experiment(name)
            if found is None:
                raise
    return str(found["experiment_id"])


def put(server: Kubeflow, package: Package, undo: Undo | None = None) -> Placed:
    """A package on the server: what of its pipeline and version is missing is made."""
    pipeline = pipeline_of(server, package.name)
    if pipeline is None:
        pipeline = _make_pipeline(server, package, undo)
    which = str(pipeline["pipeline_id"])
    version, new = _version(server, which, package.version), False
    if version is None:
        version, new = _make_version(server, which, package, undo), True
    return Placed(
        name=package.name, pipeline_id=which, version=package.version,
        version_id=str(version["pipeline_version_id"]), new=new,
    )  # fmt: skip


def pipeline_of(server: Kubeflow, name: str) -> dict[str, Any] | None:
    """The pipeline of this name; None where there is none."""
    return server.find("GET", f"pipelines/names/{quote(name)}", server.place)


def _make_pipeline(server: Kubeflow, package: Package, undo: Undo | None) -> dict[str, Any]:
    body = {
        "name": package.name, "display_name": package.name, "description": package.description, "tags": MADE_BY,
        **server.place,
    }  # fmt: skip
    try:
        made = server.ask("POST", "pipelines", body=body)
    except ExistsError:  # another one made it at the same moment
        found = pipeline_of(server, package.name)
        if found is None:
            raise
        return found
    remember(undo, f"pipeline {package.name}", server, f"pipelines/{made['pipeline_id']}")
    return made


def _make_version(server: Kubeflow, pipeline: str, package: Package, undo: Undo | None) -> dict[str, Any]:
    query = {
        "name": package.version, "display_name": package.version, "pipelineid": pipeline,
        "description": package.description, "tags": json.dumps(MADE_BY),
    }  # fmt: skip
    try:
        made = server.ask("POST", "pipelines/upload_version", query=query, upload=package.text.encode())
    except ExistsError:  # another one made it at the same moment
        found = _version(server, pipeline, package.version)
        if found is None:
            raise
        return found
    which = f"pipelines/{pipeline}/versions/{made['pipeline_version_id']}"
    remember(undo, f"version {package.version} of {package.name}", server, which)
    return made


def remember(undo: Undo | None, what: str, server: Kubeflow, path: str) -> None:
    """Note how what was made is taken away again, where that is asked for."""
    if undo is not None:
        undo.append((what, lambda: server.find("DELETE", path)))


def versions_of(server: Kubeflow, pipeline: str) -> list[dict[str, Any]]:
    """All versions of a pipeline, oldest first."""
    found = server.each(f"pipelines/{pipeline}/versions", "pipeline_versions")
    return sorted(found, key=lambda version: str(version.get("created_at", "")))


def _version(server: Kubeflow, pipeline: str, name: str) -> dict[str, Any] | None:
    return next((v for v in versions_of(server, pipeline) if name in (v.get("name"), v.get("display_name"))), None)


def ours(row: Mapping[str, Any]) -> bool:
    """Whether a pipeline or version was installed."""
    return row.get("tags") == MADE_BY
