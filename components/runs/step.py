"""The steps that make a run on Kubeflow known to the platform, and what each step between them tells of itself.

A run on this machine is recorded by who runs it (:mod:`pipelines.local`). On Kubeflow people and schedules start runs
too, so there the pipeline does it: its first step records the run, or refuses it beside another update; each step says
that it is at work and what came of it; the exit handler records the end. A run that is terminated has no exit handler:
its row falls silent, and after that the next update may begin.

The exit handler goes by what the steps have told, and not by the final status that Kubeflow gives it: the names of its
states differ between releases, and a DAG whose status is not refreshed yet still "runs".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from components.contracts.errors import ConfigError
from components.contracts.reference import parse
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.control import runs
from components.control.store import ControlStore
from components.control.workloads import pinned

__all__ = ["begin", "finish", "recorded", "step"]

LAST = "report"
"""The step with which an update is complete, and before which its student is made."""

ENDED = "it was ended before all of its steps were"

Say = Callable[[Any], None]
"""Takes what a step returns, as the run's row keeps it."""


def actor(settings: Settings) -> str:
    """Who runs what people start in Kubeflow, of whom the steps know nothing unless the setting names them."""
    return "kubeflow" if settings.actor == Settings.model_fields["actor"].default else settings.actor


def begin(spec_path: str, pipeline: str, reason: str, key: str, with_run: str) -> tuple[str, str]:
    """Record that an update starts; returns the run's id, and the spec that all of its steps are to work with.

    Of ``workload:NAME`` that is the version in force, by its digest; a path stays what it is. ``key``: Kubeflow's id of
    the run, by which a first step that is started anew finds its row; ``with_run``: the row, where it was recorded
    before the run was submitted.

    Raises:
        ConfigError: the key is no run's own.
        NotFoundError: no such workload is registered.
        PipelineError: another update is under way, or ``with_run`` names no run that this one may be.

    """
    settings, workload = Settings(), workload_of(spec_path)
    with closing(ControlStore.open(settings.control_url)) as store:
        source = pinned(spec_path, settings, store)
        if with_run:
            return runs.claim(store, with_run, workload, pipeline, _own(key)), source
        return runs.begin(store, workload, pipeline, reason, actor(settings), _marks(key, settings)), source


def workload_of(spec_path: str) -> str:
    """The workload's name: a reference has it, and a spec file."""
    reference = parse(spec_path)
    return load_spec(spec_path).name if reference is None else reference.workload


def finish(spec_path: str, key: str) -> str:
    """Record how an update ended: well, if its last step did; returns the status."""
    settings = Settings()
    with closing(ControlStore.open(settings.control_url)) as store:
        row = runs.on_kubeflow(store, workload_of(spec_path), _own(key))
        if row is None:
            return "never begun"
        status, failure = outcome(row.detail)
        runs.end(store, row.id, status, {"failure": failure}, row.actor)
    return status


def outcome(detail: dict[str, Any]) -> tuple[str, str]:
    """How an update ended whose row has this detail, and what failed (empty: nothing)."""
    done, failures = detail.get("done", {}), detail.get("failures", {})
    if LAST in done:
        return "succeeded", ""
    return "failed", next((f"{step}: {why}" for step, why in failures.items() if step not in done), ENDED)


@contextmanager
def step(run: str, name: str) -> Iterator[Say]:
    """Do a step of a recorded run: say that it is at work, and what came of it. Without a ``run`` nothing is said.

    1. Check that the run is under way: of one that was given up, and beside which another has begun, no step is done.
    2. Beat while the step is at work.
    3. Note its output, or why it failed; whether it is tried again is Kubeflow's to say.

    Raises:
        PipelineError: the run has ended, or another update has begun since it was given up.

    """
    if not run:
        yield lambda value: None
        return
    with closing(ControlStore.open(Settings().control_url)) as store:
        # Step 1
        runs.go_on(store, run)
        if name == LAST:
            runs.reporting(store, run)
        said: dict[str, Any] = {}
        try:
            # Step 2
            with runs.beating(store, run):
                yield lambda value: said.update({name: value})
        except Exception as error:
            # Step 3
            runs.note(store, run, {"failures": {name: f"{type(error).__name__}: {error}"}})
            raise
        runs.note(store, run, {"outputs": said, "done": {name: store.clock()}})


@contextmanager
def recorded(spec_path: str, pipeline: str, reason: str, key: str) -> Iterator[Say]:
    """Do the one step of an order as a run of its own; without a ``key`` nothing is recorded.

    Nothing is, too, where orders go to an admin API: the steps may know no control database then, and the API has the
    order in the ledger.
    """
    settings = Settings()
    if not key or settings.admin_url:
        yield lambda value: None
        return
    said: dict[str, Any] = {}
    with closing(ControlStore.open(settings.control_url)) as store:
        run = runs.begin(store, workload_of(spec_path), pipeline, reason, actor(settings), _marks(key, settings))
        status, failure = "failed", ENDED
        try:
            with runs.beating(store, run):
                yield lambda value: said.update({pipeline: value})
            status, failure = "succeeded", ""
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
            raise
        finally:
            runs.end(store, run, status, {"failure": failure, "outputs": said}, actor(settings))


def _marks(key: str, settings: Settings) -> dict[str, Any]:
    return {runs.KUBEFLOW: _own(key), "silent_seconds": settings.kfp_silent_seconds}


def _own(key: str) -> str:
    if "{{" in key or not key:  # a placeholder that was not filled in is the same for all runs
        raise ConfigError("key", key, "must be Kubeflow's id of the run: with one key for all they would be one")
    return key
