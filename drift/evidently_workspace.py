"""A workspace of Evidently's UI: reports are kept in it as they were written.

Evidently's own ``evidently ui`` cannot read them, since it does not know our metrics; :func:`serve` is it with them.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Collection
from typing import Any

import fsspec

NAMESPACE = uuid.UUID("6b8f5cd2-7d9c-4a53-9c4e-0d2c3c0f8e11")
"""Of the projects' identities: the same workload is the same project, whoever makes it first."""


def keep(snapshot: Any, workspace: str, project: str) -> str:
    """Add a report's run to ``project`` in the folder ``workspace``; both are made where there is none.

    Returns the run's identity.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently.sdk.models import ProjectModel

        space, identity = _opened(workspace), uuid.uuid5(NAMESPACE, project)
        if space.get_project(identity) is None:
            space.add_project(ProjectModel(id=identity, name=project))
        return str(space.add_run(identity, snapshot).id)


def _opened(workspace: str) -> Any:
    """The workspace, made where there is none. Opening it reads every report, with metrics of ours in it."""
    from evidently.ui.workspace import Workspace

    import drift.evidently_metrics  # noqa: F401  (its import tells Evidently of them)

    return Workspace.create(workspace)


def drop(workspace: str, project: str, snapshots: Collection[str]) -> int:
    """Delete the runs of ``project`` that say in their metadata that they are of one of these ``snapshots``.

    Returns how many there were; none where there is no such workspace.
    """
    if not fsspec.core.url_to_fs(workspace)[0].exists(fsspec.core.url_to_fs(workspace)[1]):
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        space, identity = _opened(workspace), uuid.uuid5(NAMESPACE, project)
        if space.get_project(identity) is None:
            return 0
        found = [(run, space.get_run(identity, run)) for run in space.list_runs(identity)]
        gone = [run for run, known in found if known is not None and known.metadata.get("snapshot") in snapshots]
        for run in gone:
            space.delete_run(identity, run)
    return len(gone)


def serve(workspace: str, host: str, port: int) -> None:
    """Serve Evidently's UI over a workspace until the process is told to end.

    Who may see it is decided by ``EVIDENTLY_SECRET``, as in Evidently; without it, everybody who reaches the address.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently.ui.service.app import run_local

        import drift.evidently_metrics  # noqa: F401  (its import tells Evidently of them)

        run_local(host=host, port=port, workspace=workspace)
