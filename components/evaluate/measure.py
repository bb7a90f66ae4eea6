"""From evidence to measures. Pure; a measure that rests on fewer than ``min_rows`` rows is None."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from components.distill.data import Rows
from components.evaluate.evidence import NEW, Answer, Evidence, Row
from components.evaluate.extraction import extraction
from components.evaluate.groups import of_groups
from components.evaluate.membership import membership
from components.evaluate.share import agrees, confidence_of, known, right, sampled, says, share_of
from components.evaluate.spans import span_measures
from drift.deferral import deferral_limit
from drift.entropy import summarise
from drift.gate import Measurement
from drift.measured import ErrorLevel, ErrorRise, Measured, PairedLoss, Share
from drift.reliability import Bin, debiased_ece, reliability
from drift.reweight import thinned

SLICE_SUPPORT = 10
"""Rows that a class needs before its accuracy is looked at by itself."""

NINETY = 1.6448536269514722
"""Scales on both sides of a regression's value that hold the truth in 90 % of normals."""

Measurements = dict[str, float | None]

REGIME, NOISE, ATTACK = "regime ", "noise ", "attack"
"""Prefixes of the sets of rows: older windows, disturbed inputs, and those that were searched for."""


def measures(evidence: Evidence) -> dict[str, Measurement]:
    """Every measure that evidence allows, by name; what the gate judges.

    ``rows`` and ``truth_rows`` count the newest window's holdout. Of it: ``agreement`` with the teacher; against truth
    ``accuracy``, ``teacher_accuracy``, ``ece``, ``worst_slice_accuracy``, ``loss``, ``slice_loss[CLASS]`` (regression:
    ``rmse``, ``mae``, ``coverage``, ``loss`` and ``mae_loss``; tagging, beside the accuracies of whole texts, ``ece``
    and ``loss``: those of :func:`components.evaluate.spans.span_measures`); ``forgetting[REGIME]`` of older ones and
    the worst as ``forgetting``; ``noise_loss[NAME]`` and ``attack_loss`` of agreement; ``teacher_entropy``,
    ``student_entropy``, ``entropy_gap`` and ``mutual_information`` in nats; those of groups
    (:func:`components.evaluate.groups.of_groups`); what tells of the rows that were learnt from
    (:func:`components.evaluate.membership.membership`), and how well answers teach another model to answer alike
    (:func:`components.evaluate.extraction.extraction`); then whatever values the evidence holds.
    """
    judgement = evidence.judgement
    evidence = msgspec.structs.replace(evidence, rows=tuple(row for row in evidence.rows if row.weight > 0.0))
    new = [row for row in evidence.rows if row.set == NEW]
    found: dict[str, Measurement] = {
        "rows": float(len(new)),
        "truth_rows": float(len(known(new))),
        "agreement": agreement(evidence, new),
    }
    if judgement.task == "tagging":
        found |= _tagging(evidence, new)
    else:
        found |= _regression(evidence, new) if judgement.task == "regression" else _classification(evidence, new)
    older = evidence.sets(REGIME)
    losses = {name.removeprefix(REGIME): loss(evidence, known(rows)) for name, rows in older.items()}
    found["forgetting"] = _worst(list(losses.values()))
    found |= {f"forgetting[{name}]": lost for name, lost in losses.items()}
    for name, rows in (evidence.sets(NOISE) | evidence.sets(ATTACK)).items():
        measure = f"noise_loss[{name.removeprefix(NOISE)}]" if name.startswith(NOISE) else "attack_loss"
        found[measure] = _disturbed(evidence, rows)
    found |= of_groups(evidence, new) | membership(evidence, new) | extraction(evidence)
    return found | _entropies(new) | {v.measure: v.value for v in evidence.values}


def flat(measured: dict[str, Measurement], confidence: float) -> Measurements:
    """Measures as numbers: their estimates, and for those with bounds ``NAME_lower`` and ``NAME_upper``."""
    out: Measurements = {}
    for name, measure in measured.items():
        if measure is None or isinstance(measure, float | int):
            out[name] = measure
            continue
        out[name] = _finite(measure.value)
        out[f"{name}_lower"] = _finite(measure.bound("lower", confidence))
        out[f"{name}_upper"] = _finite(measure.bound("upper", confidence))
    return out


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def agreement(evidence: Evidence, rows: Sequence[Row]) -> Share | None:
    """How often the candidate says what the teacher says."""
    return share_of(evidence, [r for r in rows if says(r.teacher)], lambda r: agrees(r.candidate, r.teacher))


def deferral(rows: Sequence[Row], most: float) -> Measurements:
    """The limit below which answers are to be deferred so that at most ``most`` of the others disagree.

    ``defer_below`` with the share ``defer_kept`` that is not deferred; both None where no limit can be certified at
    95 % on these rows (:func:`drift.deferral.deferral_limit`). Of rows that do not weigh the same, those count that
    :func:`drift.reweight.thinned` leaves: the bound is one for rows that are drawn as the traffic is.
    """
    asked = [row for row in rows if row.teacher is not None]
    drawn = [asked[i] for i in thinned([row.weight for row in asked])]
    disagree = [not agrees(row.candidate, row.teacher) for row in drawn]
    found = deferral_limit([confidence_of(row.candidate) for row in drawn], disagree, most)
    if found is None:
        return {"defer_below": None, "defer_kept": None}
    return {"defer_below": found.limit, "defer_kept": found.kept}


def loss(evidence: Evidence, rows: Sequence[Row]) -> PairedLoss | ErrorRise | None:
    """How much worse the candidate is than the champion on the same rows with truth; None where there is no champion.

    Classification: the difference of the accuracies. Regression: the relative rise of the root mean squared error.
    """
    used = sampled(evidence, [row for row in rows if row.champion is not None])
    if len(used) < evidence.judgement.min_rows or not used:
        return None
    if evidence.judgement.task == "regression":
        return _rise(used, 2)
    return PairedLoss.of(
        [right(row.candidate, row.truth) for row in used],
        [right(row.champion, row.truth) for row in used],
        [row.weight for row in used],
        repeated=evidence.judgement.repeated,
    )


def _rise(rows: Sequence[Row], power: int) -> ErrorRise:
    return ErrorRise(
        candidate=tuple(_error(row.candidate, row.truth) for row in rows),
        champion=tuple(_error(row.champion, row.truth) for row in rows),
        weights=tuple(row.weight for row in rows),
        power=power,
    )


def _error(answer: Answer | None, truth: Any) -> float:
    """How far an answer is from the truth; NaN of none, which no measure of it survives."""
    return math.nan if answer is None or answer.value is None else abs(answer.value - float(truth))


def _classification(evidence: Evidence, new: Sequence[Row]) -> dict[str, Measurement]:
    rows, least = known(new), evidence.judgement.min_rows
    found: dict[str, Measurement] = {
        "accuracy": share_of(evidence, rows, lambda r: right(r.candidate, r.truth)),
        "teacher_accuracy": share_of(evidence, rows, lambda r: right(r.teacher, r.truth)),
        "ece": debiased_ece(curve(rows)) if len(rows) >= least and _are_sure(rows) else None,
        "worst_slice_accuracy": None,
        "loss": loss(evidence, rows),
    }
    if len(rows) >= least:
        parts = slices(rows)
        shares = slice_accuracies(rows)
        found["worst_slice_accuracy"] = min(shares.values()) if shares else None
        small = Evidence(judgement=_with_least(evidence, 1), rows=(), values=())
        compared = {name: loss(small, part) for name, part in parts.items()}
        found |= {f"slice_loss[{name}]": lost for name, lost in compared.items() if lost is not None}
    return found


def _tagging(evidence: Evidence, new: Sequence[Row]) -> dict[str, Measurement]:
    found = _classification(evidence, new)  # a text is right where all its spans are
    kept = ("accuracy", "teacher_accuracy", "ece", "loss")
    return {name: found[name] for name in kept} | span_measures(evidence, new)


def _are_sure(rows: Sequence[Row]) -> bool:
    """Whether every answer says how sure it is."""
    return all(row.candidate.confidence is not None for row in rows)


def _with_least(evidence: Evidence, least: int) -> Any:
    return msgspec.structs.replace(evidence.judgement, min_rows=least)


def _regression(evidence: Evidence, new: Sequence[Row]) -> dict[str, Measurement]:
    rows = known(new)
    enough = len(rows) >= evidence.judgement.min_rows and bool(rows)
    errors, weights = tuple(_error(r.candidate, r.truth) for r in rows), tuple(r.weight for r in rows)
    compared = [row for row in rows if row.champion is not None]
    return {
        "rmse": ErrorLevel(errors=errors, weights=weights) if enough else None,
        "mae": ErrorLevel(errors=errors, weights=weights, power=1) if enough else None,
        "coverage": share_of(evidence, rows, covers) if all(_spans(r.candidate) for r in rows) else None,
        "loss": loss(evidence, rows),
        "mae_loss": _rise(compared, 1) if enough and compared else None,
    }


def _spans(answer: Answer) -> bool:
    """Whether an answer has an interval."""
    return answer.value is not None and answer.scale is not None


def covers(row: Row) -> bool:
    """Whether the truth lies in the 90 % interval of a regression's answer."""
    return _error(row.candidate, row.truth) <= NINETY * float(row.candidate.scale or 0.0)


def _disturbed(evidence: Evidence, rows: Sequence[Row]) -> PairedLoss | None:
    """The loss of agreement with the teacher between the undisturbed inputs (in the champion's place) and these."""
    if not rows:
        return None
    undisturbed = [agrees(row.champion, row.teacher) if row.champion else False for row in rows]
    return PairedLoss.of([agrees(r.candidate, r.teacher) for r in rows], undisturbed, [r.weight for r in rows])


def _worst(losses: Sequence[PairedLoss | ErrorRise | None]) -> float | None:
    """The largest loss; None where there is none, or one is not known: what was not looked at may be forgotten."""
    values = [x.value for x in losses if x is not None and math.isfinite(x.value)]
    return max(values) if values and len(values) == len(losses) else None


def _entropies(new: Sequence[Row]) -> dict[str, Measurement]:
    """Mean entropies of the teacher and the student, the mean of their difference, and of mutual information."""
    pairs = [
        (r.teacher.entropy, r.candidate.entropy)
        for r in new
        if r.teacher is not None and r.teacher.entropy is not None and r.candidate.entropy is not None
    ]
    shared = [r.mutual_information for r in new if r.mutual_information is not None]
    columns = {
        "teacher_entropy": [t for t, _ in pairs],
        "student_entropy": [s for _, s in pairs],
        "entropy_gap": [s - t for t, s in pairs],
        "mutual_information": shared,
    }
    found: dict[str, Measurement] = {}
    for name, values in columns.items():
        summary = summarise(values)
        found[name] = summary.mean if summary else None
    return found


def curve(rows: Sequence[Row]) -> tuple[Bin, ...]:
    """The reliability curve of the candidate on rows with truth."""
    return reliability(
        [float(r.candidate.confidence or 0.0) for r in rows],
        [right(r.candidate, r.truth) for r in rows],
        [r.weight for r in rows],
    )


def slices(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by true class, of classes with at least :data:`SLICE_SUPPORT` of them."""
    found: dict[str, list[Row]] = {}
    for row in known(rows):
        found.setdefault(str(row.truth), []).append(row)
    return {name: part for name, part in sorted(found.items()) if len(part) >= SLICE_SUPPORT}


def slice_accuracies(rows: Sequence[Row]) -> dict[str, float]:
    """Accuracy on every true class that has at least :data:`SLICE_SUPPORT` rows."""
    return {
        name: Share(
            hits=tuple(right(r.candidate, r.truth) for r in part), weights=tuple(r.weight for r in part)
        ).value
        for name, part in slices(rows).items()
    }  # fmt: skip


def pooled(holdouts: Sequence[tuple[str, Rows]], min_rows: int) -> list[tuple[str, Rows]]:
    """Holdouts of older windows, oldest first, neighbours put together until each group has ``min_rows`` truths.

    What is left over goes to the last group, so that no group is too small to say anything, unless all together are.
    A group is named by its first and its last window.
    """
    groups: list[tuple[list[str], Rows]] = []
    names: list[str] = []
    gathered = Rows(payloads=[], soft=[], truth=[])
    for name, rows in holdouts:
        names, gathered = [*names, name], gathered + rows
        if sum(t is not None for t in gathered.truth) >= min_rows:
            groups.append((names, gathered))
            names, gathered = [], Rows(payloads=[], soft=[], truth=[])
    if len(gathered):
        groups[-1:] = [(groups[-1][0] + names, groups[-1][1] + gathered)] if groups else [(names, gathered)]
    return [(n[0] if len(n) == 1 else f"{n[0]}-{n[-1]}", rows) for n, rows in groups]


def confusion(rows: Sequence[Row], *, by_teacher: bool = False) -> dict[str, Any]:
    """``labels`` in alphabetical order, and ``matrix`` of counts: rows are the truth, columns the student's answer.

    ``by_teacher``: the teacher's label takes the place of the truth.
    """
    pairs = [
        (row.teacher.label if row.teacher else None, row.candidate.label)
        if by_teacher
        else (row.truth, row.candidate.label)
        for row in (rows if by_teacher else known(rows))
    ]
    labels = sorted({str(x) for pair in pairs for x in pair})
    place = {name: i for i, name in enumerate(labels)}
    matrix = [[0] * len(labels) for _ in labels]
    for row, column in pairs:
        matrix[place[str(row)]][place[str(column)]] += 1
    return {"labels": labels, "matrix": matrix}


def bounded(measure: Measurement) -> Measured | None:
    """The measure if it has bounds."""
    return None if measure is None or isinstance(measure, float | int) else measure
