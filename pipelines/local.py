"""Running a pipeline on this machine by Kubeflow's local runner: each component in a process of this environment."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from components.contracts.errors import ConfigError, PipelineError
from components.contracts.reference import parse
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec
from components.control.runs import UPDATES, beating, begin, reporting
from components.control.store import ControlStore
from components.control.workloads import apply, opened, pinned, registered
from components.ledger.ledger import append
from pipelines.outcome import Outcome, outcome
from pipelines.parameters import arguments
from pipelines.run_log import RunLog
from pipelines.steps import REPORT, steps_of

ERROR = re.compile(r"^\s*((?:[\w.]*Error|[\w.]*Exception): .+)$")
"""The last line of a traceback, as a component's log has it."""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """One finished run.

    ``outputs``: what each step returned, by its name (``snapshot``, ``evaluate``, ``register``, …); ``log``: the file
    with its components' output; ``outcome``: of an update, the student or why there is none.
    """

    run: str
    pipeline: str
    status: str
    seconds: float
    log: str
    outputs: dict[str, Any] = {}
    detail: dict[str, Any] = {}
    outcome: Outcome | None = None


def run_local(name: str, spec_path: str, given: Mapping[str, str], *, reason: str, settings: Settings) -> RunResult:
    """Run a pipeline and wait for it; the run is recorded in the control database and the ledger.

    A spec file is made a version of the workload, so that every step reads the same, on whatever host; it is put in
    force only where none is. Of a reference without a digest the version in force is taken.

    1. Record that the run starts, and keep its heartbeat going.
    2. Run it; all output of its components goes to a log file.
    3. Record how it ended.

    Raises:
        ConfigError, NotFoundError: see :func:`pipelines.parameters.arguments`.
        PipelineError: a component failed (the message names its error and the log), or another update is under way.

    """
    if "with_run" in given:
        raise ConfigError(
            "param with_run", given["with_run"], "is for runs on Kubeflow: here each has a row of its own"
        )
    with contextlib.closing(ControlStore.open(settings.control_url)) as store:
        source = pinned(spec_path, settings, store)
        made = arguments(name, source, given, reason)
        spec, home = _registered(source, name, store, settings), settings.home.resolve()
        made["spec"] = spec.source
        # Step 1
        run = begin(store, spec.name, name, reason, settings.actor)
        log, started = home / "logs" / f"{run}-{name}.log", store.clock()
        log.parent.mkdir(parents=True, exist_ok=True)
        status, failure, outputs = "failed", "it was ended", {}
        marks: dict[str, float] = {}
        try:
            # Step 2
            def begins(step: str) -> None:
                if step == REPORT:
                    marks.update(reporting(store, run))

            everything = settings.log_level == "DEBUG"
            with beating(store, run), steps_of(home, begins):
                outputs = _run(name, made, home / "pipelines" / run, log, everything=everything)
            status, failure = "succeeded", ""
        except RuntimeError as error:  # what Kubeflow's runner raises for a failed component
            failure = last_error(log) or str(error)
        finally:
            # Step 3
            detail = {"log": str(log), "failure": failure, "arguments": made, "outputs": outputs, **marks}
            store.finish_run(run, status, detail)
            did = {"run": run, "status": status, "reason": reason}
            append(store, spec.name, settings.actor, f"pipeline {name}", did)
        seconds = store.clock() - started
        serves = store.intent(spec.name)[1].champion is not None
    if status != "succeeded":
        raise PipelineError(name, spec.name, f"{failure}; see {log}")
    return RunResult(
        run=run, pipeline=name, status=status, seconds=seconds, log=str(log), outputs=outputs, detail=detail,
        outcome=outcome(home / "pipelines" / run, outputs, spec.student.holdout_share, serves=serves),
    )  # fmt: skip


def _registered(source: str, pipeline: str, store: ControlStore, settings: Settings) -> Spec:
    """The spec of a reference; of a file that a student is made by, as the version of the workload that it becomes."""
    if parse(source) is not None or pipeline not in UPDATES:
        return load_spec(source, settings)
    spec, bundle = opened(source, settings)
    reason, known = f"a run of {pipeline}", bool(registered(store, [spec.name]))
    made = apply(store, bundle, spec, actor=settings.actor, reason=reason, in_force=False)
    if not known:  # the first version of a workload is in force, whoever made it
        detail = {"version": made.number, "before": None, "digest": made.digest, "reason": reason}
        append(store, spec.name, settings.actor, "apply workload", detail)
    return spec


def last_error(log: Path) -> str:
    """The last error that a component's traceback in a log file ends with; empty where there is none."""
    found = ""
    with log.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if matched := ERROR.match(line):
                found = matched.group(1)
    return found


def _run(name: str, made: Mapping[str, Any], root: Path, log: Path, *, everything: bool) -> dict[str, Any]:
    with _output_to(log, everything=everything), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kfp warns of our base image on every step, and of its own internals
        from kfp import local

        from pipelines.dags import on_this_machine

        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
        on_this_machine(name)(**made)
    return step_outputs(root)


def step_outputs(root: Path) -> dict[str, Any]:
    """What each step of a run returned, from the files that Kubeflow's executor leaves under the pipeline root."""
    found = {}
    for path in sorted(root.glob("*/*/executor_output.json")):
        values = json.loads(path.read_text()).get("parameterValues", {})
        if "Output" in values:
            found[path.parent.name] = values["Output"]
    return found


@contextlib.contextmanager
def _output_to(path: Path, *, everything: bool) -> Iterator[None]:
    """Send what is printed and logged to a file: what a person reads, or everything."""
    with path.open("a", encoding="utf-8") as file:
        shown = RunLog(file, everything=everything)
        handler = logging.StreamHandler(shown)
        root = logging.getLogger()
        before = root.handlers[:]
        root.handlers[:] = [handler]
        try:
            with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
                yield
        finally:
            root.handlers[:] = before
            shown.finish()
