"""All that a verdict rests on, as JSON lines: what a gate saw can be looked at, moved about, and judged again.

The format, one object a line, told apart by ``kind``:

``evaluation``
    The first line: which student was judged on which window, and by which criteria.
``row``
    One held-out input: what the teacher, the candidate and the champion say of it, its truth if it is known.
``value``
    One measure that is not made from rows: latency, bytes.
``verdict``
    The last line: what the gate said. Judging the lines before it gives the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import msgspec

from components.contracts.errors import ConfigError, RecordError
from components.contracts.records import SoftLabel, Task, set_of, set_text, spans_text, vector_of
from components.contracts.tagging import spans_from
from drift.gate import Criterion, Verdict
from drift.quality import ROUNDING

NEW = "new"
"""The set of the newest window's holdout."""

MEMBER = "member"
"""The set of rows that the candidate learnt from: they judge nothing but whether that can be told from its answers."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model says of an input: ``label`` with its probability, or ``value`` with its scale; ``entropy`` in nats.

    The label of multilabel is the set of classes as a JSON array (:func:`components.contracts.records.set_text`), of an
    embedding the vector's text (:func:`components.contracts.records.vector_text`), with its scale.

    ``coverage``: whether the 90 % interval of a regression holds the truth is seen from ``value`` and ``scale``.
    A value that is not there (a student's NaN is written as null) is missing evidence, and never a number.
    """

    label: str | None = None
    confidence: float | None = None
    entropy: float | None = None
    value: float | None = None
    scale: float | None = None

    @classmethod
    def of(cls, soft: SoftLabel) -> Answer:
        """An answer from a soft label."""
        if soft.task == "regression":
            return cls(value=soft.value, scale=soft.scale, entropy=soft.entropy)
        if soft.task == "embedding":
            return cls(label=soft.label, scale=soft.scale, entropy=soft.entropy)
        return cls(label=soft.label, confidence=min(1.0, soft.confidence), entropy=soft.entropy)


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Groups of rows that are compared with each other: their ``names``, and how many rows each needs for it."""

    names: tuple[str, ...]
    min_rows: int = 1


class Judgement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="evaluation", tag_field="kind"):
    """Which student is judged, on what, and by which criteria.

    ``look``: how many students, this one included, were judged on the newest window's holdout; ``repeated``: bounds
    are valid however often they are looked at; ``notes``: why criteria were left out; ``confidence``: of the bounds
    that are reported of what no criterion asks for; ``groups``: what rows are grouped by, and into which groups.
    ``neighbours``: the k of recall at k, of an embedding, among ``searched`` others of each query.
    ``throughout``: that it is ``repeated`` holds for the counts of groups and for membership, too, as in evidence from
    before it does not.
    """

    schema: Literal[1] = 1
    workload: str
    task: Task
    digest: str = ""
    window: str = ""
    champion: str | None = None
    min_rows: int = 1
    confidence: Annotated[float, msgspec.Meta(gt=0.5, lt=1.0)] = 0.95
    look: int = 1
    repeated: bool = False
    throughout: bool = False
    criteria: tuple[Criterion, ...] = ()
    notes: tuple[str, ...] = ()
    groups: dict[str, Compared] = {}
    neighbours: int = 10
    searched: int = 100


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="row", tag_field="kind"):
    """One held-out input.

    ``set``: ``new`` (the newest window), ``member`` (learnt from), ``extraction N`` (what a surrogate says that learnt
    from N answers, or from what else is named: ``champion`` is the student), ``regime NAME`` (an older one), ``noise
    NAME`` or ``attack`` (a disturbed input: ``champion`` is then the answer to the undisturbed one). ``weight``: how
    many inputs of the traffic it stands for, in [0, 1e9]; one of none counts nowhere. ``truth`` is text for classes; a
    number there is the class of that name.
    ``mutual_information``: of the ensemble of candidate, champion and previous, in nats. ``groups``: the group that it
    is of, by what rows are grouped by; ``deferred``: whether the candidate's answer would be deferred (None: unknown);
    ``loss``: how far its answer is from the teacher's, where that is compared with rows that were learnt from.
    """

    set: str
    id: str = ""
    weight: Annotated[float, msgspec.Meta(ge=0.0, le=1e9)] = 1.0
    audit: bool = False
    truth: str | float | None = None
    teacher: Answer | None = None
    candidate: Answer
    champion: Answer | None = None
    mutual_information: float | None = None
    groups: dict[str, str] = {}
    deferred: bool | None = None
    loss: float | None = None


class Value(msgspec.Struct, frozen=True, kw_only=True, tag="value", tag_field="kind"):
    """A measure that is not made from rows."""

    measure: str
    value: float | None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation's evidence, in the order of its lines."""

    judgement: Judgement
    rows: tuple[Row, ...] = ()
    values: tuple[Value, ...] = ()

    def sets(self, prefix: str) -> dict[str, list[Row]]:
        """Rows by the name of their set, of the sets whose name begins with ``prefix``, in the order of the lines."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.set.startswith(prefix):
                found.setdefault(row.set, []).append(row)
        return found


class _Said(msgspec.Struct, frozen=True, kw_only=True, tag="verdict", tag_field="kind"):
    decision: str
    findings: list[msgspec.Raw]
    reasons: list[str]


_line = msgspec.json.Decoder(Judgement | Row | Value | _Said)


def verdict_line(verdict: Verdict) -> bytes:
    """The verdict's line, without its newline."""
    return msgspec.json.encode({"kind": "verdict"} | verdict.as_dict())


def encode(evidence: Evidence, verdict: Verdict | None = None) -> bytes:
    """The evidence as JSON lines, with the verdict as the last one; equal evidence gives equal bytes."""
    lines = [*evidence.values, *evidence.rows]
    out = [msgspec.json.encode(x) for x in (evidence.judgement, *lines)]
    return b"\n".join([*out, *([verdict_line(verdict)] if verdict else []), b""])


def decode(lines: Iterable[bytes]) -> tuple[Evidence, bytes | None]:
    """The evidence, and the line of the verdict that was recorded, if there is one.

    Raises:
        ConfigError: a line is not one of evidence, or the first is not the evaluation's.

    """
    judgement: Judgement | None = None
    rows: list[Row] = []
    values: list[Value] = []
    recorded: bytes | None = None
    for number, text in enumerate(filter(bytes.strip, lines), start=1):
        line = _decode(text, number)
        if (judgement is None) != isinstance(line, Judgement):
            raise ConfigError("evidence", f"line {number}", "the first line, and no other, must be the evaluation's")
        if isinstance(line, Judgement):
            judgement = line
        elif isinstance(line, Row) and judgement is not None:
            rows.append(_checked(line, judgement.task, number))
        elif isinstance(line, Value):
            values.append(line)
        else:
            recorded = text.strip()
    if judgement is None:
        raise ConfigError("evidence", "empty", "must begin with the line of the evaluation")
    return Evidence(judgement=judgement, rows=tuple(rows), values=tuple(values)), recorded


def _decode(text: bytes, number: int) -> Judgement | Row | Value | _Said:
    try:
        line: Judgement | Row | Value | _Said = _line.decode(text)
        return line
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError("evidence", f"line {number}", f"must be a line of evidence: {error}") from error


def _checked(row: Row, task: Task, number: int) -> Row:
    """A row whose truth and answers are what the task needs.

    Raises:
        ConfigError: they are not.

    """
    given = {"teacher": row.teacher, "candidate": row.candidate, "champion": row.champion}
    said = {name: answer for name, answer in given.items() if answer is not None}
    if task == "regression":
        return msgspec.structs.replace(row, truth=_number(row.truth, number))
    for name, answer in said.items():
        if answer.label is None:
            raise ConfigError("evidence", f"line {number}", f"the {name}'s answer must have a label")
        _check_text(answer.label, task, number)
        if task == "embedding":
            _check_vector(name, answer, number)
        if answer.confidence is not None and not -ROUNDING <= answer.confidence <= 1.0 + ROUNDING:
            allowed = f"the {name}'s confidence is {answer.confidence:g}: it must be in [0, 1]"
            raise ConfigError("evidence", f"line {number}", allowed)
    truth = _class(row.truth, [a.label for a in said.values()])
    _check_text(truth, task, number)
    return msgspec.structs.replace(row, truth=truth)


def _check_text(text: str | None, task: Task, number: int) -> None:
    """Refuse what is no set of classes, of multilabel, and no spans, of tagging: each has one text alone."""
    if task not in ("multilabel", "tagging") or text is None:
        return
    try:
        same = set_text(set_of(text)) if task == "multilabel" else spans_text(spans_from(json.loads(text)))
    except (ValueError, RecordError):
        same = None
    if same == text:
        return
    allowed = "a set of classes must be the JSON array of their sorted names, each once"
    if task == "tagging":
        allowed = "spans must be the JSON array of [start, end, label], in the order of the text, none over another"
    raise ConfigError("evidence", f"line {number}", f"{allowed}, not {text!r:.80}")


def _check_vector(name: str, answer: Answer, number: int) -> None:
    try:
        vector = vector_of(answer.label or "")
    except ValueError as error:
        told = f"the {name}'s label: {error}"
        raise ConfigError("evidence", f"line {number}", told) from error
    if not vector or not all(map(math.isfinite, vector)) or answer.scale is None:
        told = f"the {name}'s answer must have a vector of finite numbers and a scale"
        raise ConfigError("evidence", f"line {number}", told)


def _class(truth: str | float | None, labels: Sequence[str | None]) -> str | None:
    """The class that a truth names; of a number the label that is the same number, else its shortest text."""
    if truth is None or isinstance(truth, str):
        return truth
    for label in labels:
        try:
            if label is not None and float(label) == truth:
                return label
        except ValueError:
            continue
    return str(int(truth)) if truth.is_integer() else repr(truth)


def _number(truth: str | float | None, number: int) -> float | None:
    """The number that a truth is, also where it was written as text."""
    try:
        found = None if truth is None else float(truth)
    except ValueError:
        found = math.nan
    if found is not None and not math.isfinite(found):
        raise ConfigError("evidence", f"line {number}", f"the truth of a regression must be a number, not {truth!r}")
    return found


def answers(soft: Sequence[SoftLabel] | None, n: int) -> list[Answer | None]:
    """Answers of ``n`` rows; None for each where a model was not asked."""
    return [None] * n if soft is None else [Answer.of(s) for s in soft]
