"""From a spec's limits to the gate's criteria."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from components.contracts.spec import GAPS, Limits
from drift.gate import Criterion
from drift.looks import level_of

NO_CHAMPION = "loss and forgetting are not demanded: there is no champion yet"
NO_OLDER_WINDOW = "forgetting is not demanded: there is no older window of this teacher"
NO_SEQUENCE = "extraction_fidelity has no bound that holds at all looks, so that its limit holds: write looks: once"
NO_CONFIDENCE = "limits.confidence is not declared: estimates are judged, not bounds"

LEAST = {
    "accuracy": "min_accuracy", "agreement": "min_agreement", "teacher_accuracy": "min_teacher_accuracy",
    "coverage": "min_coverage", "micro_f1": "min_micro_f1", "span_f1": "min_span_f1",
    "span_agreement": "min_span_agreement", "cosine": "min_cosine", "recall": "min_recall",
}  # fmt: skip
MOST = {
    "loss": "max_loss", "mae_loss": "max_mae_loss", "micro_f1_loss": "max_micro_f1_loss", "ece": "max_ece",
    "attack_loss": "max_attack_loss",
    "p99_ms": "max_p99_ms", "latency_ratio": "max_latency_ratio", "cold_start_ms": "max_cold_start_ms",
    "bytes": "max_bytes",
    "memory_bytes": "max_memory_bytes", "cost_per_1000": "max_cost_per_1000", "rmse": "max_rmse",
    "cosine_loss": "max_cosine_loss", "recall_loss": "max_recall_loss",
    "membership_advantage": "max_membership_advantage", "extraction_fidelity": "max_extraction_fidelity",
    "span_f1_loss": "max_span_f1_loss",
}  # fmt: skip
MANY = {
    "slice_loss": "max_slice_loss", "forgetting": "max_forgetting", "noise_loss": "max_noise_loss",
    "parity_gap": "max_parity_gap", "probability_gap": "max_probability_gap",
}  # fmt: skip
"""The limit that stands for each measure; those in ``MANY`` hold for every slice, regime, disturbance or export that
is declared by itself."""

COMPARED = (
    "loss", "mae_loss", "micro_f1_loss", "span_f1_loss", "cosine_loss", "recall_loss", "slice_loss", "forgetting",
    "latency_ratio",
)  # fmt: skip
"""What only a champion can be compared in."""


def criteria(
    limits: Limits, *, champion: bool, older: bool, look: int = 1, names: Sequence[str] = ()
) -> tuple[tuple[Criterion, ...], tuple[str, ...]]:
    """The criteria that ``limits`` demand, and why any of them is left out.

    Enough rows are always demanded, as evidence: with fewer the verdict is hold. The champion (``loss``) and older
    windows (``forgetting``) can be demanded only where there are any. ``names`` are those of the measures, of which
    the slices, regimes, disturbances and exports are looked for; where a limit has none of them, the measure that it
    is named by is demanded. Groups are those of the limits, whether or not a row is of them.
    """
    notes = [NO_CHAMPION] if not champion else [NO_OLDER_WINDOW] if not older else []
    left_out = {*(() if champion else COMPARED), *(() if older else ("forgetting",))}
    confidence = None if limits.confidence is None else level_of(limits.confidence, look)
    if confidence is None:
        notes.append(NO_CONFIDENCE)
    if limits.looks == "repeated" and limits.max_extraction_fidelity is not None:
        notes.append(NO_SEQUENCE)
    made = [Criterion(measure="rows", at_least=float(limits.min_rows), evidence=True)]
    for measure, name in (LEAST | MOST | MANY).items():
        limit = getattr(limits, name)
        if limit is None or measure in left_out:
            continue
        limit = float(limit)  # as it is read back from evidence
        if measure in LEAST:
            made.append(Criterion(measure=measure, at_least=limit, confidence=confidence))
            continue
        parts = [n for n in names if n.startswith(f"{measure}[")] if measure in MANY else []
        made += [
            Criterion(measure=part, at_most=limit, confidence=confidence, family=measure if measure in MANY else "")
            for part in parts or [measure]
        ]
    return (*made, *_of_groups(limits, confidence)), tuple(notes)


def _of_groups(limits: Limits, confidence: float | None) -> Iterator[Criterion]:
    """The criteria of groups: each has rows enough, as evidence, and no two are farther apart than the limits."""
    for name, groups in limits.groups.items():
        demanded = {measure: limit for measure, field in GAPS.items() if (limit := getattr(groups, field)) is not None}
        least = float(groups.min_rows or limits.min_rows)
        truths = "accuracy_gap" in demanded
        counts = (["group_truth_rows"] if truths else []) + (["group_rows"] if len(demanded) > truths else [])
        for count in counts:
            for group in groups.names:
                yield Criterion(measure=f"{count}[{name}={group}]", at_least=least, evidence=True)
        for measure, limit in demanded.items():
            at_most = float(limit)
            yield Criterion(measure=f"{measure}[{name}]", at_most=at_most, confidence=confidence, family=measure)
