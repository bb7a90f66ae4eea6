"""The sub-command ``cohobate workload``: the registry of workloads."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.contracts.settings import Settings
from infra.workloads import spec_path
from serving.cli import show

if TYPE_CHECKING:
    from components.control.store import ControlStore
    from components.control.workloads import Verb, Version

app = typer.Typer(help="The registry: versions of workloads' specs with their code.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The workload's name.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the registry and the ledger.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


@app.command()
def apply(
    spec: Annotated[str, typer.Argument(help="A spec file, or the name of a built-in workload.")],
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Make a spec with the code and data that it names a version, and the one in force.

    On a platform that runs it, it is taken up; what cannot be is refused, and then nothing is.
    """
    _take(spec_path(spec), reason, as_json)


def _take(source: str, reason: str, as_json: bool, verb: Verb = "apply") -> None:
    import msgspec

    from components.contracts.spec import load_spec
    from infra.changes import apply as take
    from infra.changes import told

    settings = Settings()
    running = _supervisor(settings, load_spec(source).name)
    changes = take(settings, source, running, reason, verb)
    lines = "\n".join(told(changes, running=running is not None))
    typer.echo(msgspec.json.encode(changes).decode() if as_json else lines)


def _supervisor(settings: Settings, workload: str) -> int | None:
    """The supervisor of the platform of this home, where it runs the workload."""
    from infra.state import read_state

    state = read_state(settings)
    if state is None or not state.alive or not state.ready:
        return None
    return state.pid if workload in state.workloads else None


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the registered workloads with their versions in force."""
    from components.control.workloads import registered

    with _store() as store:
        found = registered(store)
    show([_row(version) for version in found.values()], as_json)


@app.command("show")
def show_(
    name: Name,
    which: Annotated[str | None, typer.Option("--version", help="Its number or digest. [the one in force]")] = None,
    as_json: Json = False,
) -> None:
    """Show a version: who made it, why, and the files that it holds."""
    from components.contracts.spec.bundles import folder_of
    from components.control.workloads import in_force, version

    with _store() as store:
        found = in_force(store, name) if which is None else version(store, name, which)
    folder = folder_of(found.reference, Settings())
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
    show({**_row(found), "folder": str(folder), "files": files}, as_json)


@app.command()
def history(name: Name, as_json: Json = False) -> None:
    """List every change of what was in force, oldest first, and the versions that no change put in force."""
    import msgspec

    from components.contracts.errors import NotFoundError
    from components.control.workloads import changes, versions

    with _store() as store:
        known, done = versions(store, name), changes(store, name)
    if not known:
        remedy = "none of this name was ever registered: 'cohobate workload list'"
        raise NotFoundError("workload", name, remedy)
    digests = {version.number: version.digest for version in known}
    rows = [{**msgspec.to_builtins(change), "digest": digests.get(change.version or 0)} for change in done]
    forced = {change.version for change in done}
    rows += [
        {"workload": name, "verb": "recorded", "version": v.number, "actor": v.actor, "reason": v.reason, "at": v.at,
         "digest": v.digest}
        for v in known if v.number not in forced
    ]  # fmt: skip
    show(sorted(rows, key=lambda row: float(row["at"])), as_json)


@app.command()
def rollback(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; it goes into the registry and the ledger.")],
    to: Annotated[
        str | None, typer.Option(help="Number or digest of the version. [the one that was in force before]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put an older version in force again; it is taken up, or refused, as a changed spec is."""
    from components.control.workloads import before, version

    with _store() as store:
        wanted = before(store, name) if to is None else version(store, name, to)
    _take(wanted.reference, reason, as_json, "roll back")


@app.command()
def remove(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; it goes into the registry and the ledger.")],
    as_json: Json = False,
) -> None:
    """Have no version in force any more; refused while the workload runs. Versions and history stay."""
    import msgspec

    from components.control.workloads import in_force
    from components.control.workloads import remove as take_out
    from components.ledger.ledger import append

    settings = Settings()
    with _store() as store:
        standing = in_force(store, name)
        _require_at_rest(store, settings, name)
        done = take_out(store, name, before=standing.number, actor=settings.actor, reason=reason)
        detail = {"version": None, "before": standing.number, "digest": standing.digest, "reason": reason}
        append(store, name, settings.actor, "remove workload", detail)
    show(msgspec.to_builtins(done), as_json)


RUNNING = "'cohobate down' where it runs, then remove it"


def _require_at_rest(store: ControlStore, settings: Settings, workload: str) -> None:
    """Refuse a workload that somebody works for, on whatever host.

    Raises:
        OrderError: a platform here runs it, a replica is heard, a controller leads, or a labeler has leases.
    """
    from components.contracts.errors import OrderError
    from components.control.workloads import at_work

    where = "the platform of this home runs it" if _supervisor(settings, workload) else at_work(store, workload)
    if where:
        raise OrderError("remove", workload, f"{where}: {RUNNING}")


def _store() -> closing[ControlStore]:
    from components.control.store import ControlStore

    return closing(ControlStore.open(Settings().control_url))


def _row(version: Version) -> dict[str, Any]:
    import msgspec

    return {**msgspec.to_builtins(version), "reference": version.reference}
