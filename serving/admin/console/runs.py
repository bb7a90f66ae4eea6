"""Pipeline runs: which there were, how far each is, what it says, and how one is started.

Serving knows no pipelines: whoever serves the console gives it what starts them (:class:`Pipelines`). What it shows is
what a run leaves: its row, its log, and one file for each step that has ended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
from sqlalchemy import select

from components.contracts.spec import Spec
from components.control.runs import alive
from components.control.store import ControlStore
from components.control.tables import RunRow

MOST = 100
"""Runs that a page lists."""

TAIL_BYTES = 32 * 1024
"""How much of a log's end is shown."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Pipelines(Protocol):
    """What starts pipelines."""

    @property
    def parameters(self) -> Mapping[str, tuple[str, ...]]:
        """The pipelines' names, each with its parameters."""

    def spec(self, workload: str) -> Spec:
        """The spec that a workload works with.

        Raises:
            NotFoundError: there is none in force.

        """

    def start(self, workload: str, pipeline: str, given: Mapping[str, str], reason: str, actor: str) -> None:
        """Start a run, and do not wait for it.

        Raises:
            ConfigError, NotFoundError: a parameter or the pipeline is wrong.
            PipelineError: a run that was started the same way is under way.

        """


class StepRun(msgspec.Struct, frozen=True, kw_only=True):
    """A step that has ended; steps run one after the other. ``output`` is what it returned, as text."""

    name: str
    seconds: float
    output: str


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run. ``status``: ``running``, ``silent``, ``succeeded``, ``failed`` or ``abandoned``."""

    id: str
    workload: str
    pipeline: str
    reason: str
    actor: str
    started_at: float
    finished_at: float | None
    seconds: float
    status: str
    detail: dict[str, Any]


def recent(store: ControlStore, workload: str | None = None) -> list[RunView]:
    """The newest runs, of one workload or of all."""
    query = select(RunRow).order_by(RunRow.started_at.desc()).limit(MOST)
    if workload is not None:
        query = query.where(RunRow.workload == workload)
    with store.session() as s:
        return [_view(row, store.clock()) for row in s.scalars(query)]


def run_of(store: ControlStore, workload: str, run: str) -> RunView | None:
    """One run; None where the workload has none with this id."""
    with store.session() as s:
        row = s.get(RunRow, run)
    return _view(row, store.clock()) if row is not None and row.workload == workload else None


def _view(row: RunRow, now: float) -> RunView:
    status = "silent" if row.status == "running" and not alive(row, now) else row.status
    return RunView(
        id=row.id, workload=row.workload, pipeline=row.pipeline, reason=row.reason, actor=row.actor,
        started_at=row.started_at, finished_at=row.finished_at,
        seconds=max(0.0, (row.finished_at or now) - row.started_at), status=status, detail=row.detail,
    )  # fmt: skip


def steps_of(home: Path, run: RunView) -> list[StepRun]:
    """The steps that have ended, in the order in which they did; none where the run was on another machine."""
    if not NAME.fullmatch(run.id):
        return []
    ended = sorted(
        (path.stat().st_mtime, path.parent.name, path)
        for path in (home / "pipelines" / run.id).glob("*/*/executor_output.json")
    )
    found, before = [], run.started_at
    for at, name, path in ended:
        found.append(StepRun(name=name, seconds=max(0.0, at - before), output=_output(path)))
        before = at
    return found


def _output(path: Path) -> str:
    try:
        value = msgspec.json.decode(path.read_bytes()).get("parameterValues", {}).get("Output", "")
    except (msgspec.DecodeError, OSError, AttributeError):
        return ""
    return str(value)[:200]


def log_tail(home: Path, run: RunView) -> str | None:
    """The end of a run's log; None where there is none on this machine."""
    if not (NAME.fullmatch(run.id) and NAME.fullmatch(run.pipeline)):
        return None
    try:
        with (home / "logs" / f"{run.id}-{run.pipeline}.log").open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return None
    return text.partition("\n")[2] if size > TAIL_BYTES else text
