"""The sub-command ``cohobate ledger``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from components.contracts.settings import Settings
from serving.cli import show

app = typer.Typer(help="The append-only record of who did what to which model.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


@app.command("verify")
def verify_(
    anchor: Annotated[
        str | None,
        typer.Option("--anchor", "--head", help="A hash seen before, or a file of 'ledger anchor', kept elsewhere."),
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Ed25519 key (PEM) that the anchor is signed by.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the ledger's hash chain; fails naming the first entry that was changed, removed, put in, moved or cut."""
    from components.control.store import ControlStore
    from components.ledger.anchor import read_anchor, verify_against
    from components.ledger.ledger import verify

    store = ControlStore.open(Settings().control_url)
    found = verify_against(store, read_anchor(anchor, public_key)) if anchor is not None else verify(store)
    show({"ok": True, "entries": found}, as_json)


@app.command("anchor")
def anchor_(
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write it to this file, to keep elsewhere.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Ed25519 private key (PEM) to sign it with.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the ledger's head, after checking the chain up to it."""
    from components.control.store import ControlStore
    from components.ledger.anchor import head_of, sign, verify_against

    store = ControlStore.open(Settings().control_url)
    head = head_of(store)
    verify_against(store, head)
    head = sign(head, key) if key is not None else head
    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(head)))
    show(msgspec.to_builtins(head), as_json)


@app.command("show")
def show_(
    workload: Annotated[str | None, typer.Option(help="Only this workload's entries.")] = None, as_json: Json = False
) -> None:
    """List the ledger's entries, oldest first."""
    from components.control.store import ControlStore
    from components.ledger.ledger import entries

    rows = [
        {"seq": r.seq, "at": r.at, "workload": r.workload, "actor": r.actor, "action": r.action, "detail": r.detail}
        for r in entries(ControlStore.open(Settings().control_url), workload)
    ]
    show(rows, as_json)
