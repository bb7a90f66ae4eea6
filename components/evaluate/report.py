"""The drift report of a window: its inputs' descriptors and the teacher's labels against those of older windows."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from components.contracts.payload import decoder
from components.contracts.records import CLASSED
from components.contracts.spec import Spec
from components.contracts.storage import put_bytes
from components.contracts.tagging import spans_in
from components.control.tables import WindowRow
from components.evaluate.check import fitted
from components.snapshot.table import representatives
from components.snapshot.window import read
from components.student.features import featuriser
from drift.evidently_report import Shelf, write
from drift.monitor import DriftVerdict

Columns = dict[str, list[float | str | None]]

LABEL_COLUMNS = ("teacher_label", "teacher_spans", "teacher_entropy")
"""What the teacher says, beside the descriptors: its label (of classes only), how many spans (tagging), and its entropy
in nats."""


def drift_report(
    spec: Spec, windows: Sequence[WindowRow], folder: str, workspace: str
) -> tuple[str, str, DriftVerdict | None]:
    """Write Evidently's report of the newest window as ``drift.html`` and ``drift.json`` under the URI ``folder``.

    It is kept in the Evidently workspace (a folder), too, in the workload's project.

    The reference are the newest of the older windows that together have ``spec.monitor.reference`` rows, or all.
    Returns both URIs and our own verdict, which stands in the JSON file too; empty where there is nothing to compare.
    """
    import pandas as pd

    if len(windows) < 2:
        return "", "", None
    older: list[WindowRow] = []
    for window in reversed(windows[:-1]):
        older.insert(0, window)
        if sum(w.of_traffic for w in older) >= spec.monitor.reference:
            break
    reference, current = columns(spec, older), columns(spec, windows[-1:])
    if not reference.get("teacher_entropy") or not (rows := len(current.get("teacher_entropy", ()))):
        return "", "", None  # one side has nothing of the traffic: all of it was made up, say
    verdict = fitted(reference, spec.monitor, window=rows, seed=spec.seed).assess(current)
    newest = windows[-1]
    about = {"window": str(newest.number), "snapshot": newest.digest, "folder": folder}
    shelf = Shelf(workspace=workspace, project=spec.name, about=about)
    with tempfile.TemporaryDirectory() as scratch:
        report = write(
            pd.DataFrame(reference), pd.DataFrame(current), Path(scratch), "drift", verdict,
            extra=spec.monitor.evidently, shelf=shelf,
        )  # fmt: skip
        html, data = report.html.read_bytes(), report.json.read_bytes()
    put_bytes(f"{folder}/drift.html", html)
    put_bytes(f"{folder}/drift.json", data)
    return f"{folder}/drift.html", f"{folder}/drift.json", verdict


def columns(spec: Spec, windows: Sequence[WindowRow]) -> Columns:
    """Descriptors of a representative part of the inputs of ``windows``, and :data:`LABEL_COLUMNS`, by column."""
    decode, features = decoder(spec.payload, spec.source), featuriser(spec.features, spec.source)
    out: Columns = {}
    for window in windows:
        rows = representatives(spec, read(window.uri, window.digest).to_pylist())
        for row in rows:
            for name, value in features.describe(decode(row["payload"])).items():
                out.setdefault(name, []).append(value)
        if spec.task in CLASSED:
            out.setdefault("teacher_label", []).extend(row["label"] for row in rows)
        if spec.task == "tagging":
            out.setdefault("teacher_spans", []).extend(float(len(spans_in(row["label"]))) for row in rows)
        out.setdefault("teacher_entropy", []).extend(row["entropy"] for row in rows)
    return out
