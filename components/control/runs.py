"""Runs in the control database: one update at a time for each workload, over all processes and machines.

A run that is under way says so by a heartbeat. One that has gone silent lost its process: it is recorded as abandoned
and no longer keeps others from starting. Orders (``promote``, ``rollback``) may run at any time.

A run on Kubeflow beats while one of its steps is at work. Between two steps nobody does, while a pod waits for its
node and its image: so its row says for itself how long it may be silent (``silent_seconds``), and which run there it
is (``kubeflow``: the run's id; empty while it is not known yet).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from components.contracts.errors import PipelineError
from components.control.chain import chain, in_turn
from components.control.store import ControlStore
from components.control.tables import RunRow

log = logging.getLogger(__name__)

UPDATES = ("bootstrap", "continual", "data-free")
"""The pipelines that make students, of which one runs at a time."""

FORGET = "forget"
"""What keeps updates from starting while an entity is forgotten: it is recorded as a run."""

RETENTION = "retention"
"""What deletes by age is a run as well."""

ALONE = (*UPDATES, FORGET, RETENTION)
"""Of these one runs at a time."""

BEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""A run is dead after twelve beats that did not come: a loaded machine, or a database that is briefly away, is not."""

KUBEFLOW = "kubeflow"
"""Member of a run's detail: the id of the run on Kubeflow that it is; runs of this machine have none."""

TURN = "runs"
"""The turn of those who begin or end a run: who looks for another's sees it."""


def alive(run: RunRow, now: float) -> bool:
    """Whether a run is under way at ``now`` (Unix seconds)."""
    last = max(run.started_at, float(run.detail.get("alive_at", 0.0)))
    return run.status == "running" and now - last < float(run.detail.get("silent_seconds", SILENT_SECONDS))


def updating(run: RunRow, now: float) -> bool:
    """Whether a run keeps the next update from starting: it is under way, and not merely at its reports."""
    return alive(run, now) and "reporting_at" not in run.detail


def begin(
    store: ControlStore, workload: str, pipeline: str, reason: str, actor: str, marks: Mapping[str, Any] | None = None
) -> str:
    """Record that a run starts; returns its id, ``<workload>-<number>``.

    ``marks``: what its detail has from the start. One that begins twice on Kubeflow, since its first step was started
    anew, has one row.

    1. Record silent runs as abandoned, in the ledger too.
    2. Refuse an update beside another.
    3. Insert the run, unless it is there.

    Raises:
        PipelineError: another update of the workload is under way.

    """
    marks = marks or {}

    def write(s: Session) -> str:
        now, known = store.clock(), marks.get(KUBEFLOW)
        mine = select(RunRow).where(RunRow.workload == workload)
        # Step 1
        _abandon_silent(s, workload, actor, now)
        if known and (found := _known_as(s, workload, known)):
            _go_on(s, found, now)
            return found.id
        # Step 2
        _one_at_a_time(s, workload, pipeline, now)
        # Step 3
        number = (s.scalar(select(func.count()).select_from(mine.subquery())) or 0) + 1
        run = RunRow(
            id=f"{workload}-{number}", workload=workload, pipeline=pipeline, reason=reason, actor=actor,
            started_at=now, status="running", detail={"alive_at": now, **marks},
        )  # fmt: skip
        s.add(run)
        return run.id

    return in_turn(store, write, TURN)


def claim(store: ControlStore, run_id: str, workload: str, pipeline: str, kubeflow: str) -> str:
    """Say that the run of this id, which was recorded before, is this one on Kubeflow; returns the id.

    Raises:
        PipelineError: there is no such run, it is another one there, or another update has begun since.

    """

    def write(s: Session) -> str:
        row = s.get(RunRow, run_id, with_for_update=True)
        if row is None or (row.workload, row.pipeline) != (workload, pipeline):
            raise PipelineError(pipeline, workload, f"there is no run {run_id} of it: leave with_run empty")
        if row.detail.get(KUBEFLOW, kubeflow) not in ("", kubeflow):
            raise PipelineError(pipeline, workload, f"run {run_id} is Kubeflow's {row.detail[KUBEFLOW]}, and no other")
        _go_on(s, row, store.clock())
        row.detail = {**row.detail, KUBEFLOW: kubeflow}
        return run_id

    return in_turn(store, write, TURN)


def on_kubeflow(store: ControlStore, workload: str, kubeflow: str) -> RunRow | None:
    """The workload's run that Kubeflow knows by this id; None where none was recorded."""
    with store.session() as s:
        return _known_as(s, workload, kubeflow)


def _known_as(s: Session, workload: str, kubeflow: str) -> RunRow | None:
    rows = s.scalars(select(RunRow).where(RunRow.workload == workload))
    return next((row for row in rows if row.detail.get(KUBEFLOW) == kubeflow), None)


def go_on(store: ControlStore, run_id: str) -> None:
    """Check that a run is under way, for one of its steps begins; one that was given up goes on if it may.

    A step that waited for its pod for too long finds its run abandoned, and one that a person starts anew finds it
    failed.

    Raises:
        PipelineError: there is no such run, it has ended, or another update has begun since.

    """

    def write(s: Session) -> None:
        row = s.get(RunRow, run_id, with_for_update=True)
        if row is None:
            raise PipelineError("run", run_id, "the control database has no such run")
        _go_on(s, row, store.clock())

    in_turn(store, write, TURN)


def _go_on(s: Session, row: RunRow, now: float) -> None:
    if row.status == "succeeded" and row.pipeline in UPDATES:  # an order that is given again orders nothing new
        raise PipelineError(row.pipeline, row.workload, f"run {row.id} has ended: start another one")
    if row.status != "running" and "reporting_at" not in row.detail:
        _one_at_a_time(s, row.workload, row.pipeline, now)
        _none_since(s, row)
    row.status, row.finished_at = "running", None
    row.detail = {**row.detail, "alive_at": now}


def _abandon_silent(s: Session, workload: str, actor: str, now: float) -> None:
    running = select(RunRow).where(RunRow.workload == workload, RunRow.status == "running")
    for run in s.scalars(running).all():
        if not alive(run, now):
            _end(s, run, now, "abandoned", {}, actor)


def _one_at_a_time(s: Session, workload: str, pipeline: str, now: float) -> None:
    running = select(RunRow).where(RunRow.workload == workload, RunRow.status == "running")
    busy = alive if pipeline in (FORGET, RETENTION) else updating  # reports draw what is to be forgotten
    for run in s.scalars(running).all() if pipeline in ALONE else ():
        if run.pipeline in ALONE and busy(run, now):
            raise PipelineError(pipeline, workload, f"run {run.id} ({run.pipeline}) is under way; one update at a time")


def _none_since(s: Session, row: RunRow) -> None:
    """Refuse to go on with a run after whose begin another one began, though it has ended.

    What the run had read then is not what there is now: rows of it may be forgotten.
    """
    mine = select(RunRow).where(RunRow.workload == row.workload, RunRow.id != row.id, RunRow.pipeline.in_(ALONE))
    later = s.scalars(mine.where(RunRow.started_at >= row.started_at).order_by(RunRow.started_at)).first()
    if later is not None and row.pipeline in ALONE:
        detail = f"run {later.id} ({later.pipeline}) has begun since {row.id} did: start another one"
        raise PipelineError(row.pipeline, row.workload, detail)


def end(store: ControlStore, run_id: str, status: str, detail: Mapping[str, Any], actor: str) -> bool:
    """Record how a run ended, with a line in the ledger; False where somebody has done so.

    ``detail`` is added to what the row has.
    """

    def write(s: Session) -> bool:
        row = s.get_one(RunRow, run_id, with_for_update=True)
        if row.status != "running":
            return False
        _end(s, row, store.clock(), status, detail, actor)
        return True

    return in_turn(store, write, TURN)


def _end(s: Session, row: RunRow, now: float, status: str, detail: Mapping[str, Any], actor: str) -> None:
    row.status, row.finished_at, row.detail = status, now, {**row.detail, **detail}
    did = {"run": row.id, "status": status, "reason": row.reason}
    chain(s, now, row.workload, actor, f"pipeline {row.pipeline}", did)
    s.flush()


def note(store: ControlStore, run_id: str, change: Mapping[str, Any]) -> None:
    """Add to the detail of a run that is under way; a mapping is added to the one that is there."""
    with store.transaction() as s:
        run = s.get(RunRow, run_id, with_for_update=True)
        if run is not None and run.status == "running":
            merged = {n: {**run.detail.get(n, {}), **v} if isinstance(v, Mapping) else v for n, v in change.items()}
            run.detail = {**run.detail, **merged}


def beat(store: ControlStore, run_id: str) -> None:
    """Say that a run is still under way."""
    note(store, run_id, {"alive_at": store.clock()})


def reporting(store: ControlStore, run_id: str) -> dict[str, float]:
    """Say that of a run only its reports are left, for which the next one need not wait; returns what says so."""
    marks = {"reporting_at": store.clock()}
    note(store, run_id, marks)
    return marks


def ended_at(run: RunRow) -> float | None:
    """When a run had done all but its reports (Unix seconds); None while it has not."""
    at = run.detail.get("reporting_at", run.finished_at)
    return None if at is None else float(at)


@contextmanager
def beating(store: ControlStore, run_id: str, seconds: float = BEAT_SECONDS) -> Iterator[None]:
    """Beat from a thread while the body runs; a database that is away is asked again at the next beat."""
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(seconds):
            try:
                beat(store, run_id)
            except SQLAlchemyError as error:
                log.warning("run %s: a beat was not written: %s", run_id, error)

    thread = threading.Thread(target=keep, name=f"heartbeat-{run_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
