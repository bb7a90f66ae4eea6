"""What the teacher said of the nearest input: an answer for those that it is not asked about, the budget being short.

After a change the student knows nothing of the new inputs until the next one serves, and the teacher is asked about
some of them. What it says of those is known at once, so the others are answered by the nearest of them: one nearest
neighbour (T. Cover and P. Hart, "Nearest neighbor pattern classification", IEEE Transactions on Information Theory 13,
1967) among the newest answers, by the sketches of :mod:`components.query.coverage`.

It answers only while it does better than the student on what the teacher is asked about. Of every such input both say
before what they would have answered, and :class:`drift.tracking.Tracking` follows the one that was right more often
lately. Where a pace chooses those inputs they are the ones that the student is least sure of, and on the others, which
are the ones that are answered so, it may well do better than it does there.

Such an answer is no label: only the teacher labels. Nothing of it is kept but sketches and soft labels, in this
process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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
        if spec.serve.deferral.neighbours is None:
            return None
        made = featuriser(msgspec.structs.replace(spec.features, entity=None), spec.source)
        return cls(made, spec.serve.deferral.neighbours, spec.seed)

    def forget(self) -> None:
        """Begin anew: another teacher says other things."""
        self._kept: Sketches = np.zeros((self._most, PLACES), dtype=np.float32)
        self._said: list[SoftLabel] = []
        self._learnt = 0
        self.tracking = Tracking()

    def learn(self, payloads: Sequence[Any], said: Sequence[SoftLabel], students: Sequence[str]) -> None:
        """Take what the teacher ``said`` of decoded payloads, and what the student would have answered to each.

        Both are judged by it before it is known to the neighbours; an empty answer of the student's judges neither.
        """
        if not payloads:
            return
        made = sketches(self._featuriser, payloads, self._seed, PLACES)
        for near, soft, student in zip(self._nearest(made), said, students, strict=True):
            if near is not None and student:
                self.tracking = self.tracking.observe(float(student != soft.label), float(near.label != soft.label))
        for row, soft in zip(made, said, strict=True):
            place = self._learnt % self._most
            self._kept[place] = row
            self._said[place : place + 1] = [soft]
            self._learnt += 1

    def answers(self, payloads: Sequence[Any]) -> list[SoftLabel | None]:
        """What the teacher said of the input nearest to each; None while the student does no worse by itself.

        None, too, of an input that is not like any of them: of a cosine below :data:`LEAST`.
        """
        if not (payloads and self.tracking.second):
            return [None] * len(payloads)
        return self._nearest(sketches(self._featuriser, payloads, self._seed, PLACES))

    def _nearest(self, made: Sketches) -> list[SoftLabel | None]:
        if not self._said:
            return [None] * len(made)
        likeness = made @ self._kept[: len(self._said)].T
        places = likeness.argmax(axis=1).tolist()
        return [self._said[p] if likeness[i, p] >= LEAST else None for i, p in enumerate(places)]
