"""Whether a student's p-values of novelty are what they say: on held out rows that they were not calibrated on."""

from __future__ import annotations

from components.distill.data import Rows
from components.distill.novelty import judges
from components.student.runtime import Student
from drift.novelty import excess
from drift.reweight import thinned

USUAL = 0.05
"""The level that is looked at where the spec defers nothing for its novelty."""


def novelty(student: Student, rows: Rows, alpha: float | None) -> dict[str, float | None]:
    """What is seen on the newest holdout, as values of the evidence; empty of a student that tells no novelty.

    ``novelty_rows``: held out rows that it was not calibrated on; ``novelty_deferred``: the share of them at or below
    ``alpha``, which is to be at most ``alpha``; ``novelty_chance``: the chance of as many where that is so, near 0
    where p-values are too small (both None of no rows); ``novelty_least``: the least p-value that the student can give,
    above ``alpha`` where it can defer nothing for want of rows to calibrate on.
    """
    if not student.tells_novelty:
        return {}
    level = USUAL if alpha is None else alpha
    judged = rows.take([i for i, payload in enumerate(rows.payloads) if judges(payload)])
    drawn = judged.take(thinned(judged.weights))
    small = [reply.novelty <= level for reply in student.reply(drawn.payloads) if reply.novelty is not None]
    return {
        "novelty_rows": float(len(small)),
        "novelty_deferred": sum(small) / len(small) if small else None,
        "novelty_chance": excess(sum(small), len(small), level) if small else None,
        "novelty_least": student.least_novelty,
    }
