"""The sub-command ``cohobate evidence``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from components.contracts.settings import Settings
from serving.workload_option import Workload

app = typer.Typer(help="Bundles that show what a version is and why it served.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

FAILED = 1
"""Exit code where something does not hold; what is no bundle, or no key, is an error as everywhere."""


@app.command("write")
def write_(
    version: Annotated[str, typer.Argument(help="A version's number, or an alias: champion, candidate, previous.")],
    key: Annotated[
        str, typer.Option(help="Private key that signs: a PEM file, or a URI of a KMS (awskms:, gcpkms:, …).")
    ],
    workload: Workload = "files",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="[WORKLOAD-VERSION.evidence.tar]")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Public key (PEM) of a key that a URI names.")
    ] = None,
    student: Annotated[bool, typer.Option("--with-student/--without-student", help="Put the artifact into it.")] = True,
) -> None:
    """Write all evidence of a version into one signed archive."""
    from components.contracts.attestation import signer
    from components.control.store import ControlStore
    from components.registry.registry import Registry
    from infra.evidence.write import write

    settings, by = Settings(), signer(key, public_key)
    store = ControlStore.open(settings.control_url)
    data = write(settings, Registry(settings), store, workload, version, by, student)
    place = output or Path(f"{workload}-{version}.evidence.tar")
    place.write_bytes(data)
    typer.echo(f"{place}: {len(data)} bytes; 'cohobate evidence verify {place} --public-key FILE' checks it anywhere")


@app.command("verify")
def verify_(
    bundle: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A bundle of 'evidence write'.")],
    public_key: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Public key (PEM) of who signed it.")],
    as_json: Json = False,
) -> None:
    """Check a bundle from itself and a public key alone: no platform, no network. Exits 1 where anything fails."""
    import msgspec

    from components.contracts.attestation import verifier
    from infra.evidence.verify import verify

    done = verify(bundle, verifier(public_key))
    if as_json:
        typer.echo(json.dumps({"ok": done.ok, **msgspec.to_builtins(done)}, indent=2))
    else:
        for check in done.checks:
            typer.echo(f"{'FAILED' if check.wrong else 'ok':6}  {check.name}{f': {check.told}' if check.told else ''}")
            for wrong in check.wrong:
                typer.echo(f"        {wrong}")
    raise typer.Exit(0 if done.ok else FAILED)
