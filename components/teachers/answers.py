"""What counts as an answer: numbers from outside become soft labels here, or an error that names the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from components.contracts.errors import TeacherError
from components.contracts.records import MASS_TOLERANCE, SoftLabel, Task

Kind = Literal["probabilities", "logits"]
Matrix = npt.NDArray[np.float64]


def softmax(logits_BC: Matrix) -> Matrix:
    """Softmax over the last axis; large logits do not overflow."""
    weights_BC = np.exp(logits_BC - logits_BC.max(axis=-1, keepdims=True))
    return np.asarray(weights_BC / weights_BC.sum(axis=-1, keepdims=True))


def distributions(
    teacher: str,
    space: str,
    classes: tuple[str, ...],
    values: Any,
    asked: int,
    kind: Kind,
    task: Task = "classification",
) -> list[SoftLabel]:
    """Soft labels from ``asked`` rows with one number for each class, flat or nested.

    ``task``: of multilabel each number is a class's own, and logits become probabilities by the logistic function.

    Raises:
        TeacherError: a wrong number of rows or classes, something that is no finite number, or probabilities that are
            negative or do not sum to one, of multilabel ones that are not in [0, 1].

    """
    try:
        flat = np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise TeacherError(
            teacher, f"answered something that is no number ({error}); a server writes NaN as null: check the model"
        ) from error
    if flat.size != asked * len(classes):
        raise TeacherError(
            teacher,
            f"answered {flat.size} numbers, not {asked} rows of {len(classes)} classes: check the declared classes "
            "against the model's output",
        )
    rows_BC = flat.reshape(asked, len(classes))
    if bad := int((~np.isfinite(rows_BC).all(axis=1)).sum()):
        raise TeacherError(teacher, f"answered NaN or infinity for {bad} of {asked} inputs: check the model")
    if task == "multilabel":
        return _sets(teacher, space, classes, rows_BC, kind)
    if kind == "logits":
        rows_BC = softmax(rows_BC)
    _check_mass(teacher, rows_BC)
    return _soft(teacher, space, classes, rows_BC)


def _sets(teacher: str, space: str, classes: tuple[str, ...], rows_BC: Matrix, kind: Kind) -> list[SoftLabel]:
    if kind == "logits":
        rows_BC = np.exp(-np.logaddexp(0.0, -rows_BC))
    if rows_BC.size and not (rows_BC.min() >= 0.0 and rows_BC.max() <= 1.0 + MASS_TOLERANCE):
        raise TeacherError(
            teacher,
            f"answered probabilities from {rows_BC.min():.6g} to {rows_BC.max():.6g}, not in [0, 1]: if the output "
            "holds logits, declare output_kind: logits",
        )
    return [SoftLabel.multilabel(space, classes, row) for row in rows_BC.clip(0.0, 1.0).tolist()]


def _check_mass(teacher: str, rows_BC: Matrix) -> None:
    masses_B = rows_BC.sum(axis=1)
    worst = int(np.abs(masses_B - 1.0).argmax()) if len(masses_B) else 0
    if len(masses_B) and (abs(masses_B[worst] - 1.0) > MASS_TOLERANCE or rows_BC.min() < 0):
        raise TeacherError(
            teacher,
            f"answered probabilities that sum to {masses_B[worst]:.6g} with a least of {rows_BC.min():.6g}, not "
            "numbers >= 0 that sum to one: if the output holds logits, declare output_kind: logits",
        )


def _soft(teacher: str, space: str, classes: tuple[str, ...], rows_BC: Sequence[Any] | Matrix) -> list[SoftLabel]:
    try:
        return [SoftLabel.of(space, classes, [float(p) for p in row]) for row in rows_BC]
    except ValueError as error:
        raise TeacherError(teacher, f"answered something that is not a soft label: {error}") from error
