"""The measures of multilabel: how well sets of classes are answered, class by class.

``micro_f1`` is the F1 of all classes of all rows together, ``macro_f1`` the mean of the classes' own; classes that
neither answer nor truth has anywhere count for neither. ``hamming_agreement`` is the share of classes about which
student and teacher say the same, of those that any answer or truth of the rows has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from components.contracts.records import set_of
from components.evaluate.evidence import Answer, Evidence, Row
from components.evaluate.share import known, says
from drift.gate import Measurement
from drift.measured import Share
from drift.ratio import Ratio, RatioLoss

Sets = Sequence[frozenset[str]]


class PerClass(NamedTuple):
    """Of one class: how many rows have it by the truth, and what of the student's answers, and of the class, is right.

    ``precision`` and ``recall`` are None where there is nothing that they could be shares of.
    """

    name: str
    rows: int
    precision: Share | None
    recall: Share | None
    f1: float


@lru_cache(maxsize=65_536)
def _set(text: str) -> frozenset[str]:
    return set_of(text)


def answered(answer: Answer | None) -> frozenset[str]:
    """The classes that an answer has; none of no answer."""
    return _set(answer.label) if answer is not None and answer.label is not None else frozenset()


def of_sets(evidence: Evidence, new: Sequence[Row]) -> dict[str, Measurement]:
    """``micro_f1``, ``macro_f1``, ``micro_f1_loss`` and ``hamming_agreement``; None of fewer rows than are needed.

    None, too, where they are looked at repeatedly: their bounds are of one look. Of F1 those rows count in which answer
    or truth has a class. ``micro_f1_loss``: the champion's micro-averaged F1 less the candidate's on the same rows with
    truth.
    """
    least, rows = max(1, evidence.judgement.min_rows), known(new)
    compared = [row for row in rows if row.champion is not None]
    taught = [row for row in new if says(row.teacher)]
    found: dict[str, Measurement] = dict.fromkeys(("micro_f1", "macro_f1", "micro_f1_loss", "hamming_agreement"))
    if evidence.judgement.repeated:
        return found
    micro = _f1(rows, "candidate", micro=True)
    if micro.n >= least:
        found |= {"micro_f1": micro, "macro_f1": _f1(rows, "candidate", micro=False)}
    candidate, champion = (_f1(compared, who, micro=True) for who in ("candidate", "champion"))
    lost = RatioLoss(candidate=candidate, champion=champion)
    if lost.n >= least:
        found["micro_f1_loss"] = lost
    if len(taught) >= least:
        found["hamming_agreement"] = _hamming(taught)
    return found


def _f1(rows: Sequence[Row], who: str, *, micro: bool) -> Ratio:
    """F1 against the truth: twice what answer and truth share, over what both have."""
    said, true = [answered(getattr(row, who)) for row in rows], _truths(rows)
    every = frozenset[str]().union(*said, *true)
    groups = [every] if micro else [frozenset({name}) for name in sorted(every)]
    pairs = list(zip(said, true, strict=True))
    return Ratio(
        tops=tuple(tuple(2.0 * len(a & b & group) for group in groups) for a, b in pairs),
        bottoms=tuple(tuple(float(len(a & group) + len(b & group)) for group in groups) for a, b in pairs),
        weights=tuple(row.weight for row in rows),
    )


def _hamming(rows: Sequence[Row]) -> Ratio:
    said, taught = [answered(row.candidate) for row in rows], [answered(row.teacher) for row in rows]
    size = float(len(frozenset().union(*said, *taught, *_truths(known(rows)))))
    return Ratio(
        tops=tuple((size - len(a ^ b),) for a, b in zip(said, taught, strict=True)),
        bottoms=((size,),) * len(rows),
        weights=tuple(row.weight for row in rows),
    )


def _truths(rows: Sequence[Row]) -> Sets:
    return [_set(str(row.truth)) for row in rows]


def by_class(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    """The rows whose truth has each class."""
    found: dict[str, list[Row]] = {}
    for row, true in zip(rows, _truths(rows), strict=True):
        for name in true:
            found.setdefault(name, []).append(row)
    return found


def per_class(rows: Sequence[Row]) -> list[PerClass]:
    """Precision, recall and F1 of every class that an answer or a truth of the rows has, by name."""
    used = known(rows)
    told = [(answered(row.candidate), true, row.weight) for row, true in zip(used, _truths(used), strict=True)]
    found = []
    for name in sorted(frozenset().union(*(a | b for a, b, _ in told))):
        claimed = [(name in true, w) for said, true, w in told if name in said]
        there = [(name in said, w) for said, true, w in told if name in true]
        right = sum(w for hit, w in claimed if hit)
        size = sum(w for _, w in (*claimed, *there))
        found.append(
            PerClass(name, len(there), _share(claimed), _share(there), 2.0 * right / size if size else 0.0)
        )  # fmt: skip
    return found


def _share(hits: Sequence[tuple[bool, float]]) -> Share | None:
    return Share(hits=tuple(h for h, _ in hits), weights=tuple(w for _, w in hits)) if hits else None
