"""Shares of rows of evidence: which rows count, and what counts as a hit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from components.contracts.vectors import near
from components.evaluate.evidence import Answer, Evidence, Row
from drift.measured import Share

CLOSE = 2.0
"""A regression answer within this many of the teacher's scales of its value agrees with it (95 % of a normal)."""


def known(rows: Sequence[Row]) -> list[Row]:
    """The rows whose truth is known."""
    return [row for row in rows if row.truth is not None]


def right(answer: Answer | None, truth: Any) -> bool:
    """Whether an answer's label is true: a class, or the text of a whole set or of all spans."""
    return answer is not None and answer.label == truth


def agrees(answer: Answer, teacher: Answer | None) -> bool:
    """Whether an answer is the teacher's: its label, or within :data:`CLOSE` of its scales of its value.

    Of vectors: within :data:`components.contracts.vectors.WITHIN` of the teacher's scales of its vector.
    """
    if teacher is None:
        return False
    if teacher.label is not None and teacher.scale is not None:
        return answer.label is not None and near(answer.label, teacher.label, teacher.scale)
    if teacher.value is not None and answer.value is not None:
        return abs(answer.value - teacher.value) <= CLOSE * float(teacher.scale or 0.0)
    return answer.label is not None and answer.label == teacher.label


def says(answer: Answer | None) -> bool:
    """Whether there is an answer that another can be compared with."""
    return answer is not None and (answer.label is not None or answer.value is not None)


def confidence_of(answer: Answer) -> float:
    """The confidence by which an answer is deferred: :attr:`components.contracts.records.SoftLabel.confidence`."""
    return 1.0 / (1.0 + float(answer.scale or 0.0)) if answer.confidence is None else answer.confidence


def sampled(evidence: Evidence, rows: Sequence[Row]) -> list[Row]:
    """The rows that a measure rests on: where they are looked at repeatedly, those that all count alike, or none."""
    if not evidence.judgement.repeated or len({row.weight for row in rows}) == 1:
        return list(rows)
    audits = [row for row in rows if row.audit]
    return audits if len({row.weight for row in audits}) == 1 else []


def share_of(
    evidence: Evidence, rows: Sequence[Row], hit: Callable[[Row], bool], min_rows: int | None = None
) -> Share | None:
    """The share of hits; None of fewer rows than ``min_rows`` (left out: the evaluation's)."""
    used = sampled(evidence, rows)
    if len(used) < (evidence.judgement.min_rows if min_rows is None else min_rows) or not used:
        return None
    hits, weights = tuple(hit(row) for row in used), tuple(row.weight for row in used)
    return Share(hits=hits, weights=weights, anytime=evidence.judgement.repeated)
