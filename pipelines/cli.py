"""The sub-command ``cohobate pipeline``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from components.contracts.errors import ConfigError
from components.contracts.reference import SCHEME
from components.contracts.settings import Settings

if TYPE_CHECKING:
    from datetime import tzinfo

    from pipelines.cron import Timing
    from pipelines.local import RunResult


app = typer.Typer(help="Compile, run, install, submit and schedule the Kubeflow pipelines.", no_args_is_help=True)

NO_STUDENT = 4
"""Exit code of an update that ended without a student: held, rejected, or nothing was new."""


def _registered(source: str) -> str:
    """A version of the registry by its digest; a path as it is."""
    if not source.startswith(SCHEME):
        return source
    from components.control.workloads import pinned

    return pinned(source, Settings())


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Name = Annotated[str, typer.Argument(help="bootstrap, continual, data-free, promote or rollback.")]
SpecFile = Annotated[
    str,
    typer.Option("--spec", callback=_registered, help="The workload's spec file, or workload:NAME of the registry."),
]
Params = Annotated[
    list[str] | None, typer.Option("--param", help="NAME=VALUE, repeated; spec=PATH: its place in the image.")
]
Reason = Annotated[str, typer.Option(help="Why; it is recorded with the run.")]
Work = Annotated[Path, typer.Option(help="Folder for the compiled pipelines.")]
Image = Annotated[
    str | None, typer.Option(help="Container image of the steps. [COHOBATE_KFP_IMAGE, or the one of this version]")
]
Namespace = Annotated[str | None, typer.Option(help="Namespace of a multi-user Kubeflow. [COHOBATE_KFP_NAMESPACE]")]
ServiceAccount = Annotated[
    str | None, typer.Option(help="Service account of the steps. [COHOBATE_KFP_SERVICE_ACCOUNT, or the server's own]")
]


def _settings(image: str | None = None, namespace: str | None = None, service_account: str | None = None) -> Settings:
    """The settings, with what options say otherwise."""
    given = {"kfp_image": image, "kfp_namespace": namespace, "kfp_service_account": service_account}
    from pipelines.installation import completed

    return completed(Settings().model_copy(update={name: v for name, v in given.items() if v is not None}))


def parameters(given: list[str] | None) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping.

    Raises:
        ConfigError: a text has no ``=``.
    """
    made = {}
    for text in given or []:
        name, sign, value = text.partition("=")
        if not sign:
            raise ConfigError("param", text, "must have the form NAME=VALUE")
        made[name] = value
    return made


@app.command("compile")
def compile_(
    output: Work = Path("build/pipelines"),
    image: Image = None,
    form: Annotated[
        Literal["ir", "kubernetes"],
        typer.Option("--format", help="ir: files to upload. kubernetes: objects to apply, of one workload."),
    ] = "ir",
    spec: Annotated[str, typer.Option("--spec", help="The workload's spec file; for --format kubernetes.")] = "",
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """Compile every pipeline: to IR YAML, ready to upload to Kubeflow, or to Kubernetes objects."""
    from pipelines.compiling import compile_all, write_manifests

    settings = _settings(image, namespace)
    if form == "ir":
        if spec or namespace:
            raise ConfigError("format", form, "--spec and --namespace go with --format kubernetes")
        made = compile_all(output, settings)
    elif not spec:
        raise ConfigError("spec", spec, "--format kubernetes writes one workload's pipelines: name its spec file")
    else:
        from components.contracts.spec import load_spec
        from pipelines.install import packages_of

        packages = packages_of(load_spec(spec), settings)
        made = write_manifests(packages.values(), output, settings.kfp_namespace)
    paths = [str(path) for path in made]
    typer.echo(json.dumps(paths) if as_json else "\n".join(paths))


@app.command()
def run(
    name: Name, spec: SpecFile, param: Params = None, reason: Reason = "run by hand", as_json: Json = False
) -> None:
    """Run a pipeline on this machine and wait for it; exit code 4: it ended well, and there is no student."""
    from pipelines.local import run_local

    done = run_local(name, spec, parameters(param), reason=reason, settings=Settings())
    typer.echo(msgspec.json.encode(done).decode() if as_json else _line(done))
    if done.outcome is not None and done.outcome.version is None:
        raise typer.Exit(NO_STUDENT)


def _line(done: RunResult) -> str:
    said = ", ".join(f"{step}: {value}" for step, value in done.outputs.items())
    line = f"{done.run} {done.status} in {done.seconds:.1f} s ({said})"
    return line if done.outcome is None else f"{line}\n{done.outcome.text}"


@app.command()
def submit(
    name: Name,
    spec: SpecFile,
    param: Params = None,
    reason: Reason = "submitted by hand",
    output: Annotated[Path | None, typer.Option(help="Folder to leave what was sent in.")] = None,
    image: Image = None,
    namespace: Namespace = None,
    service_account: ServiceAccount = None,
    as_json: Json = False,
) -> None:
    """Start a run on the Kubeflow server that COHOBATE_KFP_HOST names."""
    from components.contracts.spec import load_spec
    from pipelines.compiled import compiled
    from pipelines.kubeflow_api import connect
    from pipelines.remote import arguments_there
    from pipelines.remote import submit as start

    settings = _settings(image, namespace, service_account)
    made, workload = arguments_there(name, spec, parameters(param), reason, settings), load_spec(spec).name
    package = compiled(name, settings)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / f"{name}.yaml").write_text(package.text)
    with connect(settings) as server:
        done = start(server, package, made, workload=workload, reason=reason, settings=settings)
    typer.echo(msgspec.json.encode(done).decode() if as_json else f"run {done.id} on {done.host}: {done.name}")


@app.command()
def schedule(
    name: Name,
    spec: SpecFile,
    cron: Annotated[
        str | None,
        typer.Option(
            help="Five fields as in a crontab, six with the second first, @daily and the like, @every 6h. "
            "[as it is scheduled now]"
        ),
    ] = None,
    param: Params = None,
    reason: Reason = "scheduled",
    image: Image = None,
    namespace: Namespace = None,
    service_account: ServiceAccount = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say when it would run, and send nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Run a pipeline again and again, one run at a time; the schedule that there is of it is replaced."""
    from datetime import UTC, datetime

    from components.contracts.spec import load_spec
    from pipelines.cron import timing, zone_of
    from pipelines.install import package_of
    from pipelines.kubeflow_api import connect
    from pipelines.parameters import check_name
    from pipelines.placing import put, undoing
    from pipelines.remote import arguments_there
    from pipelines.schedules import put_schedule, standing

    settings, given = _settings(image, namespace, service_account), parameters(param)
    zone = zone_of(settings.kfp_timezone)
    when = timing(cron, datetime.now(UTC), zone) if cron is not None else None
    if dry_run and when is not None:
        return _show_times(when, zone, as_json)
    check_name(name)
    workload = load_spec(spec)
    if when is not None:  # what is wrong with the parameters shows before anything is asked for
        arguments_there(name, spec, given, reason, settings)
    with connect(settings) as server:
        server.need_versions()
        if when is None:
            when, known = standing(server, workload.name, name)
            given = {n: str(value) for n, value in known.items() if n != "spec"} | given
        if dry_run:
            return _show_times(when, zone, as_json)
        made = arguments_there(name, spec, given, reason, settings)
        with undoing("schedule", workload.name) as undo:
            placed = put(server, package_of(name, workload, made["spec"], settings), undo)
        done = put_schedule(server, placed, when, made, workload=workload.name, reason=reason, settings=settings)
    typer.echo(msgspec.json.encode(done).decode() if as_json else done.text)


def _show_times(when: Timing, zone: tzinfo, as_json: bool) -> None:
    from datetime import UTC, datetime

    from pipelines.cron import told, upcoming

    times = upcoming(when, datetime.now(UTC), zone)
    if as_json:
        typer.echo(json.dumps({"cron": when.sent, "next": [time.isoformat() for time in times]}))
    else:
        typer.echo("\n".join([when.sent, *(f"  next {told(time)}" for time in times)]))


@app.command()
def schedules(spec: SpecFile, namespace: Namespace = None, as_json: Json = False) -> None:
    """List the schedules of a workload's pipelines, and when they run next."""
    from components.contracts.spec import load_spec
    from pipelines.kubeflow_api import connect
    from pipelines.schedules import schedules as listed

    settings = _settings(namespace=namespace)
    with connect(settings) as server:
        found = listed(server, load_spec(spec).name, settings)
    text = "\n".join(row.text for row in found) or "there is none"
    typer.echo(msgspec.json.encode(found).decode() if as_json else text)


@app.command()
def unschedule(name: Name, spec: SpecFile, namespace: Namespace = None, as_json: Json = False) -> None:
    """Take a pipeline's schedule away."""
    from components.contracts.spec import load_spec
    from pipelines.kubeflow_api import connect
    from pipelines.parameters import check_name
    from pipelines.schedules import unschedule as remove

    check_name(name)
    with connect(_settings(namespace=namespace)) as server:
        gone = remove(server, load_spec(spec).name, name)
    text = f"removed {', '.join(gone)}" if gone else "there was none"
    typer.echo(json.dumps({"removed": gone}) if as_json else text)


@app.command()
def install(
    spec: SpecFile,
    image: Image = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """Put all pipelines of a workload on the Kubeflow server, where its UI starts them; again: what differs alone."""
    from components.contracts.spec import load_spec
    from pipelines.install import install as put_all
    from pipelines.kubeflow_api import connect

    settings = _settings(image, namespace)
    with connect(settings) as server:
        done = put_all(server, load_spec(spec), settings)
    typer.echo(msgspec.json.encode(done).decode() if as_json else done.text)


@app.command()
def uninstall(spec: SpecFile, namespace: Namespace = None, as_json: Json = False) -> None:
    """Take away what install put on the server, and nothing else."""
    from components.contracts.spec import load_spec
    from pipelines.install import uninstall as remove
    from pipelines.kubeflow_api import connect

    settings = _settings(namespace=namespace)
    with connect(settings) as server:
        done = remove(server, load_spec(spec), settings)
    typer.echo(msgspec.json.encode(done).decode() if as_json else done.text)


@app.command()
def link(name: Name, spec: SpecFile, namespace: Namespace = None, as_json: Json = False) -> None:
    """Print the UI's address at which an installed pipeline starts by one click."""
    from components.contracts.spec import load_spec
    from pipelines.install import link as found
    from pipelines.kubeflow_api import connect
    from pipelines.parameters import check_name

    check_name(name)
    settings = _settings(namespace=namespace)
    with connect(settings) as server:
        url = found(server, name, load_spec(spec), settings)
    typer.echo(json.dumps({"url": url}) if as_json else url)
