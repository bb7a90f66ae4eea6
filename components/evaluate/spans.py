"""Measures of students that tag: spans that are found, by exact boundaries and kind, of each kind and of all.

F1 = 2 both / (said + true), as CoNLL counts it (E. F. Tjong Kim Sang & F. De Meulder, 2003), is the share of mentions,
said and true ones, that are matched. Mentions of one text hang together, so that texts are what is drawn: F1 is a ratio
over texts (:mod:`drift.ratio`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from components.contracts.tagging import spans_in
from components.evaluate.evidence import Answer, Evidence, Row
from components.evaluate.share import known, sampled, says
from drift.gate import Measurement
from drift.ratio import Ratio, RatioLoss

Spans = frozenset[tuple[int, int, str]]

Said = Callable[[Row], str | None]
"""The text of spans that one side says of a row (:func:`components.contracts.records.spans_text`)."""


class Counts(NamedTuple):
    """Spans of one text: those that are said and true, all that are said, and all that are true."""

    both: int
    said: int
    true: int


def span_measures(evidence: Evidence, new: Sequence[Row]) -> dict[str, Measurement]:
    """``span_f1`` against truth, ``span_agreement`` (F1 against the teacher's spans), and ``span_f1_loss``.

    The last is the champion's ``span_f1`` less the candidate's on the same texts. Also ``teacher_span_f1``, and by kind
    ``span_f1[KIND]``. None of fewer texts with a span than the evaluation asks
    for, and where they are looked at repeatedly: the bounds are of one look.
    """
    true = sampled(evidence, known(new))
    taught = sampled(evidence, [row for row in new if says(row.teacher)])
    compared = [row for row in true if says(row.champion)]
    found: dict[str, Measurement] = {
        "span_f1": f1(evidence, true, candidate, truth),
        "teacher_span_f1": f1(evidence, true, teacher, truth),
        "span_agreement": f1(evidence, taught, candidate, teacher),
        "span_f1_loss": _loss(evidence, compared),
    }
    for kind in kinds(true):
        found[f"span_f1[{kind}]"] = f1(evidence, true, candidate, truth, kind)
    return found


def candidate(row: Row) -> str | None:
    """What the candidate says."""
    return _text(row.candidate)


def champion(row: Row) -> str | None:
    """What the champion says."""
    return _text(row.champion)


def teacher(row: Row) -> str | None:
    """What the teacher says."""
    return _text(row.teacher)


def truth(row: Row) -> str | None:
    """What is true."""
    return None if row.truth is None else str(row.truth)


def f1(evidence: Evidence, rows: Sequence[Row], said: Said, true: Said, kind: str | None = None) -> Ratio | None:
    """F1 of one side's spans against another's, of a ``kind`` or of all; None of too few rows with such a span.

    Rows are those on which both sides say something, which may be that there is none.
    """
    asked = [row for row in rows if said(row) is not None and true(row) is not None]
    found = _ratio(asked, said, true, kind)
    return found if _enough(evidence, found.n) else None


def _enough(evidence: Evidence, rows: int) -> bool:
    """Whether so many rows have a span, and are looked at once, as the bounds are made for."""
    return rows >= max(1, evidence.judgement.min_rows) and not evidence.judgement.repeated


def counted(rows: Sequence[Row], said: Said, true: Said, kind: str | None) -> list[Counts]:
    """The spans of each row."""
    found = ((_spans(said(row), kind), _spans(true(row), kind)) for row in rows)
    return [Counts(len(a & b), len(a), len(b)) for a, b in found]


def kinds(rows: Sequence[Row]) -> list[str]:
    """The kinds of spans that the truth or the candidate has."""
    return sorted({kind for row in rows for said in (truth, candidate) for _, _, kind in _spans(said(row))})


def _loss(evidence: Evidence, rows: Sequence[Row]) -> RatioLoss | None:
    mine, theirs = (_ratio(rows, said, truth, None) for said in (candidate, champion))
    found = RatioLoss(candidate=mine, champion=theirs)
    return found if _enough(evidence, found.n) else None


def _ratio(rows: Sequence[Row], said: Said, true: Said, kind: str | None) -> Ratio:
    counts = counted(rows, said, true, kind)
    return Ratio(
        tops=tuple((2.0 * c.both,) for c in counts),
        bottoms=tuple((float(c.said + c.true),) for c in counts),
        weights=tuple(row.weight for row in rows),
    )


def _spans(text: str | None, kind: str | None = None) -> Spans:
    return frozenset(
        (span.start, span.end, span.label)
        for span in (spans_in(text) if text is not None else ())
        if kind in (None, span.label)
    )


def _text(answer: Answer | None) -> str | None:
    return None if answer is None else answer.label
