"""Whether a student's answers tell which rows it learnt from: rows of evidence, and the measures that they lead to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from components.contracts.records import SoftLabel
from components.contracts.spec import Spec
from components.contracts.tagging import aligned
from components.contracts.vectors import distance
from components.control.tables import WindowRow
from components.distill.data import learnt_of_newest
from components.evaluate.evidence import MEMBER, Answer, Evidence, Row
from components.student.runtime import Student
from drift.gate import Measurement
from drift.membership import Area, advantage

MEMBERS = 500
"""Rows that were learnt from, at most, that the attack is tried on: they are evenly spread over the window."""

LEAST = 1e-12
"""Stands for a probability of zero in a divergence."""


def loss_of(teacher: SoftLabel, student: SoftLabel) -> float | None:
    """How far an answer is from the label that was to be learnt; None where it is no number.

    That is the divergence from the teacher's distribution, of multilabel summed over the classes, of a text that is
    tagged the mean over its tokens, in nats, the distance from its value in the target's unit, or the cosine distance
    from its vector.
    """
    if teacher.value is not None and student.value is not None:
        found = abs(student.value - teacher.value)
    elif teacher.vector:
        found = distance(student.vector, teacher.vector)
    elif teacher.task == "multilabel":
        found = sum(
            _divergence({"": p, "not": 1.0 - p}, {"": q, "not": 1.0 - q})
            for p, q in (
                (teacher.distribution.get(name, 0.0), student.distribution.get(name, 0.0))
                for name in teacher.distribution.keys() | student.distribution.keys()
            )
        )
    elif student.task == "tagging":
        wanted = aligned(teacher, [(token.start, token.end) for token in student.tokens])
        pairs = zip(wanted, student.tokens, strict=True)
        found = sum(_divergence(p, token.distribution) for p, token in pairs) / max(1, len(student.tokens))
    else:
        found = _divergence(teacher.distribution, student.distribution)
    return found if math.isfinite(found) else None


def _divergence(of: Mapping[str, float], to: Mapping[str, float]) -> float:
    return sum(p * math.log(p / max(to.get(name, 0.0), LEAST)) for name, p in of.items() if p > 0.0)


def member_rows(spec: Spec, windows: Sequence[WindowRow], candidate: Student) -> list[Row]:
    """Rows of the newest window that the candidate learnt from, with its losses; none where that is not known.

    Made-up inputs are left out: there are none among the others. Beside ``student.privacy`` nothing is looked at, since
    no account covers what would be told of rows that were learnt from.

    Raises:
        ProvenanceError: a row's label was not made by the declared teacher.
        ArtifactError: a snapshot is missing or not what was frozen.

    """
    if spec.student.privacy is not None or not set(candidate.card.snapshots[:1]) & set(windows[-1].digests):
        return []
    learnt = learnt_of_newest(spec, windows)
    places = [i for i, made_up in enumerate(learnt.synthetic) if not made_up]
    some = learnt.take(places[:: max(1, -(-len(places) // MEMBERS))])
    return [
        Row(set=MEMBER, id=name, teacher=Answer.of(soft), candidate=Answer.of(answer), loss=loss_of(soft, answer))
        for name, soft, answer in zip(some.ids, some.soft, candidate.predict(some.payloads), strict=True)
    ]


def membership(evidence: Evidence, new: Sequence[Row]) -> dict[str, Measurement]:
    """``membership_advantage`` and ``membership_auc`` with their bounds; none where no row tells of what was learnt.

    The bounds of the area are of one look: where the verdict is asked for again and again it is told without any.

    Others than members are rows of the same window that were held out by their hash, and not for an audit: what was
    chosen otherwise differs from members in more than that. None of fewer than the least rows on either side.
    """
    members = [row.loss for row in evidence.rows if row.set == MEMBER and row.loss is not None]
    others = [row.loss for row in new if row.loss is not None]
    if not members:
        return {}
    if min(len(members), len(others)) < max(2, evidence.judgement.min_rows):
        return {"membership_advantage": None, "membership_auc": None}
    found = advantage(members, others, anytime=evidence.judgement.throughout)
    area = Area.of(members, others)
    return {
        "membership_advantage": found,
        "membership_auc": area.value if evidence.judgement.throughout else area,
    }
