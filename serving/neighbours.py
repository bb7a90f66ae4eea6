"""What the teacher said of the nearest input: an answer for those that it is not asked about, the budget being short.

After a change the student knows nothing of the new inputs until the next one serves, and the teacher is asked about
some of them. What it says of those is known at once, so the others are answered by the nearest of them: one nearest
neighbour (T. Cover and P. Hart, "Nearest neighbor pattern classification", IEEE Transactions on Information Theory 13,
1967) among the newest answers, by the sketches of :mod:`components.query.coverage`.

It answers only where it does better than the student. Of every input that the teacher is asked about both say before
what they would have answered; but a pace has it asked about those that need an answer most, on which the student does
worst, and the others are to be answered. So the two are compared by how much speaks for the neighbour: the input's need
of another answer than the student's, times how alike the neighbour is. :class:`drift.tracking.Tracking` follows the
neighbours from that threshold on from which they were right more often lately. What a version of the student did tells
nothing of another.

Such an answer is no label: only the teacher labels. Nothing of it is kept but sketches and soft labels, in this
process.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from components.contracts.records import SoftLabel
from components.contracts.spec import Spec
from components.query.coverage import Sketches, sketches
from components.student.features import Featuriser, featuriser
from drift.tracking import Tracking

PLACES = 1_024
"""Numbers of a sketch: the cosine of two is then about 0.03 off, and 2,000 of them are eight megabytes."""

LEAST = 5.0 / math.sqrt(PLACES)
"""The cosine that two sketches must have for one to speak for the other: five times what chance makes of two inputs
that have nothing in common, since the nearest of thousands is looked for."""


VERSIONS = 4
"""Students that are known together: a champion, a candidate, and those that they took the place of."""


class Asked(NamedTuple):
    """An input that the teacher was asked about: what it said, the label of the student of a version, the need.

    ``student`` is empty where it is not known.
    """

    payload: Any
    said: SoftLabel
    student: str
    version: str
    need: float


class Nearest(NamedTuple):
    """What the teacher said of the nearest input, and the cosine of the two."""

    said: SoftLabel
    cosine: float

    def score(self, need: float) -> float:
        """What speaks for it, in [0, 1]."""
        return min(1.0, need * self.cosine)


class Neighbours:
    """The newest ``most`` answers of the teacher, by the sketches of their inputs. ``seed``: of the projections."""

    def __init__(self, made: Featuriser, most: int, seed: int = 0) -> None:
        self._featuriser, self._most, self._seed = made, most, seed
        self.forget()

    @classmethod
    def of(cls, spec: Spec) -> Neighbours | None:
        """Those of a spec; None where it wants none.

        Features of the entity are no part of the likeness: a question carries the payload alone.
        """
        if not (most := spec.neighbours):
            return None
        made = featuriser(msgspec.structs.replace(spec.features, entity=None), spec.source)
        return cls(made, most, spec.seed)

    def forget(self) -> None:
        """Begin anew: another teacher says other things."""
        self._kept: Sketches = np.zeros((self._most, PLACES), dtype=np.float32)
        self._said: list[SoftLabel] = []
        self._learnt = 0
        self._tracking: OrderedDict[str, Tracking] = OrderedDict()

    def tracking(self, version: str) -> Tracking:
        """Which of the two to follow where a version of the student answers."""
        return self._tracking.get(version, Tracking())

    def learn(self, asked: Sequence[Asked]) -> None:
        """Take what the teacher said of these inputs.

        Student and neighbours are judged by it before the neighbours know it; an empty label of the student's judges
        neither.
        """
        if not asked:
            return
        made = sketches(self._featuriser, [a.payload for a in asked], self._seed, PLACES)
        for near, (_, soft, student, version, need) in zip(self._nearest(made), asked, strict=True):
            if near is not None and student:
                lost = float(student != soft.label), float(near.said.label != soft.label)
                self._tracking[version] = self.tracking(version).observe(near.score(need), *lost)
                self._tracking.move_to_end(version)
        while len(self._tracking) > VERSIONS:
            self._tracking.popitem(last=False)
        for row, one in zip(made, asked, strict=True):
            place = self._learnt % self._most
            self._kept[place] = row
            self._said[place : place + 1] = [one.said]
            self._learnt += 1

    def answers(
        self, payloads: Sequence[Any], needs: Sequence[float], versions: Sequence[str]
    ) -> list[SoftLabel | None]:
        """What the teacher said of the input nearest to each; None where the student does no worse by itself.

        ``needs``: how much each input needs another's answer than the student's
        (:func:`components.query.pace.need`); ``versions``: of the student that answered. None, too, of an input that is
        not like any of them: of a cosine below :data:`LEAST`.
        """
        if not any(self.tracking(version).second(1.0) for version in versions):
            return [None] * len(payloads)
        found = self._nearest(sketches(self._featuriser, payloads, self._seed, PLACES))
        return [
            near.said if near is not None and self.tracking(version).second(near.score(need)) else None
            for near, need, version in zip(found, needs, versions, strict=True)
        ]

    def _nearest(self, made: Sketches) -> list[Nearest | None]:
        if not self._said:
            return [None] * len(made)
        likeness = made @ self._kept[: len(self._said)].T
        places, cosines = likeness.argmax(axis=1).tolist(), likeness.max(axis=1).tolist()
        return [Nearest(self._said[p], c) if c >= LEAST else None for p, c in zip(places, cosines, strict=True)]
