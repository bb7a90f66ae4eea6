"""Bytes of every version of every record, and of the other durable formats, as they were first written.

A pinned file is never changed. After a field was added to a record: raise its minor version in :data:`NEWEST`, give
the field a value there, and run ``python -m tests.components.contracts.golden``, which writes what is not there yet.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from components.contracts.records import (
    Answer,
    DeadLetter,
    Input,
    Label,
    Prediction,
    SoftLabel,
    Span,
    Token,
    Truth,
    content_hash,
    encode,
    synthetic_input,
)

FOLDER = Path(__file__).parent
INDEX = FOLDER / "index.json"

INPUT = Input(
    workload="files", id="i1", key="k", time=1_700_000_000.5, payload=b"\x00ab\xff", consent="training",
    entity={"seen_today": 3.0, "country": "fr"},
)  # fmt: skip
SOFT = SoftLabel(task="classification", space="s@1", distribution={"a": 0.75, "b": 0.25})
TAGGED = SoftLabel(
    task="tagging",
    space="s@1",
    tokens=(
        Token(start=0, end=3, distribution={"B-PER": 0.75, "O": 0.25}),
        Token(start=4, end=5, distribution={"O": 1.0}),
    ),
)
STUDENT = Answer(
    arm="champion", version="3", ok=True, latency_ms=1.5, label="a", confidence=0.75, entropy=0.5623351446188083,
    novelty=0.03125,
)  # fmt: skip

NEWEST: dict[str, tuple[str, Input | Label | Truth | Prediction | DeadLetter]] = {
    "Input": ("2.0", synthetic_input("files", b"\x00ab\xff", "noise;seed=0", time=1_700_000_000.5)),
    "Label": (
        "1.3",
        Label(
            key="lk", teacher="t@1", soft=TAGGED, input=INPUT, labelled_at=1_700_000_001.25, policy="margin",
            probability=0.125, audit=True, annotator="ann",
        ),
    ),
    "Truth": (
        "1.1",
        Truth(
            workload="files", input_id="i1", time=1.5, known_at=3.0, source="extension",
            spans=(Span(start=0, end=3, label="PER"),),
        ),
    ),
    "Prediction": (
        "1.3",
        Prediction(
            workload="files", request_id="r1", input_id="i1", key="k", time=1.5, content=content_hash(b"\x00ab\xff"),
            answer=STUDENT, shadow=Answer(arm="candidate", version="4", ok=False, latency_ms=9.0, error="boom"),
            audited=True, deferred=True, turn="candidate",
            defaulted={"country": "timeout"},
        ),
    ),
    "DeadLetter": (
        "1.2",
        DeadLetter(
            workload="files", reason="oversize", detail="too long", error="RecordError", topic="files.inputs",
            partition=2, offset=7, key=b"k", value=b"\x00\x01", headers={"h": b"v"}, at=1_700_000_002.0, attempts=2,
            digest=hashlib.sha256(b"\x00\x01\x02").hexdigest(), cut=True,
            tombstone=True,
        ),
    ),
}  # fmt: skip
"""The version that is written now, by record; every field has a value of its own."""


def index() -> list[dict[str, Any]]:
    """One entry a pinned version: ``record``, ``version``, ``file``, ``sha256``, and ``reads_as``, its content."""
    found: list[dict[str, Any]] = json.loads(INDEX.read_text())
    return found


def plain(record: object) -> Any:
    """A record as plain JSON values, payloads in base64."""
    return json.loads(msgspec.json.encode(record))


def entry(name: str, version: str, data: bytes, reads_as: Any) -> dict[str, Any]:
    """The index entry of a pinned file."""
    file = f"{name.lower()}-{version}.msgpack"
    digest = hashlib.sha256(data).hexdigest()
    return {"record": name, "version": version, "file": file, "sha256": digest, "reads_as": reads_as}


def pin() -> list[str]:
    """Write the newest versions that are not pinned yet; returns their files."""
    entries, written = index(), []
    pinned = {(e["record"], e["version"]) for e in entries}
    for name, (version, record) in NEWEST.items():
        if (name, version) not in pinned:
            entries.append(entry(name, version, encode(record), plain(record)))
            (FOLDER / entries[-1]["file"]).write_bytes(encode(record))
            written.append(entries[-1]["file"])
    entries.sort(key=lambda e: (e["record"], [int(n) for n in e["version"].split(".")]))
    INDEX.write_text(json.dumps(entries, indent=1) + "\n")
    return written
