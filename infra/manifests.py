"""The sub-command ``cohobate deploy``: what a cluster would say to manifests before it has them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
import yaml

from components.contracts.errors import ConfigError, UnavailableError

app = typer.Typer(help="Manifests for Kubernetes: what a cluster would say to them.", no_args_is_help=True)

NO_ANSWER = ("Unable to connect", "connection refused", "no such host", "i/o timeout", "was refused")
"""What kubectl says where no API server answered."""


class Template(NamedTuple):
    """A pod that somebody will make of a manifest: whose it is, where it stands there, and what it is."""

    owner: str
    place: str
    pod: Mapping[str, Any]


def templates(objects: Sequence[Mapping[str, Any]]) -> Iterator[Template]:
    """The pod templates in ``objects``, of whatever kind those are: their own, or of an operator."""
    for one in objects:
        meta = one["metadata"]
        owner = f"{one['kind']} {meta['name']}"
        spec = one.get("spec", {})
        claims = [{"name": c["metadata"]["name"], "emptyDir": {}} for c in spec.get("volumeClaimTemplates", ())]
        for place, template in _templates(spec, "spec"):
            in_namespace = {"namespace": meta["namespace"]} if "namespace" in meta else {}
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {**template.get("metadata", {}), "name": "check", **in_namespace},
                "spec": {**template["spec"], "volumes": [*template["spec"].get("volumes", ()), *claims]},
            }
            yield Template(owner, place, pod)


def _templates(value: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, list):
        for number, part in enumerate(value):
            yield from _templates(part, f"{place}[{number}]")
    elif isinstance(value, dict):
        inner = value.get("spec")
        if isinstance(inner, dict) and isinstance(inner.get("containers"), list):
            yield place, value
            return
        for name, part in value.items():
            yield from _templates(part, f"{place}.{name}")


def refusals(found: Sequence[Template], kubectl: Sequence[str]) -> Iterator[tuple[Template, str]]:
    """The templates of which the API server would make no pod, and why; it makes none of any.

    A Deployment whose pods are refused is taken with a warning at most, and an operator's object with none: its pods
    never come, and only an event says so.

    Raises:
        UnavailableError: no API server answers.

    """
    for template in found:
        done = subprocess.run(
            [*kubectl, "create", "--dry-run=server", "--filename=-"],
            input=json.dumps(template.pod), capture_output=True, text=True,
        )  # fmt: skip
        said = done.stderr.strip()
        if done.returncode == 0:
            continue
        if any(words in said for words in NO_ANSWER):
            raise UnavailableError("Kubernetes", "kubectl", said.splitlines()[-1])
        yield template, said.removeprefix('Error from server (Forbidden): error when creating "STDIN": ')


def read(paths: Sequence[Path]) -> list[Mapping[str, Any]]:
    """The objects of manifests, ``-`` for standard input.

    Raises:
        ConfigError: a file cannot be read, or holds something else.

    """
    objects: list[Mapping[str, Any]] = []
    for path in paths:
        try:
            text = sys.stdin.read() if str(path) == "-" else path.read_text()
            documents = [one for one in yaml.safe_load_all(text) if one is not None]
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError("FILE", str(path), f"must be manifests in YAML ({type(error).__name__})") from error
        for one in documents:
            several = one.get("items") if isinstance(one, dict) and one.get("kind") == "List" else [one]
            for each in several or ():
                if not (isinstance(each, dict) and "kind" in each and "name" in (each.get("metadata") or {})):
                    raise ConfigError("FILE", str(path), "each document must be an object with a kind and a name")
                objects.append(each)
    return objects


@app.callback()
def _several() -> None:
    """So that ``check`` is a command of its own, though it is alone."""


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Manifests; - reads standard input.")],
    namespace: Annotated[
        str | None, typer.Option(help="A namespace that is there, for pods without one or whose own is not.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of kubectl. [the current one]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Ask the API server whether it would make the pods of manifests: Pod Security, quotas, accounts, misspelt fields.

    Exit code 1 where it would not. Nothing is made.
    """
    program = shutil.which("kubectl")
    if program is None:
        raise UnavailableError("kubectl", "PATH", "there is none: install it")
    found = list(templates(read(files)))
    if namespace is not None:
        found = [t._replace(pod={**t.pod, "metadata": {**t.pod["metadata"], "namespace": namespace}}) for t in found]
    refused = list(refusals(found, [program, *(["--context", context] if context else [])]))
    if as_json:
        shown = [{"object": t.owner, "place": t.place, "why": why} for t, why in refused]
        typer.echo(json.dumps({"pods": len(found), "refused": shown}, indent=2))
    else:
        for template, why in refused:
            typer.echo(f"{template.owner}, {template.place}: {why}")
        if not refused:
            typer.echo(f"the API server would make all {len(found)} pods")
    raise typer.Exit(1 if refused else 0)
