"""The pipelines of one workload on a Kubeflow server: installed, linked to, and taken away again.

They are named ``<workload>-<pipeline>``, every parameter that can have a default has one, and a version's name is made
of its content: what is there already is left alone, what differs is one new version, and old ones stay.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec

from components.contracts.errors import NotFoundError, PipelineError, UnavailableError
from components.contracts.settings import Settings
from components.contracts.spec import Spec
from pipelines.compiled import NAMED_BY_CONTENT, Package, compiled
from pipelines.kubeflow_api import Kubeflow
from pipelines.parameters import PARAMETERS, place_in_image
from pipelines.placing import (
    DESCRIPTION,
    SCHEDULED,
    Placed,
    experiment_of,
    ours,
    pipeline_of,
    put,
    undoing,
    versions_of,
)
from pipelines.schedules import outdated, users_of


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """A workload's pipelines on a server.

    ``link``: where the rollback starts by one click; ``noted``: whether notices and status know it; ``outdated``: the
    pipelines with a schedule that runs another version.
    """

    host: str
    namespace: str
    experiment_id: str
    pipelines: tuple[Placed, ...]
    link: str
    noted: bool
    outdated: tuple[str, ...]

    @property
    def text(self) -> str:
        """For a person: a line for each pipeline, the link, and what is left to do."""
        lines = [f"{one.name}: version {one.version}{' (new)' if one.new else ''}" for one in self.pipelines]
        lines.append(f"rollback by one click: {self.link}")
        if not self.noted:
            lines.append("notices and status do not know it: run 'cohobate pipeline link rollback' where they run")
        lines += [
            f"the schedule of {name} runs another version: 'cohobate pipeline schedule {name}' renews it"
            for name in self.outdated
        ]
        return "\n".join(lines)


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken away: names of pipelines, how many versions, and whether the experiment went too."""

    host: str
    pipelines: tuple[str, ...]
    versions: int
    experiment: bool

    @property
    def text(self) -> str:
        """For a person."""
        names = ", ".join(self.pipelines) or "no pipeline"
        return f"removed {names} with {self.versions} versions{', and the experiment' if self.experiment else ''}"


def package_of(name: str, spec: Spec, place: str, settings: Settings, offered: str = "") -> Package:
    """One pipeline of a workload; ``place``: of the spec in the image; ``offered``: default version of promote."""
    defaults: dict[str, Any] = {"spec": place}
    if name == "bootstrap":
        variants = [variant.name for variant in spec.student.variants]
        defaults |= {"first_variant": variants[0], "second_variant": variants[-1]}
    if name == "promote":
        defaults["reason"] = "promoted from the pipeline UI"
        defaults |= {"version": offered} if offered else {}
    return compiled(name, settings).for_workload(spec.name, defaults)


def newest_version(settings: Settings, workload: str) -> str:
    """The newest version in the registry that is ours; empty where there is none, or the registry cannot be asked."""
    from components.registry.glance import versions

    if not settings.tracking_uri and not (settings.home / "mlflow.db").is_file():
        return ""
    try:
        return next((seen.version for seen in reversed(versions(settings, workload)) if seen.ours), "")
    except UnavailableError:
        return ""


def packages_of(spec: Spec, settings: Settings, *, offered: str = "") -> dict[str, Package]:
    """All pipelines of a workload, by the name of each."""
    place = place_in_image(spec, settings)
    return {name: package_of(name, spec, place, settings, offered) for name in PARAMETERS}


def install(server: Kubeflow, spec: Spec, settings: Settings) -> Installed:
    """Put all pipelines of a workload on the server; what is there is left alone.

    1. Make the packages: what is wrong with the settings shows before anything is sent.
    2. Make the experiment, the pipelines and the versions that are missing. If that fails, take away what was made.
    3. Note the link of the rollback for notices and status, and see which schedules run another version.

    Raises:
        ConfigError: a setting is missing or wrong.
        RefusedError: the server is too old, or refuses.
        UnavailableError, AccessError: it does not answer, or not to us.
        PipelineError: it failed midway, and what was made could not be taken away again.

    """
    # Step 1
    server.need_versions()
    packages = packages_of(spec, settings, offered=newest_version(settings, spec.name))
    # Step 2
    with undoing("install", spec.name) as undo:
        experiment = experiment_of(server, spec.name, undo)
        placed = {name: put(server, package, undo) for name, package in packages.items()}
    # Step 3
    link = run_link(server, settings, placed["rollback"], experiment)
    return Installed(
        host=server.host, namespace=server.namespace, experiment_id=experiment, pipelines=tuple(placed.values()),
        link=link, noted=note(settings, spec.name, link),
        outdated=tuple(outdated(server, spec.name, experiment, placed)),
    )  # fmt: skip


def uninstall(server: Kubeflow, spec: Spec, settings: Settings) -> Removed:
    """Take away what was installed, and nothing else: what others made there stays.

    Raises:
        PipelineError: a schedule, whoever made it, still runs one of the pipelines.

    """
    server.need_versions()
    found = [one for name in PARAMETERS if (one := pipeline_of(server, f"{spec.name}-{name}"))]
    if kept := users_of(server, {str(one["pipeline_id"]) for one in found}):
        detail = f"the schedules {', '.join(kept)} would lose what they run: 'cohobate pipeline unschedule' first"
        raise PipelineError("uninstall", spec.name, detail)
    gone, versions = [], 0
    for pipeline in found:
        which = pipeline["pipeline_id"]
        known = versions_of(server, which)
        mine = [version for version in known if ours(version)]
        for version in mine:
            server.find("DELETE", f"pipelines/{which}/versions/{version['pipeline_version_id']}")
        versions += len(mine)
        if ours(pipeline) and len(mine) == len(known):
            server.find("DELETE", f"pipelines/{which}")
            gone.append(str(pipeline["name"]))
    note(settings, spec.name, "")
    return Removed(
        host=server.host, pipelines=tuple(gone), versions=versions, experiment=_drop_experiment(server, spec.name)
    )


def _drop_experiment(server: Kubeflow, name: str) -> bool:
    """Take the experiment away if it was installed and nothing ever ran in it."""
    found = server.experiment(name)
    if found is None or found.get("description") != DESCRIPTION:
        return False
    query = {"experiment_id": found["experiment_id"]}
    if any(next(server.each(path, member, query), None) for path, member in (("runs", "runs"), SCHEDULED)):
        return False
    server.find("DELETE", f"experiments/{found['experiment_id']}")
    return True


def link(server: Kubeflow, name: str, spec: Spec, settings: Settings) -> str:
    """The UI's address that starts a pipeline of a workload by one click: the newest of its versions with a default.

    They may have been installed, or applied as Kubernetes objects; the experiment, which is no such object, is made.

    Raises:
        NotFoundError: there is none.

    """
    server.need_versions()
    pipeline = pipeline_of(server, f"{spec.name}-{name}")
    known = versions_of(server, pipeline["pipeline_id"]) if pipeline else []
    named = [version for version in known if NAMED_BY_CONTENT.fullmatch(str(version.get("display_name", "")))]
    if pipeline is None or not named:
        raise NotFoundError("pipeline", f"{spec.name}-{name}", "'cohobate pipeline install' puts it on the server")
    newest = Placed(
        name=pipeline["name"], pipeline_id=pipeline["pipeline_id"], version=named[-1]["display_name"],
        version_id=named[-1]["pipeline_version_id"], new=False,
    )  # fmt: skip
    found = run_link(server, settings, newest, experiment_of(server, spec.name))
    if name == "rollback":
        note(settings, spec.name, found)
    return found


def run_link(server: Kubeflow, settings: Settings, placed: Placed, experiment: str) -> str:
    """The UI's page of a new run with pipeline, version and experiment filled.

    Behind Kubeflow's dashboard (``…/_/pipeline/``) the page shows the namespace that the address names.
    """
    ui = urlsplit(settings.kfp_ui or server.host)
    query = ui.query
    if "/_/" in ui.path and server.namespace and "ns=" not in query:
        query = "&".join(part for part in (query, urlencode({"ns": server.namespace})) if part)
    page = {"pipelineId": placed.pipeline_id, "pipelineVersionId": placed.version_id, "experimentId": experiment}
    return urlunsplit((ui.scheme, ui.netloc, ui.path or "/", query, f"/runs/new?{urlencode(page)}"))


def note(settings: Settings, workload: str, url: str) -> bool:
    """Note the rollback's link in the control database; False where there is none to write to from here."""
    from sqlalchemy.exc import SQLAlchemyError

    from components.control.links import note_rollback_link
    from components.control.schema import SchemaError
    from components.control.store import ControlStore

    try:
        with closing(ControlStore.open(settings.control_url)) as store:
            note_rollback_link(store, workload, url)
    except (SchemaError, SQLAlchemyError):
        return False
    return True
