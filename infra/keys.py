"""The sub-command ``cohobate keys``: whose signatures count, and what is signed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.contracts.settings import Settings
from serving.cli import show
from serving.workload_option import Workload

if TYPE_CHECKING:
    from components.ledger.keys import Key

app = typer.Typer(help="Whose signatures of students, snapshots and evidence count.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the ledger.")]
Version = Annotated[str, typer.Argument(help="A version's number, or an alias: champion, candidate, previous.")]

FAILED = 1
"""Exit code where something does not hold."""


def _row(key: Key, now: float) -> dict[str, Any]:
    left = None if key.expires_at is None else round((key.expires_at - now) / 86_400, 1)
    return {
        "id": key.id, "name": key.name, "state": key.state(now), "days_left": left,
        "workloads": list(key.workloads), "added_by": key.added_by, "added_at": key.added_at,
        "expires_at": key.expires_at, "revoked_at": key.revoked_at, "why_revoked": key.why_revoked,
    }  # fmt: skip


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List all keys that were ever added, oldest first, with their state."""
    from components.control.store import ControlStore
    from components.ledger.keys import keys

    store = ControlStore.open(Settings().control_url)
    found = [_row(key, store.clock()) for key in keys(store).values()]
    if found or as_json:
        show(found, as_json)
    else:
        typer.echo("no key was added yet: no signature counts here ('cohobate keys add' adds a public key)")


@app.command()
def add(
    public_key: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Its public key (PEM).")],
    name: Annotated[str, typer.Option(help="What people call it.")],
    reason: Reason,
    days: Annotated[float | None, typer.Option(help="How long it counts from now. [until it is revoked]")] = None,
    workload: Annotated[
        list[str] | None,
        typer.Option(
            "--workload",
            help="Only for this workload, or federation:NAME, in which it hands students on. Repeat for several. [all]",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a key vouch for artifacts; added again, it gets another end."""
    from components.control.store import ControlStore
    from components.ledger import keys

    settings = Settings()
    store = ControlStore.open(settings.control_url)
    made = keys.add(
        store, settings.actor, public_key.read_bytes(), name=name, reason=reason, days=days,
        workloads=tuple(workload or ()),
    )  # fmt: skip
    show(_row(made, store.clock()), as_json)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Its id, or how it begins.")], reason: Reason, as_json: Json = False
) -> None:
    """Let a key vouch for nothing any more, at once; it does not come back."""
    from components.control.store import ControlStore
    from components.ledger import keys

    settings = Settings()
    store = ControlStore.open(settings.control_url)
    show(_row(keys.revoke(store, settings.actor, key, reason), store.clock()), as_json)


@app.command()
def sign(version: Version, reason: Reason, workload: Workload = "files", as_json: Json = False) -> None:
    """Sign a version, its snapshots and its evidence anew with the key of the settings, once they were looked at."""
    from components.control.store import ControlStore
    from components.registry.registry import Registry
    from infra.signing import sign as resign

    settings = Settings()
    store = ControlStore.open(settings.control_url)
    show(resign(settings, Registry(settings), store, workload, version, reason), as_json)


@app.command()
def check(version: Version, workload: Workload = "files", as_json: Json = False) -> None:
    """Check all signatures of a version, and what they are of; exits 1 where anything does not hold."""
    from components.control.store import ControlStore
    from components.registry.registry import Registry
    from infra.signing import check as look

    settings = Settings()
    store = ControlStore.open(settings.control_url)
    found = look(settings, Registry(settings), store, workload, version)
    show({"ok": not any(wrong for wrong in found.values()), "artifacts": found}, as_json)
    raise typer.Exit(FAILED if any(found.values()) else 0)
