"""The sub-command ``cohobate token``: who may use the admin API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from components.contracts.settings import Settings
from serving.cli import show

if TYPE_CHECKING:
    from components.control.tables import TokenRow


app = typer.Typer(help="Bearer tokens of the admin API.", no_args_is_help=True)

Role = Literal["viewer", "operator", "admin"]
"""The roles of :mod:`components.control.tokens`, here for the help of the command, which imports no database."""

EVERYTHING = "*"
"""The ledger's workload for what is not about one."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def _row(row: TokenRow) -> dict[str, Any]:
    names = ("id", "name", "role", "created_by", "created_at", "expires_at", "revoked_at")
    return {name: getattr(row, name) for name in names}


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who it is for, as the ledger names them.")],
    role: Annotated[Role, typer.Option(help="viewer looks, operator orders verbs, admin also forces.")],
    days: Annotated[float | None, typer.Option(help="How long it is good. [until it is revoked]")] = None,
    as_json: Json = False,
) -> None:
    """Make a token and print it; it is shown this once."""
    from components.control.store import ControlStore
    from components.control.tokens import Tokens
    from components.ledger.ledger import append

    settings = Settings()
    store = ControlStore.open(settings.control_url)
    row, token = Tokens(store).create(name, role, settings.actor, days)
    append(store, EVERYTHING, settings.actor, "token create", {"token": row.id, "name": row.name, "role": row.role})
    show({**_row(row), "token": token}, True) if as_json else typer.echo(token)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List all tokens, oldest first; never what opens the door."""
    from components.control.store import ControlStore
    from components.control.tokens import Tokens

    show([_row(row) for row in Tokens(ControlStore.open(Settings().control_url)).list()], as_json)


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(help="Its id.")],
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger.")],
    as_json: Json = False,
) -> None:
    """Take a token back, at once."""
    from components.control.store import ControlStore
    from components.control.tokens import Tokens
    from components.ledger.ledger import append

    settings = Settings()
    store = ControlStore.open(settings.control_url)
    row = Tokens(store).revoke(token)
    append(store, EVERYTHING, settings.actor, "token revoke", {"token": row.id, "name": row.name, "reason": reason})
    show(_row(row), as_json)
