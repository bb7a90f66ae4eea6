"""Whether a student was made of a window: what an update that failed after its snapshot has left to do.

The facts are durable ones that other steps leave: the evidence of every judged student lies beside the window
(:func:`evidence_folder`), and every registration stands in the ledger. A window has had its student once a judged one
was registered, or once all that were judged were held or rejected; one that the gate would promote and that was never
registered is work that was lost.
"""

from __future__ import annotations

from typing import Any

import fsspec
import msgspec

from components.contracts.spec import Spec
from components.control.store import ControlStore
from components.control.tables import WindowRow
from components.ledger.ledger import entries
from components.steps import evidence_folder
from components.teachers.contract import declared_of

TAKEN = "window_taken"
"""The gauge that counts how often one window was taken again."""

MOST_TIMES = 3
"""How often a window is taken again before new labels go first: one on which every update fails must not stop all that
come after it. Its rows are replayed then."""


def decisions(window: WindowRow) -> dict[str, str]:
    """What the gate said of each student that was judged on a window (``promote``, ``hold``, ``reject``), by digest."""
    filesystem, path = fsspec.core.url_to_fs(evidence_folder(window))
    found: dict[str, str] = {}
    for file in filesystem.glob(f"{path}/*.jsonl"):
        last: Any = msgspec.json.decode(filesystem.cat_file(file).splitlines()[-1])
        if last.get("kind") == "verdict":
            found[str(file).rsplit("/", 1)[-1].removesuffix(".jsonl")] = str(last["decision"])
    return found


def lacked_evidence(window: WindowRow) -> bool:
    """Whether the students of a window were judged, and none could be promoted for want of evidence."""
    said = set(decisions(window).values())
    return "hold" in said and "promote" not in said


def without_student(spec: Spec, store: ControlStore) -> WindowRow | None:
    """The newest window, if no student was made of it and one can be.

    Older ones were replayed into the student of a newer one. None can be made of a window without a row to learn from,
    nor of one whose labels are another teacher's than the spec now declares.
    """
    windows = store.windows(spec.name)
    if not windows or not _learnable(spec, windows[-1]):
        return None
    judged = decisions(windows[-1])
    registered = {e.detail.get("digest") for e in entries(store, spec.name) if e.action == "register"}
    if judged.keys() & registered or (judged and "promote" not in judged.values()):
        return None
    return windows[-1]


def _learnable(spec: Spec, window: WindowRow) -> bool:
    teacher = declared_of(str(window.manifest["teacher"]))
    return spec.teacher_digest in (None, teacher) and window.manifest.get("holdout_rows") != window.rows


def take_again(spec: Spec, store: ControlStore, window: WindowRow) -> bool:
    """Whether a window without a student goes before new labels; counts how often it did."""
    gauge = store.gauges(spec.name).get(TAKEN)
    times = int(gauge.value["times"]) if gauge and gauge.value["digest"] in window.digests else 0
    if times >= MOST_TIMES:
        return False
    store.put_gauge(spec.name, TAKEN, {"digest": window.digest, "times": times + 1})
    return True
