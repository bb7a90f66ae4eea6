"""The sub-command ``cohobate teacher``: what to do about a teacher that changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.contracts.settings import Settings
from infra.workloads import spec_path
from serving.cli import show
from serving.workload_option import SpecFile

if TYPE_CHECKING:
    from components.contracts.spec import Spec
    from components.control.teachers import Verdict


app = typer.Typer(help="Watch the teachers, and decide about one that changed.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the ledger.")]


def _spec(name_or_path: str) -> Spec:
    from components.contracts.spec import load_spec

    return load_spec(spec_path(name_or_path))


@app.command()
def status(spec: SpecFile = "files", as_json: Json = False) -> None:
    """Show the workload's teachers and every change that was found, with the first suspicious label."""
    from components.control.store import ControlStore
    from components.control.teachers import teachers
    from components.teacher_watch.settle import status as incident_status

    store, name = ControlStore.open(Settings().control_url), _spec(spec).name
    known = [
        {"teacher": row.teacher, "probes": len(row.state["probes"])}
        | {n: row.state[n] for n in ("status", "epoch", "behaviour", "space")}
        for row in teachers(store, name)
    ]
    found = incident_status(store, name)
    show({"teachers": known, "incidents": found} if as_json else [*known, *found], as_json)


@app.command()
def accept(reason: Reason, spec: SpecFile = "files", as_json: Json = False) -> None:
    """Take the new behaviour as the reference and release what was quarantined; again, it finishes what it began."""
    _decide("accept", _spec(spec), reason, as_json)


@app.command()
def reject(reason: Reason, spec: SpecFile = "files", as_json: Json = False) -> None:
    """Drop what was quarantined; its inputs are labelled again once the teacher answers as before."""
    _decide("reject", _spec(spec), reason, as_json)


@app.command()
def keygen(as_json: Json = False) -> None:
    """Make a pair of keys: the labeler's COHOBATE_LABEL_SIGNING_KEY, and label.signed_by for the spec."""
    from components.contracts.signing import new_key

    private, public = new_key()
    show({"label_signing_key": private, "signed_by": public}, as_json)


def _decide(verdict: Verdict, spec: Spec, reason: str, as_json: bool) -> None:
    from components.contracts.signing import Signer
    from components.control.store import ControlStore
    from components.control.teachers import decide
    from components.stream import open_broker
    from components.teacher_watch.settle import settle

    settings = Settings()
    store = ControlStore.open(settings.control_url)
    secret = settings.secret("label_signing_key")
    signer = Signer(secret) if secret is not None else None
    incident = decide(store, spec.name, verdict, settings.actor, reason)
    done: dict[str, Any] = {"incident": incident.id, "teacher": incident.teacher, "verdict": verdict}
    show(done | settle(spec, open_broker(settings), store, incident.id, signer=signer), as_json)
    store.close()
