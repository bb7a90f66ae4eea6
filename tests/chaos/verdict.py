"""Whether every input has exactly one label or one dead letter: a pure function of what stands in the topics."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Produced(NamedTuple):
    """One input that the broker has: where it stands, and what it must become.

    ``answer`` is what a label must say (``teacher: distribution``); None: it is poison and must become a dead letter.
    """

    id: str
    topic: str
    partition: int
    offset: int
    answer: str | None


class Labelled(NamedTuple):
    """One label: the input's id, and what it says, in the form of :attr:`Produced.answer`."""

    id: str
    answer: str


class Letter(NamedTuple):
    """One dead letter: the position of the input."""

    topic: str
    partition: int
    offset: int


class Verdict(NamedTuple):
    """Ids of inputs, by what is wrong with them; all empty when every input has exactly what it must have.

    ``lost``: neither label nor dead letter. ``duplicated``: more than one of them together. ``misfiled``: poison with
    a label, or a good input with a dead letter. ``wrong``: a label that the teacher did not give.
    ``unknown``: labels and dead letters of what nobody produced.
    """

    lost: tuple[str, ...] = ()
    duplicated: tuple[str, ...] = ()
    misfiled: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return not any(self)


def check(produced: Iterable[Produced], labels: Iterable[Labelled], letters: Iterable[Letter]) -> Verdict:
    """Compare what was produced with what the labelers made of it.

    An input that was delivered twice under one id is one input: it must have one label all the same.
    """
    inputs = list(produced)
    labels = list(labels)
    by_place = {Letter(p.topic, p.partition, p.offset): p.id for p in inputs}
    answers: Mapping[str, str | None] = {p.id: p.answer for p in inputs}
    labelled = Counter(label.id for label in labels)
    lettered = Counter(by_place.get(x, f"{x.topic}-{x.partition}@{x.offset}") for x in letters)
    total = labelled + lettered
    return Verdict(
        lost=tuple(sorted(id_ for id_ in answers if not total[id_])),
        duplicated=tuple(sorted(id_ for id_, times in total.items() if times > 1)),
        misfiled=tuple(sorted(id_ for id_, a in answers.items() if (lettered if a is not None else labelled)[id_])),
        wrong=tuple(sorted({x.id for x in labels if answers.get(x.id) not in (None, x.answer)})),
        unknown=tuple(sorted(total.keys() - answers.keys())),
    )
