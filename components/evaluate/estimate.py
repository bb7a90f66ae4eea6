"""What could be said of a champion's accuracy on a new window before its truth came, and how far off that was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.contracts.records import NAMED
from components.evaluate.evidence import NEW, Answer, Evidence, Row
from components.evaluate.measure import REGIME
from components.evaluate.share import agrees, known, right
from drift.label_free import Foretold, Scores, foretell, mean_confidence


def label_free(evidence: Evidence, seed: int) -> dict[str, Any] | None:
    """The champion's accuracy on the newest window as foretold from older ones, by method; None where it cannot be.

    ``METHOD``, ``METHOD_lower`` and ``METHOD_upper`` for each of :data:`drift.label_free.METHODS`; ``mean_confidence``;
    ``accuracy``, the truth where it is known, and ``METHOD_error``, how far the estimate is from it. Agreement is that
    with the teacher: its labels come before the truth does.
    """
    older = [row for rows in evidence.sets(REGIME).values() for row in known(rows)]
    new = [row for row in evidence.rows if row.set == NEW]
    source, target = _scores(older, truth=True), _scores(new, truth=False)
    if evidence.judgement.task not in NAMED or source is None or target is None:
        return None
    found = foretell(source, target, seed=seed)
    if not found:
        return None
    truths = [right(row.champion, row.truth) for row in known(new)]
    out: dict[str, Any] = {
        "digest": evidence.judgement.champion,
        "window": evidence.judgement.window,
        "rows": len(new),
        "mean_confidence": mean_confidence(target),
        "accuracy": sum(truths) / len(truths) if truths else None,
    }
    for name, estimate in found.items():
        out |= {name: estimate.value, f"{name}_lower": estimate.lower, f"{name}_upper": estimate.upper}
        out[f"{name}_error"] = _error(estimate, out["accuracy"])
    return out


def _error(estimate: Foretold, accuracy: float | None) -> float | None:
    return None if accuracy is None else abs(estimate.value - accuracy)


def _scores(rows: Sequence[Row], *, truth: bool) -> Scores | None:
    answers: list[tuple[Row, Answer]] = [(row, row.champion) for row in rows if row.champion is not None]
    if not answers:
        return None
    return Scores.of(
        [float(a.confidence or 0.0) for _, a in answers],
        [agrees(a, row.teacher) for row, a in answers] if all(row.teacher for row, _ in answers) else (),
        [right(a, row.truth) for row, a in answers] if truth else (),
    )
