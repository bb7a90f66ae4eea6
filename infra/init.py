"""The command ``cohobate init``: a workload to start from, in a folder of its own."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec

from components.contracts.errors import ConfigError
from components.contracts.spec import load_spec
from components.contracts.spec.fields import Name
from infra.starters.samples import history as made_up

STARTERS = Path(__file__).parent / "starters"

TEACHER, HISTORY = "teacher.py", "history.jsonl"


MODALITIES = ("text", "table", "bytes", "image", "audio", "regression", "multilabel", "tagging", "embedding")
"""Kinds of payloads that there are features for, and tasks other than one class of an input."""


def write_workload(name: str, modality: str, into: Path, now: float | None = None) -> Path:
    """Write the spec, the teacher and a sample history of a workload; returns the spec's path.

    Raises:
        ConfigError: the name or the modality is none, or the folder holds something already.

    """
    if modality not in MODALITIES:
        raise ConfigError("modality", modality, f"must be one of {', '.join(MODALITIES)}")
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise ConfigError("name", name, "must be small letters, digits and hyphens, and begin with a letter") from error
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise ConfigError("into", str(into), "must be a new or an empty folder: nothing is overwritten")
    into.mkdir(parents=True, exist_ok=True)
    spec = into / f"{name}.yaml"
    spec.write_text((STARTERS / f"{modality}.yaml").read_text().replace("NAME", name))
    (into / TEACHER).write_text((STARTERS / f"{modality}.py").read_text())
    rows = made_up(modality, time.time() if now is None else now)
    (into / HISTORY).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    load_spec(spec)
    return spec


def next_steps(spec: Path) -> str:
    """What was written, and the commands from there to a first student."""
    teacher, history = spec.parent / TEACHER, spec.parent / HISTORY
    return (
        f"{spec}: the workload; every field is documented in components/contracts/spec\n"
        f"{teacher}: the teacher; put your model there\n"
        f"{history}: a sample history; put yours there (docs/history.md)\n\n"
        f"cohobate history check {history} --spec {spec}\n"
        f"cohobate up --spec {spec}\n"
        f"cohobate pipeline run bootstrap --spec {spec} --param history_uri={history}"
    )
