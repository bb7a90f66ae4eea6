"""The sub-command ``cohobate review``: people answer what the teacher left to them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.contracts.settings import Settings
from components.stream import open_broker
from serving.cli import show
from serving.workload_option import Workload

if TYPE_CHECKING:
    from components.control.tables import ReviewRow


app = typer.Typer(help="Answer the questions that the teacher leaves to people.", no_args_is_help=True)

PREVIEW_CHARACTERS = 200
"""How much of an input stands in the list; ``show`` prints it whole."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
QuestionKey = Annotated[str, typer.Argument(help="The question's key, or its first characters.")]


def _row(row: ReviewRow, characters: int | None = PREVIEW_CHARACTERS) -> dict[str, Any]:
    from components.contracts.records import Input, decode

    entry = decode(Input, row.input)
    try:
        text = entry.payload.decode()
    except UnicodeDecodeError:
        text = "base64:" + base64.b64encode(entry.payload).decode()
    draft = max(row.draft["distribution"].items(), key=lambda item: item[1]) if row.draft else None
    return {
        "key": row.key if characters is None else row.key[:12],
        "input": entry.id,
        "asked_at": row.asked_at,
        "why": row.why,
        "draft": f"{draft[0]} {draft[1]:.3f}" if draft else None,
        "classes": row.classes,
        "payload": text if characters is None else text[:characters],
        "annotator": row.annotator,
        "answered_at": row.answered_at,
        "published_at": row.published_at,
    }


@app.command("list")
def list_(
    workload: Workload = "files",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
    as_json: Json = False,
) -> None:
    """List the questions that wait, oldest first."""
    from components.control.store import ControlStore
    from components.review import reviews

    show([_row(r) for r in reviews.waiting(ControlStore.open(Settings().control_url), workload, limit)], as_json)


@app.command("show")
def show_(key: QuestionKey, workload: Workload = "files", as_json: Json = False) -> None:
    """Show one question whole."""
    from components.control.store import ControlStore
    from components.review import reviews

    show(_row(reviews.get(ControlStore.open(Settings().control_url), workload, key), None), as_json)


@app.command()
def answer(
    key: QuestionKey,
    label: Annotated[str, typer.Option(help="The class.")],
    confidence: Annotated[float, typer.Option(help="Probability of it; the rest goes to the others evenly.")] = 1.0,
    annotator: Annotated[str, typer.Option(help="Who answers. [the actor of the settings]")] = "",
    workload: Workload = "files",
    as_json: Json = False,
) -> None:
    """Answer a question; its label is published at once, with the person's name."""
    from components.control.store import ControlStore
    from components.review import reviews

    settings = Settings()
    store, broker = ControlStore.open(settings.control_url), open_broker(settings)
    row = reviews.answer(store, broker, workload, key, label, annotator or settings.actor, confidence)
    show(_row(row), as_json)


@app.command()
def publish(workload: Workload = "files", as_json: Json = False) -> None:
    """Publish answers that are kept and could not be sent, as when the broker was away."""
    from components.control.store import ControlStore
    from components.review import reviews

    settings = Settings()
    sent = reviews.publish(ControlStore.open(settings.control_url), open_broker(settings), workload)
    show({"workload": workload, "published": sent}, as_json)
