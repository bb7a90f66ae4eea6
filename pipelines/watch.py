"""What a champion's traffic is watched by: its view of an input, and everything that was learnt from its reference."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.contracts.errors import CohobateError, RecordError
from components.contracts.payload import bare, decoder, knowing
from components.contracts.records import CLASSED, NAMED, SoftLabel
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes
from components.contracts.tagging import span_counts
from components.control.alarm_kinds import DOUBT, DRIFT, ENTROPY, MONITORED, NOVELTY
from components.control.intent import ModelRef
from components.evaluate.check import fitted
from components.student.ensemble import disagreement
from components.student.runtime import Student
from drift.change_point import Change, ChangeDetector
from drift.monitor import Reference
from drift.novelty_detector import NoveltyDetector

log = logging.getLogger(__name__)

Row = dict[str, float | str]

SHARES = len(MONITORED) - 1
"""The parts of the spec's alpha: one for each kind but the change points, which have their own ``run_length``."""

DOUBT_COLUMNS = ("student_entropy", "mutual_information")
"""In nats: of the champion's answer, and how much the champion and the one that it replaced disagree, which tells
unknown inputs from hard ones."""

ENTROPY_COLUMNS = ("teacher_entropy", "entropy_gap")
"""In nats: of the teacher's soft label, and what the champion's answer has more."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One labelled input as the champion sees it. ``truth`` and ``novelty``, a p-value: None where it is not known."""

    name: str
    columns: Row
    answer: SoftLabel
    agrees: bool
    truth: str | None = None
    novelty: float | None = None


@dataclass(frozen=True, kw_only=True)
class Looked:
    """One input as the champion sees it; ``novelty``: the p-value that it gives it, None where it tells of none."""

    decoded: Any
    columns: Row
    answer: SoftLabel
    novelty: float | None


class View:
    """A champion, and the one that it replaced if there is one of its task, looking at inputs.

    Raises:
        ArtifactError: the champion is missing, was changed, or cannot be loaded.

    """

    def __init__(self, spec: Spec, champion: ModelRef, previous: ModelRef | None) -> None:
        self.champion = _student(spec, champion)
        self._decode = knowing(decoder(spec.payload, spec.source))
        self._previous: Student | None = None
        if previous is None or previous.digest == champion.digest:
            return
        try:
            self._previous = _student(spec, previous)
        except CohobateError as error:  # it is asked for a second opinion, and serves nobody
            log.warning("%s: no mutual information: version %s: %s", spec.name, previous.version, error)

    def look(self, payloads: Sequence[bytes]) -> list[Looked]:
        """What is watched of inputs that nobody has labelled: descriptors, answers, and how unsure they are.

        What cannot be decoded is left out.
        """
        decoded = []
        for payload in payloads:
            try:
                decoded.append(self._decode(payload))
            except RecordError:
                continue  # a dead letter, whose count is the labeler's
        return self._looked(decoded)

    def see(self, name: str, payload: bytes, soft: SoftLabel, truth: str | None = None) -> Seen:
        """What is watched of a labelled input: what :meth:`look` says of it, and the entropies of its label.

        Raises:
            RecordError: the payload cannot be decoded.

        """
        return self.judge(name, self.decoded(payload), soft, truth)

    def decoded(self, payload: bytes) -> Any:
        """A payload as students take it.

        Raises:
            RecordError: it cannot be decoded.

        """
        return self._decode(payload)

    def judge(self, name: str, decoded: Any, soft: SoftLabel, truth: str | None = None) -> Seen:
        """As :meth:`see`, of a payload that is decoded already."""
        (one,) = self._looked([decoded])
        answer, row = one.answer, one.columns
        row |= dict(zip(ENTROPY_COLUMNS, (soft.entropy, answer.entropy - soft.entropy), strict=True))
        agrees = soft.task in NAMED and answer.label == soft.label
        return Seen(name=name, columns=row, answer=answer, agrees=agrees, truth=truth, novelty=one.novelty)

    def _looked(self, decoded: Sequence[Any]) -> list[Looked]:
        if not decoded:
            return []
        replies = self.champion.reply_decoded(decoded)
        members = [[reply.soft for reply in replies]]
        if self._previous is not None:
            members.append(self._previous.predict_decoded(decoded))
        unlike = disagreement(members)
        found = []
        for i, (one, (answer, novelty)) in enumerate(zip(decoded, replies, strict=True)):
            row: Row = dict(self.champion.featuriser.describe(bare(one)))
            if answer.task in CLASSED:
                row["answer"] = answer.label
            if answer.task == "tagging":
                row |= span_counts(answer, self.champion.card.classes)
            row |= dict(zip(DOUBT_COLUMNS, (answer.entropy, *unlike[i : i + 1]), strict=False))
            found.append(Looked(decoded=one, columns=row, answer=answer, novelty=novelty))
        return found


def _student(spec: Spec, model: ModelRef) -> Student:
    return Student.load(get_bytes(model.uri, model.digest), source=spec.source)


def _kind(column: str) -> str:
    return ENTROPY if column in ENTROPY_COLUMNS else DOUBT if column in DOUBT_COLUMNS else DRIFT


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What was learnt from a champion's reference.

    ``references`` judge windows, by kind; ``changes`` look at every input and at every label, by what they are read
    from, where the spec wants it; ``novelty`` at every p-value of the champion's answers. Together they raise a false
    alarm with a chance of the spec's alpha at most while half a window of inputs goes by.
    """

    references: Mapping[str, Reference]
    changes: Mapping[str, ChangeDetector]
    novelty: NoveltyDetector | None

    @classmethod
    def fit(cls, spec: Spec, rows: Sequence[Seen], calibrated: int = 0, usual: Sequence[float] = ()) -> Watch:
        """Learn from the reference's rows; of none nothing is watched.

        ``calibrated``: how many inputs the champion's p-values rest on, 0 where it tells of no novelty; ``usual``: its
        p-values of known inputs like the present traffic, where those inputs are of other traffic as well.
        """
        monitor = spec.monitor
        if not rows:
            return cls(references={}, changes={}, novelty=None)
        alpha, columns = monitor.alpha / SHARES, columns_of([row.columns for row in rows])
        references = {
            kind: fitted(mine, monitor, window=monitor.window, alpha=alpha, seed=spec.seed)
            for kind in (DRIFT, DOUBT, ENTROPY)
            if (mine := {n: c for n, c in columns.items() if _kind(n) == kind})
        }
        # Of the Shiryaev-Roberts sums' false alarms n / run_length at most come within n inputs.
        rare, novelty = max(2.0, monitor.window / 2.0 / alpha), None
        if calibrated:
            novelty = NoveltyDetector.calibrated(
                calibrated, run_length=rare, min_effect=min(monitor.min_effect, 0.49), usual=usual
            )
        changes = {}
        if monitor.run_length is not None:
            for source in ("inputs", "labels"):
                mine = {n: c for n, c in columns.items() if (_kind(n) == ENTROPY) == (source == "labels")}
                run_length = 2.0 * monitor.run_length  # each has half of the false alarms
                changes[source] = ChangeDetector.fit(mine, run_length=run_length, min_effect=monitor.min_effect)
        return cls(references=references, changes=changes, novelty=novelty)

    @property
    def detectors(self) -> dict[str, ChangeDetector]:
        """Those whose evidence outlasts a restart, by the name that it is kept under."""
        novelty = {} if self.novelty is None else {NOVELTY: self.novelty}
        return {**self.changes, **novelty}


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


def columns_of(rows: Sequence[Row]) -> dict[str, list[float | str | None]]:
    """Rows as columns."""
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
