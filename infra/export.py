"""The commands ``cohobate export`` and ``cohobate verify-export``."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import msgspec
import typer

from components.contracts.errors import ParityError
from components.contracts.settings import Settings
from infra.error_line import print_error

OTHERWISE = 4
"""Exit code where an export would answer otherwise than the artefact that was judged: none was written."""


def write(
    version: str,
    to: str,
    output: Path,
    spec_file: str,
    precision: str,
    key: str,
    public_key: Path | None,
    as_json: bool,
) -> None:
    """Export a registered version, and say what was written."""
    from components.contracts.spec import load_spec
    from components.control.store import ControlStore
    from components.export.export import export, signer_of, version_to_export
    from components.registry.registry import Registry

    settings, spec = Settings(), load_spec(spec_file)
    by = signer_of(settings, key, public_key)
    with closing(ControlStore.open(settings.control_url)) as store:
        found, payloads = version_to_export(spec, settings, Registry(settings), store, version)
    limit = spec.limits.max_parity_gap
    try:
        done = export(found, to, output, payloads, limit=limit, precision=precision, by=by)
    except ParityError as error:
        print_error(error)
        sys.exit(OTHERWISE)
    if as_json:
        typer.echo(msgspec.json.encode(done).decode())
        return
    gap = "no input was held out to compare with" if done.parity.gap is None else f"gap {done.parity.gap:.4f}"
    typer.echo(
        f"{done.folder}: {spec.name} version {done.version} for {to}, {done.precision}, {done.bytes} bytes, "
        f"{'signed' if done.signed else 'not signed'}; {gap} on {done.parity.rows} rows in {done.parity.runtime}"
    )


def check(bundle: Path, public_key: Path | None, as_json: bool) -> None:
    """Check a bundle, and say what it is."""
    from components.contracts.attestation import verifier
    from components.export.manifest import verify

    found = verify(bundle, verifier(public_key) if public_key else None)
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    signed = "signed by that key" if public_key else "signature not looked at: give --public-key"
    typer.echo(
        f"{bundle}: {found.workload} version {found.version} for {found.target}; {len(found.files)} files as its "
        f"manifest says, {signed}"
    )
