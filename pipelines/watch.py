"""What a champion's traffic is watched by: its view of an input, and everything that was learnt from its reference."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.contracts.errors import CohobateError
from components.contracts.payload import decoder
from components.contracts.records import SoftLabel
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes
from components.control.intent import ModelRef
from components.evaluate.check import fitted
from components.student.ensemble import disagreement
from components.student.runtime import Student
from drift.change_point import Change, ChangeDetector
from drift.monitor import Reference

log = logging.getLogger(__name__)

Row = dict[str, float | str]

KINDS = ("drift", "entropy")
"""The verdicts on windows, each with an equal part of the spec's alpha."""

CHANGE = "change"
"""The kind of the alarms that the detector of change points raises."""

ENTROPY_COLUMNS = ("teacher_entropy", "student_entropy", "entropy_gap", "mutual_information")
"""In nats: of the teacher's soft label, of the champion's answer, the second less the first, and how much the champion
and the one that it replaced disagree, which tells unknown inputs from hard ones."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One labelled input as the champion sees it. ``truth``: None where it is not known."""

    name: str
    columns: Row
    answer: SoftLabel
    agrees: bool
    truth: str | None = None


class View:
    """A champion, and the one that it replaced if there is one of its task, looking at inputs.

    Raises:
        ArtifactError: the champion is missing, was changed, or cannot be loaded.

    """

    def __init__(self, spec: Spec, champion: ModelRef, previous: ModelRef | None) -> None:
        self.champion = _student(spec, champion)
        self._decode = decoder(spec.payload, spec.source)
        self._previous: Student | None = None
        if previous is None or previous.digest == champion.digest:
            return
        try:
            self._previous = _student(spec, previous)
        except CohobateError as error:  # it is asked for a second opinion, and serves nobody
            log.warning("%s: no mutual information: version %s: %s", spec.name, previous.version, error)

    def see(self, name: str, payload: bytes, soft: SoftLabel, truth: str | None = None) -> Seen:
        """What is watched of an input: its descriptors, the champion's answer, and the entropies.

        Raises:
            RecordError: the payload cannot be decoded.

        """
        decoded = self._decode(payload)
        members = [s.predict_decoded([decoded]) for s in (self.champion, self._previous) if s is not None]
        answer = members[0][0]
        columns: Row = dict(self.champion.featuriser.describe(decoded))
        if soft.task == "classification":
            columns["answer"] = answer.label
        values = (soft.entropy, answer.entropy, answer.entropy - soft.entropy, *disagreement(members))
        columns |= dict(zip(ENTROPY_COLUMNS, values, strict=False))
        agrees = soft.task == "classification" and answer.label == soft.label
        return Seen(name=name, columns=columns, answer=answer, agrees=agrees, truth=truth)


def _student(spec: Spec, model: ModelRef) -> Student:
    return Student.load(get_bytes(model.uri, model.digest), source=spec.source)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What was learnt from a champion's reference.

    ``references`` judge windows; ``change`` looks at every row, where the spec wants it.
    """

    references: Mapping[str, Reference]
    change: ChangeDetector | None

    @classmethod
    def fit(cls, spec: Spec, rows: Sequence[Seen]) -> Watch:
        """Learn from the reference's rows; of none nothing is watched."""
        monitor, columns = spec.monitor, columns_of(rows)
        references = {
            kind: fitted(
                {n: c for n, c in columns.items() if (n in ENTROPY_COLUMNS) == (kind == "entropy")},
                monitor,
                window=monitor.window,
                alpha=monitor.alpha / len(KINDS),
                seed=spec.seed,
            )
            for kind in (KINDS if rows else ())
        }
        change = None
        if monitor.run_length is not None and rows:
            change = ChangeDetector.fit(columns, run_length=monitor.run_length, min_effect=monitor.min_effect)
        return cls(references=references, change=change)


def observed(detector: ChangeDetector, columns: Row) -> dict[str, list[Any]]:
    """One row for a detector: text where the reference had numbers, and what is not there, is missing."""
    row: dict[str, list[Any]] = {n: [columns.get(n)] for n in (*detector.ranked, *detector.named)}
    return {n: [None] if n in detector.ranked and isinstance(v[0], str) else v for n, v in row.items()}


def said(found: Change, run_length: float) -> dict[str, Any]:
    """An alarm's detail; ``rows``: how many looked-at inputs the change is probably old."""
    reason = f"{found.column} ({found.what}) has changed, probably {found.row - found.since + 1} inputs ago"
    return {
        "reason": reason, "drifted": [found.column], "what": found.what, "rows": found.row - found.since + 1,
        "log_evidence": found.log_evidence, "run_length": run_length,
    }  # fmt: skip


def columns_of(rows: Sequence[Seen]) -> dict[str, list[float | str | None]]:
    """Rows as columns."""
    return {name: [row.columns[name] for row in rows] for name in (rows[0].columns if rows else {})}
