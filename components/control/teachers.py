"""What the control database keeps of teachers: behaviour, clean rounds of probes, incidents and their decisions.

A label names its teacher in an *epoch* (:func:`components.teachers.contract.in_epoch`). An epoch ends when a person
decides about an incident; labels of an ended epoch count only when they were made before it became suspect.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from components.contracts.errors import NotFoundError, TransitionError
from components.control.chain import chain
from components.control.database import StaleRevisionError
from components.control.store import ControlStore
from components.control.tables import AlarmRow, CleanRow, IncidentRow, TeacherRow

Status = Literal["trusted", "suspect", "held"]
Verdict = Literal["accept", "reject"]
ALARM = "teacher"


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """An epoch that ended: its labels count when they were made before ``until`` (Unix seconds)."""

    epoch: int
    behaviour: int
    until: float


class TeacherState(msgspec.Struct, frozen=True, kw_only=True):
    """The behaviour of a declared teacher (``name@digest``).

    ``behaviour``: the epoch whose answers of reference are still in force: rejecting a change starts another epoch of
    the old behaviour, accepting it starts a new behaviour. ``since``: start of this epoch (Unix seconds). ``probes``:
    as :class:`components.teacher_watch.probes.Probe`, in plain data. ``status``: ``trusted``; ``suspect`` (labels go to
    quarantine); ``held`` (rejected, nothing is labelled until the old behaviour is back).
    """

    space: str
    classes: tuple[str, ...] = ()
    epoch: int = 0
    behaviour: int = 0
    status: Status = "trusted"
    since: float = 0.0
    probes: tuple[dict[str, Any], ...] = ()
    ended: tuple[Ended, ...] = ()

    def until(self, epoch: int) -> float | None:
        """Until when labels of an epoch count as made by the present behaviour; None: they do not."""
        if epoch == self.epoch:
            return float("inf")
        return next((e.until for e in self.ended if e.epoch == epoch and e.behaviour == self.behaviour), None)


def teacher_state(store: ControlStore, workload: str, teacher: str) -> tuple[int, TeacherState | None]:
    """The revision and state of a declared teacher; 0 and None where it was never started."""
    with store.session() as s:
        row = s.get(TeacherRow, (workload, teacher))
        return (row.revision, msgspec.convert(row.state, TeacherState)) if row else (0, None)


def teacher_revision(store: ControlStore, workload: str, teacher: str) -> int:
    """The revision alone, which is cheap to ask for; 0 where there is no row."""
    with store.session() as s:
        query = select(TeacherRow.revision).where(TeacherRow.workload == workload, TeacherRow.teacher == teacher)
        return s.scalar(query) or 0


def probes_of(store: ControlStore, workload: str) -> set[str]:
    """The contents of all probes of a workload's teachers, and of what incidents offer."""
    with store.session() as s:
        states = s.scalars(select(TeacherRow.state).where(TeacherRow.workload == workload))
        named = [probe for state in states for probe in state.get("probes", ())]
        for candidate in s.scalars(select(IncidentRow.candidate).where(IncidentRow.workload == workload)):
            named += candidate
    return {probe["content"] for probe in named}


def without_probes(store: ControlStore, workload: str, contents: Collection[str]) -> int:
    """Take contents out of the probes of a workload's teachers, and of what incidents offer; returns how many.

    Their payloads, which lie beside, are deleted afterwards. A labeler draws other probes.
    """
    count = 0
    with store.transaction() as s:
        for row in s.scalars(select(TeacherRow).where(TeacherRow.workload == workload).with_for_update()):
            kept = [p for p in row.state.get("probes", ()) if p["content"] not in contents]
            if len(kept) < len(row.state.get("probes", ())):
                count += len(row.state["probes"]) - len(kept)
                row.state, row.revision = {**row.state, "probes": kept}, row.revision + 1
        for incident in s.scalars(select(IncidentRow).where(IncidentRow.workload == workload).with_for_update()):
            left = [p for p in incident.candidate if p["content"] not in contents]
            if len(left) < len(incident.candidate):
                incident.candidate = left
    return count


def teachers(store: ControlStore, workload: str | None = None) -> list[TeacherRow]:
    """All teachers that were started for a workload, or for any."""
    query = select(TeacherRow).order_by(TeacherRow.workload, TeacherRow.teacher)
    with store.session() as s:
        return list(s.scalars(query if workload is None else query.where(TeacherRow.workload == workload)))


def put_teacher(store: ControlStore, workload: str, teacher: str, expected: int, state: TeacherState) -> int:
    """Write the state if its revision is still ``expected`` (0: new); returns the new revision.

    Raises:
        StaleRevisionError: somebody else wrote it first.

    """
    with store.compared(f"teacher of {workload}", expected) as s:
        return _put(s, workload, teacher, expected, state)


def _put(s: Any, workload: str, teacher: str, expected: int, state: TeacherState) -> int:
    row = s.get(TeacherRow, (workload, teacher), with_for_update=True)
    found = row.revision if row else 0
    if found != expected:
        raise StaleRevisionError(f"teacher of {workload}", expected, found)
    plain = msgspec.to_builtins(state)
    if row is None:
        s.add(TeacherRow(workload=workload, teacher=teacher, revision=1, state=plain))
    else:
        row.revision, row.state = expected + 1, plain
    return expected + 1


def put_clean(
    store: ControlStore, workload: str, teacher: str, member: str, epoch: int, at: float, positions: Mapping[str, int]
) -> None:
    """Record that a labeler found a whole round clean that began ``at``, with the labels topic's ends then."""
    with store.transaction() as s:
        s.merge(
            CleanRow(
                workload=workload, teacher=teacher, member=member, epoch=epoch, at=at, positions=dict(positions)
            )
        )  # fmt: skip


def clean_rounds(store: ControlStore, workload: str, teacher: str, epoch: int) -> dict[str, CleanRow]:
    """The last clean round of each labeler in an epoch, by the labeler's name."""
    query = select(CleanRow).where(
        CleanRow.workload == workload, CleanRow.teacher == teacher, CleanRow.epoch == epoch
    )  # fmt: skip
    with store.session() as s:
        return {row.member: row for row in s.scalars(query)}


def open_incident(
    store: ControlStore,
    workload: str,
    teacher: str,
    expected: int,
    state: TeacherState,
    *,
    suspect_from: float,
    index: int,
    candidate: Sequence[Any],
    detail: dict[str, Any],
) -> int:
    """Put a trusted teacher under suspicion: state, incident and alarm, in one transaction; returns the incident.

    Raises:
        StaleRevisionError: the state is not what the caller saw, so another labeler may have opened one.

    """
    at = store.clock()
    with store.compared(f"teacher of {workload}", expected) as s:
        _put(s, workload, teacher, expected, msgspec.structs.replace(state, status="suspect"))
        row = IncidentRow(
            workload=workload, teacher=teacher, epoch=state.epoch, suspect_from=suspect_from, opened_at=at,
            mixed=False, candidate=list(candidate), detail=detail,
        )  # fmt: skip
        s.add(row)
        s.flush()
        alarm = {"incident": row.id, "teacher": teacher, "suspect_from": suspect_from, **detail}
        s.add(AlarmRow(workload=workload, kind=ALARM, input_index=index, at=at, detail=alarm))
        return row.id


def incidents(store: ControlStore, workload: str) -> list[IncidentRow]:
    """All incidents of a workload, oldest first."""
    with store.session() as s:
        return list(s.scalars(select(IncidentRow).where(IncidentRow.workload == workload).order_by(IncidentRow.id)))


def last_incident(store: ControlStore, workload: str, teacher: str) -> IncidentRow | None:
    """The newest incident of a teacher."""
    query = select(IncidentRow).where(IncidentRow.workload == workload, IncidentRow.teacher == teacher)
    with store.session() as s:
        return s.scalars(query.order_by(IncidentRow.id.desc())).first()


def update_incident(
    store: ControlStore,
    incident: int,
    *,
    candidate: Sequence[Any] | None = None,
    mixed: bool | None = None,
    settled_at: float | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Change what is given of an incident; ``detail`` is merged."""
    with store.transaction() as s:
        row = s.get_one(IncidentRow, incident)
        row.candidate = list(candidate) if candidate is not None else row.candidate
        row.mixed = row.mixed if mixed is None else mixed
        row.settled_at = row.settled_at if settled_at is None else settled_at
        row.detail = {**row.detail, **(detail or {})}


def decide(store: ControlStore, workload: str, verdict: Verdict, actor: str, reason: str) -> IncidentRow:
    """Decide about the teacher under suspicion, in one transaction with the ledger's entry; returns the incident.

    ``accept``: the answers of the incident become the reference of a new behaviour. ``reject``: the old behaviour
    stays the reference, and nothing is labelled until the teacher shows it again. Either starts a new epoch. A
    teacher that was rejected can still be accepted while it is held. The same verdict again changes nothing.

    Raises:
        NotFoundError: no teacher of this workload is, or was, under suspicion.
        TransitionError: the last incident was decided otherwise.
        StaleRevisionError: somebody else decided at the same time.

    """
    waiting = [t for t in teachers(store, workload) if t.state["status"] != "trusted"]
    teacher = waiting[-1].teacher if waiting else None
    known = incidents(store, workload)
    found = [i for i in known if teacher in (None, i.teacher)]
    if not found:
        raise NotFoundError("incident", workload, "no teacher of this workload changed; see 'cohobate teacher status'")
    incident = found[-1]
    revision, state = teacher_state(store, workload, incident.teacher)
    late = state is not None and state.status == "held" and verdict == "accept"
    if state is None or (state.status != "suspect" and not late):
        if incident.verdict == verdict:
            return incident
        raise TransitionError(f"{verdict} the teacher", f"incident {incident.id} is decided: {incident.verdict}", ())
    now = store.clock()
    until = state.since if late else incident.suspect_from
    after = msgspec.structs.replace(
        state,
        epoch=state.epoch + 1,
        behaviour=state.epoch + 1 if verdict == "accept" else state.behaviour,
        probes=tuple(incident.candidate) if verdict == "accept" else state.probes,
        status="trusted" if verdict == "accept" else "held",
        since=now,
        ended=(*state.ended, Ended(epoch=state.epoch, behaviour=state.behaviour, until=until)),
    )
    try:
        with store.transaction() as s:
            _put(s, workload, incident.teacher, revision, after)
            row = s.get_one(IncidentRow, incident.id)
            if not late:
                row.verdict, row.decided_at = verdict, now
            entry = {
                "incident": row.id, "teacher": row.teacher, "epoch": after.epoch, "behaviour": after.behaviour,
                "suspect_from": row.suspect_from, "reason": reason, "after_rejection": late,
            }  # fmt: skip
            chain(s, now, workload, actor, f"teacher-{verdict}", entry)
            s.flush()
            return row
    except IntegrityError as error:
        raise StaleRevisionError(f"teacher of {workload}", revision, revision + 1) from error
