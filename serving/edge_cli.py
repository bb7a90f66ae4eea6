"""The sub-command ``cohobate edge``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from components.contracts.settings import Settings

app = typer.Typer(help="Devices that answer by themselves: their code, and their bundles.", no_args_is_help=True)


@app.command()
def publish(
    bundle: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A folder of 'cohobate export'.")],
) -> None:
    """Put a bundle where edges fetch it from the gateway; one that is not signed as it has to be is refused."""
    import base64

    from components.contracts.errors import ArtifactError
    from components.contracts.storage import put_bytes
    from serving.edge.bundle import pack, verify
    from serving.edge.errors import UntrustedError
    from serving.gateway.edge import bundle_uri

    settings = Settings()
    key = base64.b64decode(settings.workload_signed_by) if settings.workload_signed_by else None
    try:
        manifest = verify(bundle, key)
    except UntrustedError as error:
        raise ArtifactError(str(bundle), str(error)) from error
    uri = bundle_uri(settings.artifacts, manifest["workload"], manifest["lineage"]["student"])
    put_bytes(uri, pack(bundle))
    typer.echo(f"version {manifest['version']} of {manifest['workload']}: {uri}")


@app.command()
def code(output: Annotated[Path, typer.Argument(help="Folder to write; must not exist yet.")]) -> None:
    """Write the code of an edge: a Python package that needs nothing beside what a bundle needs."""
    from components.contracts.errors import ConfigError

    if output.exists():
        raise ConfigError("OUTPUT", str(output), "must not exist yet")
    shutil.copytree(Path(__file__).parent / "edge", output, ignore=shutil.ignore_patterns("__pycache__"))
    typer.echo(f"{output}: import it as {output.name}")
