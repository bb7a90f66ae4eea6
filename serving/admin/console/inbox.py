"""What waits for a person: alarms, a teacher that changed, questions, and dead letters."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import func, select

from components.contracts.errors import RecordError
from components.contracts.records import Input, decode
from components.control.alarms import acknowledged, silenced
from components.control.store import ControlStore
from components.control.tables import AcknowledgementRow, AlarmRow, IncidentRow, ReviewRow, SilenceRow
from components.dead_letters.letters import Letter, read_letters
from components.dead_letters.replay import verdicts
from components.stream.contract import Broker

ALARMS = 50
"""The newest alarms that are listed."""

LETTERS = 100
"""The newest dead letters that are listed."""

PREVIEW_CHARACTERS = 2_000
"""How much of a payload is shown."""


class AlarmView(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm, who has seen it, and until when its kind is silenced."""

    row: AlarmRow
    seen: AcknowledgementRow | None
    silence: SilenceRow | None

    @property
    def says(self) -> str:
        """What it tells, in words."""
        detail = self.row.detail
        drifted = detail.get("drifted") or ()
        columns = drifted if isinstance(drifted, str) else ", ".join(map(str, drifted))
        return str(detail.get("reason") or columns)


class Inbox(msgspec.Struct, frozen=True, kw_only=True):
    """Everything but dead letters, of all workloads. ``questions``: how many wait, by workload."""

    alarms: Sequence[AlarmView]
    incidents: Sequence[IncidentRow]
    questions: dict[str, int]


def inbox(store: ControlStore) -> Inbox:
    """What waits, newest first."""
    with store.session() as s:
        rows = s.scalars(select(AlarmRow).order_by(AlarmRow.id.desc()).limit(ALARMS)).all()
        seen, silent = acknowledged(s, [row.id for row in rows]), silenced(s, store.clock())
        waiting = IncidentRow.verdict.is_(None) | IncidentRow.settled_at.is_(None)
        incidents = s.scalars(select(IncidentRow).where(waiting).order_by(IncidentRow.id.desc()).limit(ALARMS)).all()
        counted = (
            select(ReviewRow.workload, func.count())
            .where(ReviewRow.answered_at.is_(None))
            .group_by(ReviewRow.workload)
            .order_by(ReviewRow.workload)
        )
        questions = {workload: count for workload, count in s.execute(counted)}
    return Inbox(
        alarms=[
            AlarmView(row=row, seen=seen.get(row.id), silence=silent.get((row.workload, row.kind))) for row in rows
        ],
        incidents=incidents,
        questions=questions,
    )


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question to a person. ``classes`` with the key that answers each, where there are no more than keys."""

    key: str
    input_id: str
    payload: str
    why: str
    asked_at: float
    classes: Sequence[tuple[str, str, float | None]]


KEYS = "123456789abcdefghijklmnopqrstuvwxyz"
"""The keys that answer a question, in the order of the classes."""


def question(row: ReviewRow) -> Question:
    """A question as a person reads it; the classes are in the order of the draft's probabilities where there is one."""
    entry = decode(Input, row.input)
    draft: dict[str, float] = (row.draft or {}).get("distribution", {})
    classes = sorted(map(str, row.classes), key=lambda c: -draft.get(c, 0.0))
    keys = KEYS if len(classes) <= len(KEYS) else ""
    return Question(
        key=row.key,
        input_id=entry.id,
        payload=_text(entry.payload)[:PREVIEW_CHARACTERS],
        why=row.why,
        asked_at=row.asked_at,
        classes=[(keys[i] if keys else "", name, draft.get(name)) for i, name in enumerate(classes)],
    )


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(payload).decode()


class LetterView(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter with what was decided about it."""

    name: str
    status: str
    reason: str
    error: str
    detail: str
    at: float
    input_id: str | None
    payload: str
    decided: str


def letters(store: ControlStore, broker: Broker, workload: str) -> list[LetterView]:
    """The newest dead letters of a workload, newest first. Reads the whole topic.

    Raises:
        NotFoundError: the workload has no topic of dead letters.
        UnavailableError: the broker does not answer.

    """
    known = verdicts(store, workload)
    found: deque[Letter] = deque(read_letters(broker, workload), maxlen=LETTERS)
    return [
        LetterView(
            name=letter.name, status=known.status(letter.key), reason=letter.dead.reason, error=letter.dead.error,
            detail=letter.dead.detail, at=letter.dead.at, input_id=letter.input_id, payload=_shown(letter),
            decided=str(known.get(letter.key) or ""),
        )
        for letter in reversed(found)
    ]  # fmt: skip


def _shown(letter: Letter) -> str:
    """The payload of the refused input where it can be decoded, else the record's own bytes."""
    try:
        payload: Any = decode(Input, letter.dead.value).payload
    except RecordError:
        payload = letter.dead.value
    return _text(payload)[:PREVIEW_CHARACTERS]
