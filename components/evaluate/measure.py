"""Measures of a candidate's answers. Pure; a measure that rests on fewer than ``min_rows`` rows is None."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.contracts.records import SoftLabel, Task
from components.distill.data import Rows
from drift.deferral import deferral_limit
from drift.quality import accuracy, expected_calibration_error, mae, per_slice, rmse, weighted_proportion
from drift.reweight import thinned

SLICE_SUPPORT = 10
"""Rows that a class needs before its accuracy is looked at by itself."""

CLOSE = 2.0
"""A regression answer within this many of the teacher's scales of its value agrees with it (95 % of a normal)."""

LEAST_ERROR = 1e-12
"""Stands for an error of zero as the base of a relative change."""

Measurements = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A holdout: what the teacher says of its inputs, their truth where it is known, and one student's answers."""

    rows: Rows
    answers: list[SoftLabel]

    def known(self) -> tuple[list[SoftLabel], list[SoftLabel], list[Any], list[float]]:
        """Answers, soft labels, truths and weights of the rows whose truth is known."""
        rows = self.rows.take([i for i, t in enumerate(self.rows.truth) if t is not None])
        answers = [a for a, t in zip(self.answers, self.rows.truth, strict=True) if t is not None]
        return answers, rows.soft, rows.truth, rows.weights


def quality(task: Task, judged: Judged, min_rows: int) -> Measurements:
    """Measures against truth and teacher.

    Classification: ``accuracy``, ``ece``, ``teacher_accuracy``, ``worst_slice_accuracy`` (over the true classes with
    at least :data:`SLICE_SUPPORT` rows), ``agreement`` with the teacher and its lower 95 % bound. Regression:
    ``rmse`` and ``mae`` in the target's unit, ``agreement`` (within :data:`CLOSE` of the teacher's scales). Rows count
    by their weights, so that what was labelled with a smaller chance says more: all are measures of the traffic.
    """
    answers, teacher, truth, weights = judged.known()
    out: Measurements = {"rows": float(len(judged.rows)), "truth_rows": float(len(truth))}
    out |= _agreement(task, judged, min_rows)
    if task == "regression":
        values = [_value(a) for a in answers]
        enough = len(truth) >= min_rows
        return out | {
            "rmse": rmse(values, truth, weights) if enough else None,
            "mae": mae(values, truth, weights) if enough else None,
        }
    names = ("accuracy", "ece", "teacher_accuracy", "worst_slice_accuracy")
    if len(truth) < min_rows:
        return out | dict.fromkeys(names)
    labels = [a.label for a in answers]
    right = [label == t for label, t in zip(labels, truth, strict=True)]
    slices = slice_accuracies(judged)
    return out | {
        "accuracy": accuracy(labels, truth, weights=weights).value,
        "ece": expected_calibration_error([a.confidence for a in answers], right, weights=weights),
        "teacher_accuracy": accuracy([s.label for s in teacher], truth, weights=weights).value,
        "worst_slice_accuracy": min(slices.values()) if slices else None,
    }


def deferral(task: Task, judged: Judged, most: float) -> Measurements:
    """The limit below which answers are to be deferred so that at most ``most`` of the others disagree.

    ``defer_below`` with the share ``defer_kept`` that is not deferred; both None where no limit can be certified at
    95 % on these rows (:func:`drift.deferral.deferral_limit`). Of rows that do not weigh the same, those count that
    :func:`drift.reweight.thinned` leaves: the bound is one for rows that are drawn as the traffic is.
    """
    agrees, drawn = _agrees(task, judged), thinned(judged.rows.weights)
    found = deferral_limit([judged.answers[i].confidence for i in drawn], [not agrees[i] for i in drawn], most)
    if found is None:
        return {"defer_below": None, "defer_kept": None}
    return {"defer_below": found.limit, "defer_kept": found.kept}


def _agrees(task: Task, judged: Judged) -> list[bool]:
    pairs = zip(judged.answers, judged.rows.soft, strict=True)
    if task == "regression":
        return [abs(_value(a) - _value(s)) <= CLOSE * float(s.scale or 0.0) for a, s in pairs]
    return [a.label == s.label for a, s in pairs]


def _agreement(task: Task, judged: Judged, min_rows: int) -> Measurements:
    if len(judged.rows) < min_rows:
        return {"agreement": None, "agreement_lower": None}
    share = weighted_proportion(_agrees(task, judged), judged.rows.weights)
    return {"agreement": share.value, "agreement_lower": share.lower}


def _value(soft: SoftLabel) -> float:
    return float(soft.value or 0.0)


def slice_accuracies(judged: Judged) -> dict[str, float]:
    """Accuracy on every true class that has at least :data:`SLICE_SUPPORT` rows."""
    answers, _, truth, weights = judged.known()
    shares = per_slice([a.label for a in answers], truth, truth, min_support=SLICE_SUPPORT, weights=weights)
    return {str(name): share.value for name, share in shares.items()}


def loss(task: Task, candidate: Judged, champion: Judged, min_rows: int) -> float | None:
    """How much worse the candidate is than the champion on the same rows with truth; negative where it is better.

    Classification: the champion's accuracy less the candidate's. Regression: the relative rise of the root mean
    squared error.
    """
    ours, _, truth, weights = candidate.known()
    theirs, _, _, _ = champion.known()
    if len(truth) < min_rows:
        return None
    if task == "regression":
        before, after = (float(rmse([_value(a) for a in x], truth, weights) or 0.0) for x in (theirs, ours))
        return (after - before) / max(before, LEAST_ERROR)
    before, after = (accuracy([a.label for a in x], truth, weights=weights).value for x in (theirs, ours))
    return before - after


def pooled(holdouts: Sequence[Rows], min_rows: int) -> list[Rows]:
    """Holdouts of older windows, oldest first, neighbours put together until each group has ``min_rows`` truths.

    What is left over goes to the last group, so that no group is too small to say anything, unless all together are.
    """
    groups: list[Rows] = []
    gathered = Rows(payloads=[], soft=[], truth=[])
    for rows in holdouts:
        gathered = gathered + rows
        if sum(t is not None for t in gathered.truth) >= min_rows:
            groups.append(gathered)
            gathered = Rows(payloads=[], soft=[], truth=[])
    if len(gathered):
        groups[-1:] = [groups[-1] + gathered] if groups else [gathered]
    return groups


def forgetting(task: Task, pairs: Sequence[tuple[Judged, Judged]], min_rows: int) -> float | None:
    """The largest :func:`loss` over groups of older windows, each judged for the candidate and the champion.

    None where there is no group, or one of them has too few truths: what was not looked at may be forgotten.
    """
    losses = [loss(task, candidate, champion, min_rows) for candidate, champion in pairs]
    known = [x for x in losses if x is not None]
    return max(known) if known and len(known) == len(losses) else None


def confusion(judged: Judged) -> dict[str, Any]:
    """``labels`` in alphabetical order, and ``matrix`` of counts: rows are the truth, columns the student's answer."""
    answers, _, truth, _ = judged.known()
    labels = sorted({a.label for a in answers} | {str(t) for t in truth})
    place = {name: i for i, name in enumerate(labels)}
    matrix = [[0] * len(labels) for _ in labels]
    for answer, t in zip(answers, truth, strict=True):
        matrix[place[str(t)]][place[answer.label]] += 1
    return {"labels": labels, "matrix": matrix}
