"""Opening a built-in workload for the demo."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from components.contracts.errors import NotFoundError
from components.contracts.records import Input, Truth
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec
from components.label.history_file import Historic
from infra.workloads.source import Item, Source


def open_source(workload: str, settings: Settings, seed: int) -> tuple[Spec, Source]:
    """The spec and the inputs of a built-in workload.

    Raises:
        NotFoundError: there is no such workload.
    """
    if workload == "files":
        from infra.workloads.files import source

        found = source(seed=seed)
    elif workload == "mail":
        from infra.workloads.mail import source as mail_source

        found = mail_source(settings, seed=seed)
    else:
        raise NotFoundError("demo workload", workload, "there are files and mail")
    return load_spec(found.spec), found


def write_history(path: Path, spec: Spec, items: tuple[Item, ...]) -> None:
    """Write items as a history file for the ``bootstrap`` pipeline."""
    now = time.time()
    with path.open("wb") as file:
        for item in items:
            entry = Input(workload=spec.name, id=item.id, key=item.key, time=now, payload=item.payload)
            truth = Truth(
                workload=spec.name, input_id=item.id, time=now, known_at=now, source="history", label=item.truth
            )
            file.write(msgspec.json.encode(Historic(input=entry, truth=truth)) + b"\n")
