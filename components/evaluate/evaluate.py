"""The offline gate: measures the exported artifact of a candidate on holdouts and judges it by the spec's limits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from components.contracts.errors import ConfigError
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.control.tables import WindowRow
from components.distill.data import Rows, declared_teacher, replayable, window_rows
from components.evaluate.criteria import criteria
from components.evaluate.latency import latency_ms
from components.evaluate.measure import (
    Judged,
    Measurements,
    confusion,
    deferral,
    forgetting,
    loss,
    pooled,
    quality,
    slice_accuracies,
)
from components.student.parity import parity
from components.student.runtime import Student
from drift.gate import Criterion, Verdict, assess

log = logging.getLogger(__name__)

GAUGE = "evaluation"
"""Name of the gauge that holds a workload's last evaluation."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured and decided.

    ``measurements``: None for what could not be measured; ``criteria`` and ``measurements`` give ``verdict`` again
    by :func:`drift.gate.assess`; ``notes``: why criteria were left out; ``confusion``: ``labels`` and ``matrix``
    (rows: truth) on the new holdout; ``slices``: accuracy by true class.
    """

    measurements: Measurements
    verdict: Verdict
    criteria: tuple[Criterion, ...]
    notes: tuple[str, ...]
    confusion: dict[str, Any]
    slices: dict[str, float] = field(default_factory=dict)


def evaluate(
    spec: Spec,
    distilled_uri: str,
    digest: str,
    float_uri: str,
    *,
    windows: Sequence[WindowRow],
    champion: ModelRef | None,
    store: ControlStore,
) -> Evaluation:
    """Measure the artifact at ``distilled_uri`` on the holdouts of ``windows``, newest last, and judge it.

    1. Load the candidate (what would be served, checked by ``digest``), its float form, and the champion.
    2. Measure quality on the newest window's holdout, and the loss against the champion on the same rows; where the
       spec bounds the disagreement of what is not deferred, certify a limit for it.
    3. Measure forgetting on the older windows' holdouts.
    4. Measure parity, latency and size.
    5. Judge, and record the outcome as the gauge :data:`GAUGE`.

    Raises:
        ConfigError: there is no window.
        ArtifactError: an artifact or a snapshot is missing or was changed.
        ProvenanceError: a label was not made by the declared teacher.

    """
    if not windows:
        raise ConfigError("windows", [], "an evaluation needs at least one snapshot")
    # Step 1
    data = get_bytes(distilled_uri, digest)
    candidate, full = (Student.load(d, source=spec.source) for d in (data, get_bytes(float_uri)))
    serving = Student.load(get_bytes(champion.uri, champion.digest), source=spec.source) if champion else None
    # Step 2
    teacher, least = declared_teacher(spec, windows), spec.limits.min_rows
    new = window_rows(windows[-1], "holdout", spec.task, teacher)
    judged = _judge(candidate, new)
    measured = quality(spec.task, judged, least)
    measured["loss"] = loss(spec.task, judged, _judge(serving, new), least) if serving else None
    if spec.serve.max_disagreement is not None:
        measured |= deferral(spec.task, judged, spec.serve.max_disagreement)
    # Step 3
    older = [window_rows(w, "holdout", spec.task, teacher) for w in replayable(spec, windows)]
    measured["forgetting"] = _forgetting(spec, candidate, serving, older) if serving else None
    # Step 4
    payloads = [p for rows in (*older, new) for p in rows.payloads]
    measured |= _artifact(candidate, full, payloads, len(data), least)
    # Step 5
    wanted, notes = criteria(spec.limits, champion=serving is not None, older=bool(older))
    verdict = assess(measured, wanted)
    log.info("%s: candidate %s: %s", spec.name, digest[:12], verdict.decision)
    store.put_gauge(
        spec.name, GAUGE, {"digest": digest, "decision": verdict.decision, "reasons": list(verdict.reasons)} | measured
    )
    return Evaluation(
        measurements=measured,
        verdict=verdict,
        criteria=wanted,
        notes=notes,
        confusion=confusion(judged) if spec.task == "classification" else {"labels": [], "matrix": []},
        slices=slice_accuracies(judged) if spec.task == "classification" else {},
    )


def _judge(student: Student, rows: Rows) -> Judged:
    return Judged(rows=rows, answers=student.predict(rows.payloads))


def _forgetting(spec: Spec, candidate: Student, champion: Student, older: Sequence[Rows]) -> float | None:
    least = spec.limits.min_rows
    pairs = [(_judge(candidate, rows), _judge(champion, rows)) for rows in pooled(older, least)]
    return forgetting(spec.task, pairs, least)


def _artifact(candidate: Student, full: Student, payloads: list[bytes], size: int, min_rows: int) -> Measurements:
    found = parity(full.predict(payloads), candidate.predict(payloads)) if len(payloads) >= min_rows else None
    taken = latency_ms(candidate, payloads)
    return {
        "parity_gap": found.gap if found else None,
        "p50_ms": taken[0] if taken else None,
        "p99_ms": taken[1] if taken else None,
        "bytes": float(size),
    }
