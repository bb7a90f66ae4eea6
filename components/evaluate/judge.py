"""The verdict on a student, from evidence alone: what the platform asks, and ``cohobate gate replay`` asks again."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from components.contracts.spec import Limits
from components.evaluate.criteria import criteria
from components.evaluate.evidence import Compared, Evidence, decode, verdict_line
from components.evaluate.measure import REGIME, measures
from drift.gate import Verdict, assess


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict that was had again.

    ``recorded``: whether the evidence holds a verdict; ``same``: whether it is this one, byte for byte. With other
    limits than the recorded ones there is nothing to be the same as, and ``same`` is None.
    """

    verdict: Verdict
    recorded: bool
    same: bool | None


def judge(evidence: Evidence) -> Verdict:
    """Measure the evidence and hold it against its own criteria."""
    return assess(measures(evidence), evidence.judgement.criteria)


def demanded(evidence: Evidence, limits: Limits) -> Evidence:
    """The same evidence with the criteria of these limits, at the same look."""
    judgement = evidence.judgement
    known = msgspec.structs.replace(
        judgement,
        min_rows=limits.min_rows,
        confidence=limits.confidence or judgement.confidence,
        repeated=limits.looks == "repeated",
        throughout=limits.looks == "repeated",
        neighbours=limits.neighbours,
        searched=limits.searched,
        groups={
            name: Compared(names=groups.names, min_rows=groups.min_rows or limits.min_rows)
            for name, groups in limits.groups.items()
        },
    )
    bare = msgspec.structs.replace(evidence, judgement=known)
    made, notes = criteria(
        limits,
        champion=judgement.champion is not None,
        older=any(row.set.startswith(REGIME) for row in evidence.rows),
        look=judgement.look,
        names=tuple(measures(bare)),
    )
    return msgspec.structs.replace(bare, judgement=msgspec.structs.replace(known, criteria=made, notes=notes))


def replay(lines: Iterable[bytes], limits: Limits | None = None) -> Replay:
    """Judge recorded evidence again, by its own criteria or, with ``limits``, by those that are tried on it.

    Raises:
        ConfigError: the lines are not evidence.

    """
    evidence, recorded = decode(lines)
    verdict = judge(demanded(evidence, limits) if limits else evidence)
    same = None if recorded is None or limits else recorded == verdict_line(verdict)
    return Replay(verdict=verdict, recorded=recorded is not None, same=same)
