"""Truths joined with the answers of a rollout, by the input's id: whichever of the two comes first waits. Pure.

A truth may come long after its answer, from another step or none at all, so that answers wait for it in memory and not
in the rollout's state. After a restart they are read from the stream again (:attr:`Held.since` is where to begin), and
so are the truths; what was read of both before the restart was counted then. The memory of either is bounded, and what
it gives up is evidence of nothing.

**One truth counts for an input.** What counted cannot be taken back from the evidence, so that a truth that comes
again changes nothing, nor does one that contradicts it: both are counted in :class:`TruthCounts`. Of truths that are
there before their answer the one that was known last counts, as in a snapshot. An input that is asked again has its
first answer compared: the second comes from the same student.

What is assumed: which truths come, and when, does not depend on which student answered. It may depend on the input, and
a late truth counts with the weight that its answer was given at.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from components.contracts.records import Truth
from serving.rollout.evidence import SCALES, Audited, Pending, Told

ANSWERS = 100_000
"""Answers that wait for their truth: about 50 MB. At 100 requests a second truth may take a quarter of an hour."""

TRUTHS = 100_000
"""Truths that are kept for answers that come after them, and to tell which come again: about 20 MB."""

CHUNKS = 100
"""Parts of the memory of answers that are given up together, the oldest first."""


class TruthCounts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of the truths that came while a rollout was under way.

    ``counted`` inputs were compared; ``repeated`` truths said the same again, ``contradicting`` ones said otherwise
    than what had counted; ``late`` ones came, by their event time, after their answer was given up; ``refused`` ones
    no window takes either; ``unjudged`` ones (regression) came when the teacher's scale of the input was not known.
    """

    counted: int = 0
    repeated: int = 0
    contradicting: int = 0
    late: int = 0
    refused: int = 0
    unjudged: int = 0

    def plus(self, name: str) -> TruthCounts:
        """One more of a kind."""
        more: TruthCounts = msgspec.structs.replace(self, **{name: getattr(self, name) + 1})
        return more


class Known(NamedTuple):
    """What is true of an input. ``before``: it was read before the restart."""

    what: str | float
    known_at: float
    before: bool


class Answer(NamedTuple):
    """An answer, or both students', to an input; ``time`` as in its prediction; ``before`` as for the truth."""

    input: str
    time: float
    given: Pending
    before: bool = False


class Match(NamedTuple):
    """An answer and its truth."""

    given: Pending
    truth: str | float


def counts(given: Pending) -> bool:
    """Whether an answer can be compared at all: both students', or one's where the chance of its arm is known."""
    return bool(given.weight) or (given.champion is not None and given.candidate is not None)


def judge(match: Match, told: Told | None) -> Audited | None:
    """What the truth says of the answers; None where it cannot be said.

    A regression answer is wrong as it would disagree with the teacher: further away than :data:`~.evidence.SCALES`
    of the standard deviations that the teacher, ``told``, gives this input.
    """
    scale = told.scale if told is not None else None
    if scale is None and not isinstance(match.truth, str):
        return None

    def wrong(label: str | None) -> bool | None:
        if label is None:
            return None
        if isinstance(match.truth, str):
            return label != match.truth
        return abs(float(label) - match.truth) > SCALES * (scale or 0.0)

    given = match.given
    return Audited(
        id=given.id, champion=wrong(given.champion), candidate=wrong(given.candidate), weight=given.weight, by="truth"
    )


class _Chunk:
    """Answers that were read after each other, from the positions ``since``."""

    def __init__(self, since: dict[str, int]) -> None:
        self.since, self.inputs, self.newest = since, list[str](), 0.0


class Held:
    """The answers of one rollout that wait for their truth, and the truths, at most so many of each.

    ``began``: when the rollout was created, ``given_up_until``: the newest answer that was given up (both Unix
    seconds); ``counted``: what became of the truths until now.
    """

    def __init__(self, answers: int = ANSWERS, truths: int = TRUTHS) -> None:
        self.began, self.given_up_until, self.counted = 0.0, 0.0, TruthCounts()
        self._most, self._most_truths = answers, truths
        self._truths: OrderedDict[str, Known] = OrderedDict()
        self._answers: dict[str, Answer | str | float] = {}  # what was true instead, once that has counted
        self._chunks: deque[_Chunk] = deque()

    def __len__(self) -> int:
        return len(self._answers)

    def anew(self, began: float, counted: TruthCounts, given_up_until: float) -> None:
        """Hold the answers of a rollout that begins or goes on; the truths are kept."""
        self.began, self.counted, self.given_up_until = began, counted, given_up_until
        self._answers.clear()
        self._chunks.clear()

    def since(self) -> dict[str, int] | None:
        """The positions from which the predictions hold all these answers; None: there are none."""
        return self._chunks[0].since if self._chunks else None

    def hold(self, since: dict[str, int], answers: Sequence[Answer]) -> list[Match]:
        """Hold answers that were read from the positions ``since`` on; returns those whose truth is known."""
        found: list[Match] = []
        for answer in answers:
            if answer.input not in self._answers:
                self._append(since, answer)
                known = self._truths.get(answer.input)
                if known is not None:
                    found += self._settle(answer, known)
        while len(self._answers) > self._most and len(self._chunks) > 1:
            gone = self._chunks.popleft()
            self.given_up_until = max(self.given_up_until, gone.newest)
            for name in gone.inputs:
                del self._answers[name]
        return found

    def _append(self, since: dict[str, int], answer: Answer) -> None:
        if not self._chunks or len(self._chunks[-1].inputs) >= max(1, self._most // CHUNKS):
            self._chunks.append(_Chunk(since))
        chunk = self._chunks[-1]
        chunk.inputs.append(answer.input)
        chunk.newest = max(chunk.newest, answer.time)
        self._answers[answer.input] = answer

    def learn(self, truth: Truth, before: bool) -> list[Match]:
        """Take in a truth; returns the answer that it belongs to, if it is the first for that."""
        name, former = truth.input_id, self._truths.get(truth.input_id)
        known = Known(truth.said, truth.known_at, before)
        if former is None or known.known_at >= former.known_at:
            self._truths[name] = known
            self._truths.move_to_end(name)
            if len(self._truths) > self._most_truths:
                self._truths.popitem(last=False)
        answer = self._answers.get(name)
        if isinstance(answer, Answer):
            return self._settle(answer, known)
        if not before:
            self._count(answer, known, former, truth.time)
        return []

    def _settle(self, answer: Answer, known: Known) -> list[Match]:
        """The match, unless it was made before the restart."""
        self._answers[answer.input] = known.what
        return [] if answer.before and known.before else [Match(answer.given, known.what)]

    def _count(self, counted: str | float | None, known: Known, former: Known | None, time: float) -> None:
        """Count a truth that comes when another has ``counted``, or when no answer is held."""
        if counted is not None:
            self.counted = self.counted.plus("repeated" if counted == known.what else "contradicting")
        elif former is None and self.began <= time <= self.given_up_until:
            self.counted = self.counted.plus("late")
