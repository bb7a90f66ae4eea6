"""Runs in the control database: one update at a time for each workload, over all processes and machines.

A run that is under way says so by a heartbeat. One that has gone silent lost its process: it is recorded as abandoned
and no longer keeps others from starting. Orders (``promote``, ``rollback``) may run at any time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from components.contracts.errors import PipelineError
from components.control.store import ControlStore
from components.control.tables import RunRow

UPDATES = ("bootstrap", "continual", "data-free")
"""The pipelines that make students, of which one runs at a time."""

FORGET = "forget"
"""What keeps updates from starting while an entity is forgotten: it is recorded as a run."""

ALONE = (*UPDATES, FORGET)
"""Of these one runs at a time."""

BEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""A run is dead after twelve beats that did not come: a loaded machine, or a database that is briefly away, is not."""

ATTEMPTS = 5


def alive(run: RunRow, now: float) -> bool:
    """Whether a run is under way at ``now`` (Unix seconds)."""
    last = max(run.started_at, float(run.detail.get("alive_at", 0.0)))
    return run.status == "running" and now - last < SILENT_SECONDS


def updating(run: RunRow, now: float) -> bool:
    """Whether a run keeps the next update from starting: it is under way, and not merely at its reports."""
    return alive(run, now) and "reporting_at" not in run.detail


def begin(store: ControlStore, workload: str, pipeline: str, reason: str, actor: str) -> str:
    """Record that a run starts; returns its id, ``<workload>-<number>``.

    1. Record silent runs as abandoned.
    2. Refuse an update beside another.
    3. Insert the run. Of two that saw the same last number, the database takes one; the other begins anew at step 1.

    Raises:
        PipelineError: another update of the workload is under way.

    """
    for _ in range(ATTEMPTS):
        try:
            with store.transaction() as s:
                now = store.clock()
                mine = select(RunRow).where(RunRow.workload == workload)
                for run in s.scalars(mine.where(RunRow.status == "running")):
                    # Step 1
                    if not alive(run, now):
                        run.status, run.finished_at = "abandoned", now
                    # Step 2
                    elif pipeline in ALONE and run.pipeline in ALONE and updating(run, now):
                        raise PipelineError(
                            pipeline, workload, f"run {run.id} ({run.pipeline}) is under way; one update at a time"
                        )
                # Step 3
                number = (s.scalar(select(func.count()).select_from(mine.subquery())) or 0) + 1
                run = RunRow(
                    id=f"{workload}-{number}", workload=workload, pipeline=pipeline, reason=reason, actor=actor,
                    started_at=now, status="running", detail={"alive_at": now},
                )  # fmt: skip
                s.add(run)
            return f"{workload}-{number}"
        except IntegrityError:
            continue
    raise PipelineError(pipeline, workload, f"{ATTEMPTS} other runs were always faster; try again")


def beat(store: ControlStore, run_id: str) -> None:
    """Say that a run is still under way."""
    with store.transaction() as s:
        run = s.get(RunRow, run_id, with_for_update=True)
        if run is not None and run.status == "running":
            run.detail = {**run.detail, "alive_at": store.clock()}


def reporting(store: ControlStore, run_id: str) -> dict[str, float]:
    """Say that of a run only its reports are left, for which the next one need not wait; returns what says so."""
    marks = {"reporting_at": store.clock()}
    with store.transaction() as s:
        run = s.get(RunRow, run_id, with_for_update=True)
        if run is not None and run.status == "running":
            run.detail = {**run.detail, **marks}
    return marks


def ended_at(run: RunRow) -> float | None:
    """When a run had done all but its reports (Unix seconds); None while it has not."""
    at = run.detail.get("reporting_at", run.finished_at)
    return None if at is None else float(at)


@contextmanager
def beating(store: ControlStore, run_id: str, seconds: float = BEAT_SECONDS) -> Iterator[None]:
    """Beat from a thread while the body runs."""
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(seconds):
            beat(store, run_id)

    thread = threading.Thread(target=keep, name=f"heartbeat-{run_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
