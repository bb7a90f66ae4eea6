"""What a student of vectors is judged by: how near its vectors are to the teacher's, and whether they find the same.

Of the newest window's holdout, with s(i, j) the cosine of the vectors of inputs i and j, and the *others* of a row a
number of the holdout's that the evaluation names, drawn by a fixed seed:

``cosine``
    the mean cosine of a row's vector to the teacher's: whether the two can stand beside each other in one index.
``recall``
    recall at k: the share of a row's k nearest others by the teacher that are among its k nearest by the student,
    whose vectors are compared with each other; what a search over an index of the student's own would find.
``rank_correlation``
    Spearman's: of the order of all others by the teacher's s(i, .) and by the student's.

A row is a query, and its others are what is searched: always as many, since the more there are, the fewer of the
nearest are found. Measures are means over queries, which are the units of their bounds, while the holdout that is
searched is taken as it is; as that changes while rows arrive, nothing is searched where it is looked at repeatedly.
Against the champion: ``cosine_loss`` and ``recall_loss``, the mean of the champion's less the candidate's on the same
rows. ``forgetting`` is the first on older regimes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.contracts.records import vector_of
from components.contracts.spec.limits import LEAST_SEARCHED
from components.contracts.vectors import text_distance
from components.evaluate.evidence import Answer, Evidence, Row
from components.evaluate.share import sampled
from drift.gate import Measurement
from drift.mean import Mean

Floats = npt.NDArray[np.float64]

MOST_SEARCHED = 2_000
"""Rows that are queries, and are searched, at most, evenly spread over the holdout."""

SEED = 0
"""Of the draw of each query's others: the same evidence is measured alike."""


def ranked(evidence: Evidence, new: Sequence[Row]) -> dict[str, Measurement]:
    """The measures of the newest window's holdout; None of fewer rows than they need."""
    return {
        "cosine": _mean(evidence, _asked(new), _cosine),
        "cosine_loss": loss(evidence, new),
        **_searched(evidence, _asked(new)),
    }


def loss(evidence: Evidence, rows: Sequence[Row]) -> Mean | None:
    """How much nearer the champion's vectors are to the teacher's than the candidate's on the same rows."""
    used = [row for row in _asked(rows) if row.champion is not None]
    return _mean(evidence, used, lambda row: _between(row.champion, row.teacher) - _cosine(row), paired=True)


def _asked(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.teacher is not None and row.teacher.label is not None]


def _mean(
    evidence: Evidence, rows: Sequence[Row], value: Callable[[Row], float], *, paired: bool = False
) -> Mean | None:
    used = sampled(evidence, rows)
    if len(used) < evidence.judgement.min_rows or not used:
        return None
    ends = (-2.0, 2.0) if paired else (-1.0, 1.0)
    return _bounded(evidence, [value(row) for row in used], used, ends, paired=paired)


def _bounded(
    evidence: Evidence, values: Sequence[float], rows: Sequence[Row], ends: tuple[float, float], *, paired: bool = False
) -> Mean:
    """The mean of values between two ``ends``."""
    return Mean(
        values=tuple(values),
        weights=tuple(row.weight for row in rows),
        least=ends[0],
        most=ends[1],
        anytime=evidence.judgement.repeated,
        paired=paired,
    )


def _cosine(row: Row) -> float:
    return _between(row.candidate, row.teacher)


def _between(answer: Answer | None, teacher: Answer | None) -> float:
    """The cosine of two answers' vectors; -1, the farthest there is, of one that is not there or of another space."""
    if answer is None or answer.label is None or teacher is None or teacher.label is None:
        return -1.0
    return 1.0 - text_distance(answer.label, teacher.label)


@dataclass(frozen=True, kw_only=True)
class Search:
    """What each query of a set of vectors finds, as another set does: (N,) both."""

    recall: Floats
    correlation: Floats


def search(vectors: Floats, teacher: Floats, k: int, searched: int) -> Search:
    """Ask for the nearest among ``searched`` others of each of N vectors, in both sets, (N, D) and (N, E).

    Equal ones come in their order.

    Raises:
        ValueError: there are not so many others, or not ``k`` among them.

    """
    count = len(vectors)
    if not k <= searched < count:
        raise ValueError(f"{count - 1} others: {searched} of them cannot be searched for {k}")
    chance = np.random.default_rng(SEED)
    recall, correlation = np.zeros(count), np.zeros(count)
    for i in range(count):
        others = np.sort(chance.choice(count - 1, searched, replace=False))
        others += others >= i
        own, wanted = (np.round(side[others] @ side[i], 9) for side in (vectors, teacher))
        found = np.argsort(-own, kind="stable")[:k]
        best = np.argsort(-wanted, kind="stable")[:k]
        recall[i] = len(np.intersect1d(found, best)) / k
        correlation[i] = _spearman(own, wanted)
    return Search(recall=recall, correlation=correlation)


def _spearman(a: Floats, b: Floats) -> float:
    """The correlation of ranks, the mean rank for equal numbers; 0 where one side tells no order."""
    from scipy.stats import rankdata

    x, y = (ranks - ranks.mean() for ranks in (rankdata(a), rankdata(b)))
    length = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / length if length else 0.0


def _searched(evidence: Evidence, rows: Sequence[Row]) -> dict[str, Measurement]:
    """Recall at k and the rank correlation, and the loss of the former against the champion."""
    judgement, used = evidence.judgement, sampled(evidence, rows)
    names, k, searched = ("recall", "rank_correlation", "recall_loss"), judgement.neighbours, judgement.searched
    if judgement.repeated or len(used) < judgement.min_rows or not LEAST_SEARCHED * k <= searched < len(used):
        return dict.fromkeys(names)
    if len(used) > MOST_SEARCHED:
        used = [used[i] for i in np.linspace(0, len(used) - 1, MOST_SEARCHED).round().astype(int)]
    teacher = _stacked([row.teacher for row in used])
    mine = _stacked([row.candidate for row in used])
    if teacher is None or mine is None:
        return dict.fromkeys(names)
    found = search(mine, teacher, k, searched)
    made: dict[str, Measurement] = {
        "recall": _bounded(evidence, found.recall.tolist(), used, (0.0, 1.0)),
        "rank_correlation": _bounded(evidence, found.correlation.tolist(), used, (-1.0, 1.0)),
        "recall_loss": None,
    }
    if (theirs := _stacked([row.champion for row in used])) is not None:
        lost = search(theirs, teacher, k, searched).recall - found.recall
        made["recall_loss"] = _bounded(evidence, lost.tolist(), used, (-1.0, 1.0), paired=True)
    return made


def _stacked(answers: Sequence[Answer | None]) -> Floats | None:
    """The vectors of answers, (N, D); None where one is not there, or of another dimension."""
    found = [vector_of(a.label) for a in answers if a is not None and a.label is not None]
    if len(found) < len(answers) or len({len(v) for v in found}) != 1:
        return None
    stack: Floats = np.array(found, dtype=np.float64)
    stack /= np.maximum(np.linalg.norm(stack, axis=1, keepdims=True), 1e-12)
    return stack
