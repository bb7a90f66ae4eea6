"""Running a pipeline on this machine by Kubeflow's local runner: each component in a process of this environment."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from components.contracts.errors import ConfigError, NotFoundError, UnavailableError
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.control.store import ControlStore

PARAMETERS = {
    "bootstrap": ("history_uri", "first_variant", "second_variant"),
    "continual": (),
    "promote": ("version", "reason", "key"),
    "rollback": ("reason", "to", "key"),
}
"""The parameters of each pipeline besides ``spec``."""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """One finished run. ``log``: the file with its components' output."""

    run: str
    pipeline: str
    status: str
    seconds: float
    log: str
    detail: dict[str, Any] = {}


def arguments(name: str, spec_path: str, given: Mapping[str, str], reason: str) -> dict[str, str]:
    """A pipeline's arguments: what was given, the variants of the spec, the reason, and a fresh idempotency key.

    Raises:
        NotFoundError: there is no such pipeline.
        ConfigError: a parameter is not the pipeline's.
    """
    if name not in PARAMETERS:
        raise NotFoundError("pipeline", name, f"there are {', '.join(PARAMETERS)}")
    if unknown := sorted(set(given) - set(PARAMETERS[name])):
        raise ConfigError("param", unknown, f"pipeline {name} takes {', '.join(PARAMETERS[name]) or 'none'}")
    spec = load_spec(spec_path)
    made = {"spec": spec.source, **given}
    if name == "bootstrap":
        variants = [v.name for v in spec.student.variants]
        made = {"first_variant": variants[0], "second_variant": variants[-1], **made}
    if "reason" in PARAMETERS[name]:
        made.setdefault("reason", reason)
    if "key" in PARAMETERS[name]:
        made.setdefault("key", uuid.uuid4().hex)
    return made


def run_local(name: str, spec_path: str, given: Mapping[str, str], *, reason: str, settings: Settings) -> RunResult:
    """Run a pipeline and wait for it; the run is recorded in the control database and the ledger.

    1. Record that the run starts.
    2. Run it; all output of its components goes to a log file.
    3. Record how it ended.

    Raises:
        UnavailableError: a component failed; the message names the log.
    """
    from components.ledger.ledger import append

    made = arguments(name, spec_path, given, reason)
    spec = load_spec(spec_path)
    store = ControlStore(settings.control_url)
    # Step 1
    run = store.start_run(spec.name, name, reason, settings.actor)
    log = settings.home.resolve() / "logs" / f"{run}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = store.clock()
    status, failure = "failed", ""
    try:
        # Step 2
        _run(name, made, settings.home.resolve() / "pipelines", log)
        status = "succeeded"
    except RuntimeError as error:
        failure = str(error)
    finally:
        # Step 3
        detail = {"log": str(log), "failure": failure, "arguments": made}
        store.finish_run(run, status, detail)
        append(store, spec.name, settings.actor, f"pipeline {name}", {"run": run, "status": status, "reason": reason})
    seconds = store.clock() - started
    store.close()
    if status != "succeeded":
        raise UnavailableError(f"pipeline {name}", spec.name, f"{failure or 'a component failed'}; see {log}")
    return RunResult(run=run, pipeline=name, status=status, seconds=seconds, log=str(log), detail=detail)


def _run(name: str, made: Mapping[str, str], root: Path, log: Path) -> None:
    from kfp import local

    from pipelines.dags import PIPELINES

    with _output_to(log):
        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
        PIPELINES[name](**made)


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send everything printed and logged to a file."""
    with path.open("a", encoding="utf-8") as file:
        handler = logging.StreamHandler(file)
        root = logging.getLogger()
        before = root.handlers[:]
        root.handlers[:] = [handler]
        try:
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield
        finally:
            root.handlers[:] = before
