"""Tags, spans and tokens: what texts of answers say again, and how tags go over to a text's other tokens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

import msgspec

from components.contracts.errors import RecordError
from components.contracts.records import OUTSIDE, SoftLabel, Span, Token, marked, spans_text

Place = tuple[int, int]
"""The characters of a token: Unicode code points from the first to the second, which is excluded."""

Distribution = Mapping[str, float]
Piece = TypeVar("Piece", Token, Span)

NONE: Distribution = {OUTSIDE: 1.0}
"""Of text that no token covers."""


def tagging(space: str, tags: Sequence[str], places: Sequence[Place], shares: Sequence[Sequence[float]]) -> SoftLabel:
    """A soft label of tokens at ``places`` from the probabilities of each in the order of ``tags``.

    Those below :data:`components.contracts.records.PROBABILITY_FLOOR` are left out, and what is left adds up to one.

    Raises:
        ValueError: probabilities do not sum to one, or there are more or fewer of them than tags or tokens.

    """
    tokens = [
        Token(start=start, end=end, distribution=SoftLabel.of(space, tuple(tags), list(row)).distribution)
        for (start, end), row in zip(places, shares, strict=True)
    ]
    return SoftLabel(task="tagging", space=space, tokens=tuple(tokens))


def names_of(soft: SoftLabel) -> set[str]:
    """The classes, or the tags, that a soft label gives a probability."""
    return {*soft.distribution, *(tag for token in soft.tokens for tag in token.distribution)}


def tags_of(soft: SoftLabel) -> set[str]:
    """The tags that are the most probable ones of a token."""
    return {token.tag for token in soft.tokens}


def kind_of(tag: str) -> str:
    """The kind of span that a tag is of: what stands behind its mark, if it has one."""
    return marked(tag)[1]


def span_counts(soft: SoftLabel, tags: Sequence[str]) -> dict[str, float | str]:
    """How many spans an answer has of each kind that there are ``tags`` of: what the drift of answers is watched on."""
    found = Counter(span.label for span in soft.spans)
    return {f"answer_spans[{kind}]": float(found[kind]) for kind in sorted({kind_of(t) for t in tags} - {OUTSIDE})}


def spans_in(text: str) -> tuple[Span, ...]:
    """The spans of what :func:`components.contracts.records.spans_text` made.

    Raises:
        RecordError: it is no such text.

    """
    try:
        return tuple(Span(start=start, end=end, label=label) for start, end, label in json.loads(text))
    except (ValueError, TypeError) as error:
        raise RecordError("not_spans", f"{text!r:.200} is no JSON array of [start, end, label]: {error}") from error


def spans_from(given: object) -> tuple[Span, ...]:
    """Spans as they are written by hand: ``{start, end, label}`` each, or ``[start, end, label]``.

    Raises:
        RecordError: they are no such spans, or two of them overlap.

    """
    try:
        rows = [
            msgspec.convert(dict(zip(("start", "end", "label"), s, strict=True)) if isinstance(s, list) else s, Span)
            for s in msgspec.convert(given, list)
        ]
    except (msgspec.ValidationError, ValueError) as error:
        remedy = "write [{start: 0, end: 4, label: PER}], in characters of the text, or [] where there is none"
        raise RecordError("not_spans", f"{given!r:.200} are no spans: {error}; {remedy}") from error
    rows.sort()
    for before, after in pairwise(rows):
        if before.end > after.start:
            raise RecordError("not_spans", f"the spans {spans_text([before, after])} overlap")
    return tuple(rows)


def aligned(soft: SoftLabel, places: Sequence[Place]) -> list[Distribution]:
    """The distributions of a text's tokens, over to other tokens of it, at ``places`` in the order of the text.

    A token takes the distribution of the first one that it shares a character with, as of a word's pieces the first
    one counts (J. Devlin et al., NAACL 2019, arXiv 1810.04805, section 5.3); where it shares none, it is in no span.
    Of several that take it of the same one, the first alone begins a span: in the others what ``B-X`` has is added to
    ``I-X``.
    """
    found: list[Distribution] = []
    for token, first in _covering(soft.tokens, places):
        if token is None:
            found.append(NONE)
        else:
            found.append(token.distribution if first else _inside(token.distribution))
    return found


def _covering(pieces: Sequence[Piece], places: Sequence[Place]) -> Iterator[tuple[Piece | None, bool]]:
    """Of each place the first piece that it shares a character with, and whether no place before it has the same."""
    at, last = 0, -1
    for start, end in places:
        while at < len(pieces) and pieces[at].end <= start:
            at += 1
        if at == len(pieces) or pieces[at].start >= end:
            yield None, True
        else:
            yield pieces[at], at != last
            last = at


def _inside(distribution: Distribution) -> Distribution:
    out: dict[str, float] = {}
    for tag, share in distribution.items():
        within = f"I-{tag[2:]}" if tag.startswith("B-") and len(tag) > 2 else tag
        out[within] = out.get(within, 0.0) + share
    return out


def tagged(spans: Sequence[Span], places: Sequence[Place], tags: Collection[str]) -> list[str | None]:
    """The tag of each token, in the way of marking that ``tags`` have: None where they have none that says it.

    A token is of the span that it shares a character with, of two the first one's. The first of a span has ``B-X``,
    else plain ``X``, else ``I-X``, whichever of them is a tag; the others ``I-X``, else ``X``.
    """
    found: list[str | None] = []
    for span, first in _covering(spans, places):
        if span is None:
            found.append(OUTSIDE)
            continue
        kind = span.label
        written = (f"B-{kind}", kind, f"I-{kind}") if first else (f"I-{kind}", kind)
        found.append(next((tag for tag in written if tag in tags), None))
    return found
