"""What components read from and write to Kubeflow's artifacts, so that its UI shows it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from components.steps import NOTHING, Candidate

__all__ = ["NOTHING", "read_candidate", "show", "write_candidate"]


def read_candidate(path: str) -> Candidate | None:
    """The candidate that an artifact holds; None where there was nothing new to train on."""
    return msgspec.json.decode(Path(path).read_bytes(), type=Candidate | None)


def write_candidate(artifact: Any, candidate: Candidate | None) -> None:
    """Write a candidate (or none) into a Model artifact, with what the UI should show of it."""
    Path(artifact.path).write_bytes(msgspec.json.encode(candidate))
    if candidate is None:
        artifact.metadata["decision"] = NOTHING
        return
    artifact.metadata.update(
        {"uri": candidate.uri, "digest": candidate.digest, "decision": candidate.decision}
        | {"variant": candidate.card.variant, "export": candidate.card.form}
        | {"snapshots": list(candidate.card.snapshots), "teacher": candidate.card.teacher}
        | {"reasons": list(candidate.verdict.get("reasons", ()))}
    )


def show(candidate: Candidate | None, metrics: Any, confusion: Any) -> None:
    """Fill the Metrics and ClassificationMetrics artifacts of an evaluation."""
    if candidate is None:
        return
    for name, value in candidate.measurements.items():
        if value is not None and math.isfinite(value):
            metrics.log_metric(name, value)
    if candidate.confusion.get("labels"):
        confusion.log_confusion_matrix(candidate.confusion["labels"], candidate.confusion["matrix"])
