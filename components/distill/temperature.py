"""Calibration of an export: one number, fitted on answers to rows that neither the gate sees nor training has seen.

Classification divides the logits by a temperature (C. Guo, G. Pleiss, Y. Sun & K. Weinberger, "On calibration of modern
neural networks", ICML 2017): labels stay as they are; so does tagging, by token. So do the sets of multilabel, whose
logits are divided by one temperature for all classes. Regression multiplies its scale (D. Levi et al., "Evaluating and
calibrating uncertainty prediction in regression tasks", Sensors 22, 2022): values stay. Embedding does the same by the
likelihood of exponential distances: the factor is the mean of the distances in expected ones, and vectors stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from components.contracts.records import SoftLabel, set_of
from components.contracts.vectors import apart
from components.distill.data import TrainingSet
from components.distill.tagging import token_rows

LEAST_ROWS = 30
"""Rows below which nothing is fitted: the error of the temperature would be larger than what it mends."""

LOWEST, HIGHEST = 0.2, 5.0
"""Temperatures beyond these say that the rows are no sample of what the student will see."""

STEPS = 60
"""Steps of the search by golden sections: far below a float's precision of the logarithm."""

FLOOR = 1e-12
"""Stands for a probability of zero."""


def fit(
    answers: Sequence[SoftLabel],
    teacher: Sequence[SoftLabel],
    truth: Sequence[str | float | None],
    classes: Collection[str] = (),
) -> float:
    """The temperature with the least negative log likelihood of the truth; 1 of too few rows.

    Rows with truth are taken where there are enough of them, else the teacher's distributions (values) stand in for it.
    Of n truths each counts as one less 1 / (n + 2) (J. Platt, "Probabilistic outputs for support vector machines",
    1999): that a few rows are all right does not say that all are.

    ``classes``: those of the student, of classification and multilabel. What is said of others is left out, since no
    temperature makes the student say them; nor is a truth among them known.

    Raises:
        ValueError: lengths differ.

    """
    rows: list[tuple[SoftLabel, SoftLabel, Any]] = list(zip(answers, teacher, truth, strict=True))
    if rows and rows[0][0].task == "classification":
        rows = [(a, s, t if t is not None and str(t) in classes else None) for a, s, t in rows]
    known = [row for row in rows if row[2] is not None]
    used = known if len(known) >= LEAST_ROWS else rows
    if len(used) < LEAST_ROWS:
        return 1.0
    if used[0][0].task == "regression":
        errors = [_error(a, s.value if t is None else t) for a, s, t in used]
        return min(HIGHEST, max(LOWEST, math.sqrt(math.fsum(e * e for e in errors) / len(errors))))
    if used[0][0].task == "multilabel":
        return _golden(_of_sets(used, classes))
    if used[0][0].task == "embedding":
        return min(HIGHEST, max(LOWEST, math.fsum(apart(a, s) for a, s, _ in used) / len(used)))
    told = [s.distribution if t is None else {str(t): 1.0} for _, s, t in used]
    names = _names([a.distribution for a, _, _ in used] + told, classes)
    logits = np.log(_table([a.distribution for a, _, _ in used], names).clip(FLOOR))
    wanted = _table(told, names)
    wanted /= wanted.sum(axis=1, keepdims=True).clip(FLOOR)
    true = np.array([t is not None for _, _, t in used])
    doubt = 1.0 / (true.sum() + 2.0)
    wanted[true] = wanted[true] * (1.0 - doubt) + doubt / len(names)
    return _golden(partial(_likelihood, logits, wanted))


def _names(said: Sequence[Mapping[str, float]], classes: Collection[str]) -> list[str]:
    """The classes of a student that something is said of."""
    return sorted({name for distribution in said for name in distribution} & set(classes))


def _of_sets(used: Sequence[tuple[SoftLabel, SoftLabel, Any]], classes: Collection[str]) -> Callable[[float], float]:
    """The mean negative log likelihood of sets, summed over the classes, as a function of the temperature."""
    told = [dict.fromkeys(set_of(t), 1.0) if t is not None else s.distribution for _, s, t in used]
    names = _names([a.distribution for a, _, _ in used] + told, classes)
    chances = _table([a.distribution for a, _, _ in used], names).clip(FLOOR, 1.0 - FLOOR)
    logits, wanted = np.log(chances) - np.log1p(-chances), _table(told, names)
    true = np.array([t is not None for _, _, t in used])
    doubt = 1.0 / (true.sum() + 2.0)
    wanted[true] = wanted[true] * (1.0 - 2.0 * doubt) + doubt

    def likelihood(temperature: float) -> float:
        z = logits / temperature
        return float((np.logaddexp(0.0, z) - wanted * z).sum(axis=1).mean())

    return likelihood


def fit_tokens(logits: npt.NDArray[Any], data: TrainingSet) -> float:
    """The temperature of a student that tags, fitted by token; 1 of too few texts.

    ``logits``: (N, L, C) of the texts of ``data``, (:func:`components.distill.tagging.token_rows`).
    """
    if data.soft is None or data.truth is None:
        return 1.0
    found = token_rows(logits, data.soft, data.truth, LEAST_ROWS)
    return 1.0 if found is None else _golden(partial(_likelihood, *found))


def _error(answer: SoftLabel, target: str | float | None) -> float:
    """How many of its scales an answer is off."""
    return (float(answer.value or 0.0) - float(target or 0.0)) / float(answer.scale or 1.0)


Floats = npt.NDArray[np.float64]


def _table(distributions: Sequence[dict[str, float]], names: Sequence[str]) -> Floats:
    return np.array([[d.get(n, 0.0) for n in names] for d in distributions])


def _likelihood(logits: Floats, wanted: Floats, temperature: float) -> float:
    """Mean negative log likelihood at a temperature."""
    z = logits / temperature
    top = z.max(axis=1, keepdims=True)
    log_p = z - top - np.log(np.exp(z - top).sum(axis=1, keepdims=True))
    return float(-(wanted * log_p).sum(axis=1).mean())


def _golden(likelihood: Callable[[float], float]) -> float:
    """The best temperature: the likelihood has one maximum in the logarithm of it."""
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    low, high = math.log(LOWEST), math.log(HIGHEST)
    for _ in range(STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if likelihood(math.exp(left)) < likelihood(math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2.0)
