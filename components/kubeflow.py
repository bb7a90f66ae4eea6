"""What components read from and write to Kubeflow's artifacts, so that its UI shows it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from components.contracts.storage import get_bytes
from components.steps import Candidate

NO_REPORT = "<p>There is no older window to compare with yet.</p>"


def read_candidate(path: str) -> Candidate:
    """The candidate that an artifact holds."""
    return msgspec.json.decode(Path(path).read_bytes(), type=Candidate)


def write_candidate(artifact: Any, candidate: Candidate) -> None:
    """Write a candidate into a Model artifact, with what the UI should show of it."""
    Path(artifact.path).write_bytes(msgspec.json.encode(candidate))
    artifact.metadata.update(
        {"uri": candidate.uri, "digest": candidate.digest, "decision": candidate.decision}
        | {"reasons": list(candidate.verdict.get("reasons", ()))}
    )


def show(candidate: Candidate, metrics: Any, confusion: Any, report_path: str) -> None:
    """Fill the Metrics, ClassificationMetrics and HTML artifacts of an evaluation."""
    for name, value in candidate.measurements.items():
        if value is not None and math.isfinite(value):
            metrics.log_metric(name, value)
    if candidate.confusion.get("labels"):
        confusion.log_confusion_matrix(candidate.confusion["labels"], candidate.confusion["matrix"])
    html = get_bytes(candidate.report_html_uri) if candidate.report_html_uri else NO_REPORT.encode()
    Path(report_path).write_bytes(html)
