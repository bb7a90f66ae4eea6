"""From a spec's limits to the gate's criteria."""

from __future__ import annotations

from components.contracts.spec import Limits
from drift.gate import Criterion

NO_CHAMPION = "loss and forgetting are not demanded: there is no champion yet"
NO_OLDER_WINDOW = "forgetting is not demanded: there is no older window of this teacher"

LEAST = {"accuracy": "min_accuracy", "agreement": "min_agreement", "teacher_accuracy": "min_teacher_accuracy"}
MOST = {
    "loss": "max_loss", "forgetting": "max_forgetting", "ece": "max_ece", "parity_gap": "max_parity_gap",
    "p99_ms": "max_p99_ms", "bytes": "max_bytes", "rmse": "max_rmse",
}  # fmt: skip
"""The limit that stands for each measure."""


def criteria(limits: Limits, *, champion: bool, older: bool) -> tuple[tuple[Criterion, ...], tuple[str, ...]]:
    """The criteria that ``limits`` demand, and why any of them is left out.

    Enough rows are always demanded, as evidence: with fewer the verdict is hold. The champion (``loss``) and older
    windows (``forgetting``) can be demanded only where there are any.
    """
    left_out = () if champion and older else ("forgetting",) if champion else ("loss", "forgetting")
    made = [Criterion(measure="rows", at_least=limits.min_rows, evidence=True)]
    for measure, name in (LEAST | MOST).items():
        limit = getattr(limits, name)
        if limit is None or measure in left_out:
            continue
        made.append(
            Criterion(measure=measure, at_least=limit)
            if measure in LEAST
            else Criterion(measure=measure, at_most=limit)
        )
    note = NO_CHAMPION if not champion else NO_OLDER_WINDOW if not older else ""
    return tuple(made), (note,) if note else ()
