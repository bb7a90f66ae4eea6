"""The offline gate: measures the exported artifact of a candidate on holdouts and judges it by the spec's limits."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import msgspec

from components.contracts.errors import ConfigError
from components.contracts.payload import decoder, knowing
from components.contracts.records import CLASSED
from components.contracts.spec import Spec, extracted
from components.contracts.storage import get_bytes, put_bytes
from components.control import learning
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.control.tables import WindowRow
from components.distill.data import Rows, holdouts
from components.evaluate.estimate import label_free
from components.evaluate.evidence import NEW, Evidence, Judgement, Row, Value, answers, decode, encode
from components.evaluate.exports import parities
from components.evaluate.extraction import extraction_rows
from components.evaluate.footprint import footprint
from components.evaluate.groups import grouped
from components.evaluate.judge import demanded
from components.evaluate.latency import latency
from components.evaluate.measure import (
    REGIME,
    Measurements,
    confusion,
    deferral,
    flat,
    measures,
    pooled,
    slice_accuracies,
)
from components.evaluate.membership import loss_of, member_rows
from components.evaluate.novelty import novelty
from components.evaluate.robustness import attack_rows, noise_rows
from components.evaluate.share import agrees, confidence_of
from components.snapshot.holdout import enough
from components.steps import evidence_folder, evidence_of
from components.student.ensemble import disagreement
from components.student.runtime import Student
from drift.gate import Criterion, Verdict, assess

log = logging.getLogger(__name__)

GAUGE = "evaluation"
"""Name of the gauge that holds a workload's last evaluation."""

LABEL_FREE = "label_free"
"""Name of the gauge of the accuracy that was foretold without labels, and of how far it was from the truth."""

DEFAULT_CONFIDENCE = 0.95
"""Of the bounds that are reported of measures where the spec declares none."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured and decided.

    ``measurements``: None for what could not be measured; ``evidence`` gives them and ``verdict`` again, by
    :func:`components.evaluate.judge.judge`, and lies at ``evidence_uri``; ``notes``: why criteria were left out;
    ``confusion`` (classification): ``labels`` and ``matrix`` (rows: truth) on the new holdout; ``slices``: accuracy by
    true class.
    """

    measurements: Measurements
    verdict: Verdict
    criteria: tuple[Criterion, ...]
    notes: tuple[str, ...]
    confusion: dict[str, Any]
    evidence: Evidence
    evidence_uri: str
    slices: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A student, and the two that it is compared with, where there are any."""

    candidate: Student
    champion: Student | None
    previous: Student | None


def evaluate(
    spec: Spec,
    distilled_uri: str,
    digest: str,
    float_uri: str,
    *,
    windows: Sequence[WindowRow],
    champion: ModelRef | None,
    store: ControlStore,
    previous: ModelRef | None = None,
) -> Evaluation:
    """Measure the artifact at ``distilled_uri`` on the holdouts of ``windows``, newest last, and judge it.

    1. Load the candidate (what would be served, checked by ``digest``), its float form, and who it is compared with.
    2. Ask them about the newest window's holdout, and about what is not yet released of those of older regimes (where
       no champion serves that could forget them, they are judged as new: labels that come later add to those that were
       there); where the spec bounds the disagreement of what is not deferred, certify a limit for it; put them into
       the groups that are to be treated alike; and see whether its p-values of novelty are what they say.
    3. Ask the candidate about disturbed inputs, and about rows that it learnt from; and see how well its answers teach
       another model to answer alike, where that is asked for.
    4. Measure parity, latency and size.
    5. Judge, and write the evidence with its verdict beside the window's other evaluations.
    6. Record the outcome as the gauge :data:`GAUGE`, the points of the learning curve that it measured
       (:mod:`components.control.learning`), and how true the estimate without labels was.

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
    line = Line(candidate=candidate, champion=_load(spec, champion), previous=_load(spec, previous))
    # Step 2
    *before, (_, new) = holdouts(spec, windows)
    newest = len(new)
    older = [(f"window {window.number}", part) for window, part in before]
    if champion is None:
        new, older = sum((part for _, part in older), new), []
    rows = _rows(NEW, line, new)
    if members := member_rows(spec, windows, candidate):
        rows = _with_losses(candidate, rows, new, newest)
    most = spec.serve.max_disagreement
    certified = deferral(rows, most) if most is not None else {}
    if spec.limits.groups:
        rows = _in_groups(spec, rows, new, candidate, certified)
    certified |= novelty(candidate, new, spec.serve.novelty)
    for name, part in pooled(older, enough(spec.limits, spec.task), truths=spec.task != "embedding"):
        rows += _rows(f"{REGIME}{name}", line, part)
    # Step 3
    decode_payload = knowing(decoder(spec.payload, spec.source))
    probed = [decode_payload(p) for p in new.payloads[: spec.limits.disturbance.rows]]
    if spec.task == "tagging":  # a character more or less moves every span behind it
        probed = []
    rows += noise_rows(candidate, new, probed, spec.limits.disturbance, spec.seed)
    if spec.limits.max_attack_loss is not None:
        rows += attack_rows(candidate, new, probed, spec.limits.disturbance, spec.seed)
    rows += members
    if (stolen := extracted(spec.limits)) is not None:
        rows += extraction_rows(candidate, new, stolen, spec.limits.min_rows, spec.seed)
    # Step 4
    payloads = [p for part in (*(r for _, r in older), new) for p in part.payloads]
    values = certified | _artifact(spec, line, full, payloads, data, distilled_uri)
    # Step 5
    folder = evidence_folder(windows[-1])
    judgement = Judgement(
        workload=spec.name,
        task=spec.task,
        digest=digest,
        window=windows[-1].digest,
        champion=champion.digest if champion else None,
        look=_look(folder, digest),
        confidence=DEFAULT_CONFIDENCE,
    )
    seen = tuple(Value(measure=name, value=value) for name, value in values.items())
    evidence = demanded(Evidence(judgement=judgement, rows=tuple(rows), values=seen), spec.limits)
    found = measures(evidence)
    verdict = assess(found, evidence.judgement.criteria)
    uri = evidence_of(windows[-1], digest)
    put_bytes(uri, encode(evidence, verdict))
    # Step 6
    measured = flat(found, evidence.judgement.confidence)
    log.info("%s: candidate %s: %s", spec.name, digest[:12], verdict.decision)
    said = {"digest": digest, "decision": verdict.decision, "reasons": list(verdict.reasons), "evidence": uri}
    store.put_gauge(spec.name, GAUGE, said | measured)
    learning.add(store, spec.name, _evaluated(evidence, windows, champion))
    if (foretold := label_free(evidence, spec.seed)) is not None:
        store.put_gauge(spec.name, LABEL_FREE, foretold)
    fresh = [row for row in rows if row.set == NEW]
    return Evaluation(
        measurements=measured,
        verdict=verdict,
        criteria=evidence.judgement.criteria,
        notes=evidence.judgement.notes,
        confusion=confusion(fresh) if spec.task == "classification" else {"labels": [], "matrix": []},
        evidence=evidence,
        evidence_uri=uri,
        slices=slice_accuracies(fresh, spec.task) if spec.task in CLASSED else {},
    )


def _evaluated(evidence: Evidence, windows: Sequence[WindowRow], champion: ModelRef | None) -> learning.Evaluated:
    """The points of the learning curve: how often the candidate, and the champion, disagree on the new holdout."""
    rows = [row for row in evidence.rows if row.set == NEW and row.weight > 0.0]
    part = len(rows) / max(sum(row.weight for row in rows), 1e-9)

    def share(wrong: Iterable[Row]) -> float:
        return min(float(len(rows)), part * sum(row.weight for row in wrong))  # a sum may round to more than all

    return learning.Evaluated(
        window=windows[-1].digest,
        digest=evidence.judgement.digest,
        rows=float(len(rows)),
        wrong=share(row for row in rows if not agrees(row.candidate, row.teacher)),
        champion_window=champion.snapshot if champion else None,
        champion_wrong=share(row for row in rows if row.champion is None or not agrees(row.champion, row.teacher))
        if champion
        else None,
    )


def _look(folder: str, digest: str) -> int:
    """Which student this is on its window's holdout; one that is judged again keeps its place."""
    filesystem, path = fsspec.core.url_to_fs(folder)
    known = filesystem.glob(f"{path}/*.jsonl")
    for file in known:
        if str(file).endswith(f"/{digest}.jsonl"):
            return decode(filesystem.cat_file(file).splitlines())[0].judgement.look
    return len(known) + 1


def _load(spec: Spec, model: ModelRef | None) -> Student | None:
    return Student.load(get_bytes(model.uri, model.digest), source=spec.source) if model else None


def _rows(name: str, line: Line, rows: Rows) -> list[Row]:
    said = [s.predict(rows.payloads) if s is not None else None for s in (line.candidate, line.champion, line.previous)]
    mine, theirs = answers(said[0], len(rows)), answers(said[1], len(rows))
    teacher, shared = answers(rows.soft, len(rows)), disagreement([s for s in said if s is not None])
    return [
        Row(
            set=name,
            id=rows.ids[i],
            weight=rows.weights[i],
            audit=rows.audit[i],
            truth=rows.truth[i],
            teacher=teacher[i],
            candidate=answer,
            champion=theirs[i],
            mutual_information=shared[i] if shared else None,
        )
        for i, answer in enumerate(mine)
        if answer is not None
    ]


def _with_losses(candidate: Student, rows: Sequence[Row], new: Rows, newest: int) -> list[Row]:
    """The rows, with the candidate's losses of the ``newest`` window's, which come first, that no audit chose."""
    losses = [loss_of(soft, answer) for soft, answer in zip(new.soft, candidate.predict(new.payloads), strict=True)]
    return [
        msgspec.structs.replace(row, loss=loss) if i < newest and not row.audit else row
        for i, (row, loss) in enumerate(zip(rows, losses, strict=True))
    ]


def _in_groups(
    spec: Spec, rows: Sequence[Row], new: Rows, candidate: Student, certified: Mapping[str, float | None]
) -> list[Row]:
    """The rows with the groups that they are of, and whether they would be deferred: for their confidence or novelty.

    Where a limit was to be certified and could not be, every answer would be.
    """
    limit = certified.get("defer_below", spec.serve.defer_below)
    alpha = spec.serve.novelty
    strange = [r.novelty for r in candidate.reply(new.payloads)] if alpha is not None else [None] * len(new)

    def deferred(row: Row, p: float | None) -> bool:
        unsure = limit is None or confidence_of(row.candidate) < limit
        return unsure or (alpha is not None and p is not None and p <= alpha)

    return [
        msgspec.structs.replace(row, groups=groups, deferred=deferred(row, p))
        for row, groups, p in zip(rows, grouped(spec, new.payloads), strange, strict=True)
    ]


def _artifact(
    spec: Spec, line: Line, full: Student, payloads: list[bytes], data: bytes, uri: str
) -> dict[str, float | None]:
    """Parity of the export's forms, latency beside the champion, size, and where they are demanded memory and start."""
    limits, enough = spec.limits, len(payloads) >= spec.limits.min_rows
    taken = latency(line.candidate, payloads, line.champion)
    values: dict[str, float | None] = {
        **parities(spec, line.candidate, full, payloads if enough else [], uri),
        "p50_ms": taken.p50 if taken else None,
        "p95_ms": taken.p95 if taken else None,
        "p99_ms": taken.p99 if taken else None,
        "latency_ratio": taken.ratio if taken else None,
        "bytes": float(len(data)),
    }
    if limits.core_hour_price is not None and taken is not None:
        values["cost_per_1000"] = limits.core_hour_price * taken.mean / 3_600.0  # 1,000 inputs of so many ms
    if limits.max_memory_bytes is not None or limits.max_cold_start_ms is not None:
        with tempfile.TemporaryDirectory() as folder:
            started = footprint(data, payloads[:50], Path(folder), source=spec.source)
        values |= {"memory_bytes": started.memory_bytes, "cold_start_ms": started.cold_start_ms}
    return values


def read_evidence(uri: str) -> Evidence:
    """The evidence at a URI.

    Raises:
        ArtifactError: there is none.
        ConfigError: it is not evidence.

    """
    return decode(get_bytes(uri).splitlines())[0]


__all__ = ["GAUGE", "LABEL_FREE", "Evaluation", "evaluate", "read_evidence"]
