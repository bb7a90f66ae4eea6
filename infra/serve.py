"""The sub-command ``cohobate serve``: the gateway as a declaration, for clusters that run what Serve is told."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from components.contracts.errors import NotFoundError
from components.contracts.reference import Reference
from components.contracts.settings import Settings
from infra.workloads import spec_path

if TYPE_CHECKING:
    from serving.declaration import Workload

app = typer.Typer(help="The gateway as a declaration: what Ray Serve is to run.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


class _Text(yaml.SafeDumper):
    """YAML as people write it: long text stands in lines."""


def _lines(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Text.add_representer(str, _lines)


@app.command()
def config(
    workload: Annotated[
        list[str] | None,
        typer.Option("--workload", help="NAME, or NAME@VERSION. Repeat for several. [all that are in force]"),
    ] = None,
    spec: Annotated[
        list[str] | None,
        typer.Option("--spec", help="A spec file that all nodes have at this path, with its code. Repeat for several."),
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Replicas; without it what the specs ask for (serve.replicas).")
    ] = None,
    apart: Annotated[
        bool, typer.Option("--apart", help="An application for each workload, instead of one for all.")
    ] = False,
    host: Annotated[str | None, typer.Option(help="Address of each node's proxy. [COHOBATE_GATEWAY_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Its port. [COHOBATE_GATEWAY_PORT]")] = None,
    as_json: Json = False,
) -> None:
    """Print what Ray Serve is to run, with the settings in force and no secret: for 'serve deploy' or serveConfigV2."""
    settings = Settings()
    given: dict[str, Any] = {"gateway_host": host, "gateway_port": port}
    settings = settings.model_copy(update={name: value for name, value in given.items() if value is not None})
    made = declaration(settings, _wanted(settings, workload or [], spec or []), replicas=replicas, apart=apart)
    typer.echo(json.dumps(made, indent=2) if as_json else text(made), nl=as_json)


def declaration(
    settings: Settings, workloads: Sequence[Workload], *, replicas: int | None = None, apart: bool = False
) -> dict[str, Any]:
    """What Ray Serve is to run, of these workloads with these settings."""
    from serving.declaration import apart as taken_apart
    from serving.declaration import declared, serve_config
    from serving.ray_environment import environment

    args = declared(settings, workloads, replicas=replicas)
    controller = environment(settings, haproxy=settings.gateway_proxy == "haproxy")
    return serve_config(settings, taken_apart(args) if apart else [args], controller)


def text(declared: Mapping[str, Any]) -> str:
    """A declaration as YAML, as it is printed."""
    return yaml.dump(dict(declared), Dumper=_Text, sort_keys=False)


def _wanted(settings: Settings, names: list[str], paths: list[str]) -> list[Workload]:
    """The workloads of these names, each as the version that it stands for now, and of these spec files.

    Raises:
        NotFoundError: no such workload is registered, or none is.
    """
    from components.contracts.spec import load_spec
    from components.control import workloads
    from components.control.store import ControlStore
    from serving.declaration import Workload

    of_files = [Workload.of(load_spec(Path(spec_path(one)).resolve())) for one in paths]
    if paths and not names:
        return of_files
    with closing(ControlStore.open(settings.control_url)) as store:
        if names:
            sources = [workloads.pinned(str(Reference(name)), settings, store) for name in names]
        else:
            sources = [one.reference for one in workloads.registered(store).values()]
    if not sources:
        raise NotFoundError("workload", "in force", "'cohobate workload apply SPEC' registers one; or name a --spec")
    return [Workload.of(load_spec(source, settings)) for source in sources] + of_files


@app.command()
def environment(as_json: Json = False) -> None:
    """Print what each Ray node should have in its environment, where Serve was started without our configuration."""
    from serving.ray_environment import environment as of_nodes

    settings = Settings()
    found = of_nodes(settings, haproxy=settings.gateway_proxy == "haproxy")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
