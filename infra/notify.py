"""The sub-command ``cohobate notify``: webhooks and what was sent to them."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from serving.cli import show

if TYPE_CHECKING:
    from components.control.tables import NoticeRow


app = typer.Typer(help="Webhooks that are told of rollouts, alarms and failures.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


@app.command()
def test(as_json: Json = False) -> None:
    """Send a test notice to every webhook, now; fails if one does not take it."""
    from components.notify.events import Event
    from components.notify.notifier import send
    from components.notify.webhooks import SETTING, webhooks_of

    settings = Settings()
    hooks = webhooks_of(settings)
    if not hooks:
        raise ConfigError(SETTING, "", 'names no webhook: [{"name": "chat", "url": "https://…", "format": "slack"}]')
    event = Event(
        id=f"test-{uuid.uuid4().hex[:12]}", name="test.sent", workload="platform", at=time.time(),
        actor=settings.actor, text=f"test notice by {settings.actor}", data={},
    )  # fmt: skip
    done = []
    for hook in hooks:
        reply = send(hook, event)
        done.append({"webhook": hook.name, "format": hook.format, "ok": reply.ok, "why": reply.why})
    show(done, as_json)
    raise typer.Exit(0 if all(d["ok"] for d in done) else 1)


def _row(row: NoticeRow) -> dict[str, Any]:
    names = ("id", "hook", "event", "workload", "attempts", "next_at", "sent_at", "dead_at", "error")
    return {name: getattr(row, name) for name in names}


@app.command("list")
def list_(
    waiting: Annotated[bool, typer.Option("--waiting", help="Only what nobody took yet.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List the newest notices, oldest first, and what became of them."""
    from components.control.store import ControlStore
    from components.notify import outbox

    store = ControlStore.open(Settings().control_url)
    show([_row(row) for row in outbox.notices(store, waiting=waiting, limit=limit)], as_json)


@app.command()
def retry(as_json: Json = False) -> None:
    """Send again, now, what was given up or waits for its next try: after a webhook was repaired."""
    from components.control.store import ControlStore
    from components.notify import outbox

    show({"due": outbox.retry(ControlStore.open(Settings().control_url))}, as_json)
