"""The sub-command ``cohobate pipeline``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings

if TYPE_CHECKING:
    from pipelines.local import RunResult


app = typer.Typer(help="Compile, run, submit and schedule the Kubeflow pipelines.", no_args_is_help=True)

NO_STUDENT = 4
"""Exit code of an update that ended without a student: held, rejected, or nothing was new."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Name = Annotated[str, typer.Argument(help="bootstrap, continual, promote or rollback.")]
SpecFile = Annotated[str, typer.Option("--spec", help="The workload's spec file.")]
Params = Annotated[
    list[str] | None, typer.Option("--param", help="NAME=VALUE, repeated; spec=PATH: its place in the image.")
]
Reason = Annotated[str, typer.Option(help="Why; it is recorded with the run.")]
Work = Annotated[Path, typer.Option(help="Folder for the compiled pipelines.")]
Image = Annotated[str | None, typer.Option(help="Container image of the components. [the one of this version]")]


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
def compile_(output: Work = Path("build/pipelines"), image: Image = None, as_json: Json = False) -> None:
    """Compile every pipeline to IR YAML, ready to upload to Kubeflow."""
    from pipelines.remote import compile_all

    paths = [str(p) for p in compile_all(output, image)]
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
    output: Work = Path("build/pipelines"),
    image: Image = None,
    as_json: Json = False,
) -> None:
    """Start a run on the Kubeflow host that COHOBATE_KFP_HOST names (token: COHOBATE_KFP_TOKEN)."""
    from components.contracts.spec import load_spec
    from pipelines.local import arguments
    from pipelines.remote import submit as start

    made = arguments(name, spec, parameters(param), reason)
    done = start(name, made, experiment=load_spec(spec).name, settings=Settings(), workdir=output, image=image)
    typer.echo(msgspec.json.encode(done).decode() if as_json else f"run {done.id} on {done.host}")


@app.command()
def schedule(
    name: Name,
    spec: SpecFile,
    cron: Annotated[str, typer.Option(help="Six fields: second minute hour day month weekday.")],
    param: Params = None,
    reason: Reason = "scheduled",
    output: Work = Path("build/pipelines"),
    image: Image = None,
    as_json: Json = False,
) -> None:
    """Start a recurring run on the Kubeflow host, one at a time."""
    from components.contracts.spec import load_spec
    from pipelines.local import arguments
    from pipelines.remote import schedule as start

    made = arguments(name, spec, parameters(param), reason)
    workload = load_spec(spec).name
    done = start(name, made, cron=cron, experiment=workload, settings=Settings(), workdir=output, image=image)
    typer.echo(msgspec.json.encode(done).decode() if as_json else f"recurring run {done.id} on {done.host}")
