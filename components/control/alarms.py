"""What people say to alarms: that they have seen one, with a note, and that they want to hear no more of a kind."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from components.contracts.errors import ConfigError, NotFoundError
from components.control.chain import chain, in_turn
from components.control.store import ControlStore
from components.control.tables import AcknowledgementRow, AlarmRow, SilenceRow

MOST_HOURS = 168.0
"""The longest silence: a week, after which whoever wanted it is asked again."""

NOTE_CHARACTERS = 500


def acknowledge(store: ControlStore, workload: str, alarm: int, actor: str, note: str) -> None:
    """Say that somebody has seen an alarm; the first who does stands.

    Raises:
        NotFoundError: the workload has no such alarm.
        ConfigError: there is no note, or it is too long.

    """
    _check(note)

    def write(s: Session) -> None:
        row = s.get(AlarmRow, alarm)
        if row is None or row.workload != workload:
            raise NotFoundError("alarm", str(alarm), "the console's inbox lists them")
        if s.get(AcknowledgementRow, alarm) is not None:
            return
        now = store.clock()
        s.add(AcknowledgementRow(alarm=alarm, actor=actor, at=now, note=note.strip()))
        chain(s, now, workload, actor, "acknowledge alarm", {"alarm": alarm, "kind": row.kind, "reason": note.strip()})

    in_turn(store, write)


def silence(store: ControlStore, workload: str, kind: str, hours: float, actor: str, note: str) -> None:
    """Hear nothing of a kind of alarms for so many hours; 0 ends a silence.

    Raises:
        ConfigError: the time is none or too long, the kind is none, or there is no note or it is too long.

    """
    _check(note)
    if not 0.0 <= hours <= MOST_HOURS:
        raise ConfigError("hours", hours, f"must be from 0 (end the silence) to {MOST_HOURS:g}")
    if not 1 <= len(kind) <= 32:
        raise ConfigError("kind", kind[:40], "must be the kind of an alarm")

    def write(s: Session) -> None:
        now = store.clock()
        until = now + 3_600.0 * hours
        s.merge(SilenceRow(workload=workload, kind=kind, until=until, actor=actor, note=note.strip()))
        chain(s, now, workload, actor, "silence alarms", {"kind": kind, "hours": hours, "reason": note.strip()})

    in_turn(store, write)


def _check(note: str) -> None:
    if not 1 <= len(note.strip()) <= NOTE_CHARACTERS:
        raise ConfigError("note", note[:40], f"must have 1 to {NOTE_CHARACTERS} characters: it is recorded")


def silenced(s: Session, now: float) -> dict[tuple[str, str], SilenceRow]:
    """The silences in force, by workload and kind."""
    return {(row.workload, row.kind): row for row in s.scalars(select(SilenceRow).where(SilenceRow.until > now))}


def acknowledged(s: Session, alarms: Iterable[int]) -> dict[int, AcknowledgementRow]:
    """Which of these alarms somebody has seen."""
    query = select(AcknowledgementRow).where(AcknowledgementRow.alarm.in_(list(alarms)))
    return {row.alarm: row for row in s.scalars(query)}
