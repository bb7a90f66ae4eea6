"""Rows of evidence on inputs that are disturbed: by seeded noise, and by a search for what changes the answer."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from components.contracts import vectors
from components.contracts.errors import RecordError
from components.contracts.records import SoftLabel, set_of
from components.contracts.spec import Disturbance
from components.distill.data import Rows
from components.evaluate.disturb import Disturb, disturbances, disturbed
from components.evaluate.evidence import Answer, Row
from components.evaluate.measure import ATTACK, NOISE
from components.evaluate.share import agrees
from components.student.runtime import Student


def noise_rows(student: Student, rows: Rows, payloads: Sequence[Any], disturbance: Disturbance, seed: int) -> list[Row]:
    """Answers to inputs under every disturbance of their kind, in the candidate's place; the clean ones beside them.

    ``payloads``: the rows' decoded payloads. The teacher is not asked again: what it said of the clean input is held
    to be right of the disturbed one. An input that cannot be disturbed, or is undecodable then, is left out.
    """
    payloads = payloads[: disturbance.rows]
    if not payloads:
        return []
    clean = student.predict_decoded(payloads)
    found = []
    for name, disturb in disturbances(payloads).items():
        for i, payload in enumerate(payloads):
            try:
                changed = disturbed(payload, disturb, f"{seed} {name} {i}", disturbance.strength)
            except RecordError:
                continue
            answer, refused = _ask(student, changed)
            if not refused:
                found.append(_row(f"{NOISE}{name}", rows, i, answer, clean[i]))
    return found


def attack_rows(
    student: Student, rows: Rows, payloads: Sequence[Any], disturbance: Disturbance, seed: int
) -> list[Row]:
    """Answers to the worst inputs that a greedy random search finds within ``disturbance.queries`` answers on each.

    Every step disturbs the best input so far, by half the strength, and keeps it if the student is less sure of the
    teacher's answer (of a value or a vector: further from it); it stops where the two disagree.
    """
    payloads = payloads[: disturbance.rows]
    if not payloads:
        return []
    clean = student.predict_decoded(payloads)
    kinds = list(disturbances(payloads).values())
    found = []
    for i, payload in enumerate(payloads):
        chance = random.Random(f"{seed} attack {i}")  # noqa: S311
        worst = _search(student, payload, rows.soft[i], clean[i], kinds, disturbance, chance)
        found.append(_row(ATTACK, rows, i, worst, clean[i]))
    return found


def _search(
    student: Student,
    payload: Any,
    teacher: SoftLabel,
    clean: SoftLabel,
    kinds: Sequence[Disturb],
    disturbance: Disturbance,
    chance: random.Random,
) -> SoftLabel:
    best, said, wanted = payload, clean, Answer.of(teacher)
    for _ in range(disturbance.queries):
        if not agrees(Answer.of(said), wanted):
            break
        try:
            tried = chance.choice(kinds)(best, chance, disturbance.strength / 2.0)
        except RecordError:
            continue
        answer, refused = _ask(student, tried)
        if not refused and answer is not None and _distance(answer, teacher) > _distance(said, teacher):
            best, said = tried, answer
    return said


def _distance(answer: SoftLabel, teacher: SoftLabel) -> float:
    if teacher.value is not None and answer.value is not None:
        return abs(answer.value - teacher.value)
    if teacher.vector:
        return vectors.distance(answer.vector, teacher.vector)
    if teacher.task == "multilabel":
        has, said = set_of(teacher.label), answer.distribution
        return -math.prod(said.get(c, 0.0) if c in has else 1.0 - said.get(c, 0.0) for c in has | said.keys())
    return -answer.distribution.get(teacher.label, 0.0)


def _ask(student: Student, payload: Any) -> tuple[SoftLabel | None, bool]:
    """The student's answer, or none where it breaks on the input; whether the input was refused as unusable."""
    try:
        return student.predict_decoded([payload])[0], False
    except RecordError:
        return None, True
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):  # a featuriser of the user's own
        return None, False


def _row(name: str, rows: Rows, i: int, answer: SoftLabel | None, clean: SoftLabel) -> Row:
    said = Answer() if answer is None else Answer.of(answer)
    return Row(
        set=name,
        weight=rows.weights[i],
        teacher=Answer.of(rows.soft[i]),
        candidate=said,
        champion=Answer.of(clean),
    )
