"""Updates that a trigger runs on Kubeflow: submitted once, watched, and recorded as those of this machine are.

What is known of them is in the control database, so a trigger that dies and is started again goes on with them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from components.contracts.errors import CohobateError, ConfigError, PipelineError, UnavailableError
from components.contracts.settings import Settings
from components.control.runs import KUBEFLOW, beat, begin, claim, end
from components.control.store import ControlStore
from components.control.tables import RunRow
from pipelines.compiled import compiled
from pipelines.kubeflow_api import Kubeflow, connect
from pipelines.placing import experiment_of
from pipelines.remote import arguments_there, run_name, submit

log = logging.getLogger(__name__)

ASK_SECONDS = 5.0
"""How often Kubeflow is asked what became of a run."""

OVER = {"SUCCEEDED": "succeeded", "SKIPPED": "failed", "FAILED": "failed", "CANCELED": "failed"}
"""The states of Kubeflow (v2beta1RuntimeState) in which a run has ended, and what that is in the control database."""

NAME = "continual"
"""The pipeline that makes an update."""


class KubeflowUpdates:
    """Submits a workload's updates, and tends those of its runs that are on Kubeflow, whoever started them.

    A run is never submitted twice:

    1. Its row is written.
    2. A run of its name, which has the row's id and time in it, is looked for there; where there is none it is
       submitted.
    3. Kubeflow's id of it is noted in the row.

    Whoever dies between two steps finds a row without an id, and goes on at step 2. Should a request have been on its
    way for so long that step 2 did not see what came of it, then two runs are there, and the first step of the second
    one refuses it: the row is claimed already (:func:`components.control.runs.claim`).
    """

    def __init__(
        self, workload: str, store: ControlStore, settings: Settings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.workload, self.store, self._settings, self._clock = workload, store, settings, clock
        self._asked = float("-inf")

    def check(self, source: str) -> None:
        """Check that updates with a spec from this ``source`` can be submitted, as far as settings tell.

        Raises:
            ConfigError: a setting is missing or wrong.

        """
        compiled(NAME, self._settings)
        arguments_there(NAME, source, {}, "", self._settings)
        if not self._settings.kfp_host:
            raise ConfigError(
                "COHOBATE_KFP_HOST", "", "COHOBATE_UPDATES=kfp runs updates there: set it to the URL of its API"
            )

    def start(self, source: str, reason: str) -> str:
        """Record an update and submit it; returns the run's id. ``source``: of the spec that it is to work with.

        Where Kubeflow does not answer, it is submitted when it does (:meth:`tend`).

        Raises:
            PipelineError: another update is under way.
            ConfigError, RefusedError, AccessError: it cannot be submitted, and is recorded as failed.

        """
        made = arguments_there(NAME, source, {}, reason, self._settings)
        marks = {KUBEFLOW: "", "silent_seconds": self._settings.kfp_silent_seconds, "arguments": made}
        run = begin(self.store, self.workload, NAME, reason, self._settings.actor, marks)
        self._asked = float("-inf")
        try:
            self.tend()
        except CohobateError as error:
            row = next(r for r in self.store.runs(self.workload) if r.id == run)
            if not row.detail[KUBEFLOW]:
                self._end(row, "failed", str(error))
            raise
        return run

    def tend(self) -> None:
        """Ask Kubeflow, at most every :data:`ASK_SECONDS`, for the runs that are under way there.

        One that goes on stays alive; one that ended without its exit handler (it was terminated, say) is recorded.
        What is not submitted yet is submitted. A Kubeflow that does not answer is asked again.
        """
        rows = [r for r in self.store.runs(self.workload) if r.status == "running" and KUBEFLOW in r.detail]
        if not rows or self._clock() - self._asked < ASK_SECONDS:
            return
        self._asked = self._clock()
        try:
            with connect(self._settings) as server:
                for row in rows:
                    self._tend(server, row)
        except UnavailableError as error:
            log.warning("%s: %s", self.workload, error)

    def _tend(self, server: Kubeflow, row: RunRow) -> None:
        known = str(row.detail[KUBEFLOW])
        if not known:
            self._submit(server, row)
            return
        found = server.find("GET", f"runs/{known}")
        if found is None:
            self._end(row, "failed", f"Kubeflow has no run {known} any more: it was deleted")
        elif (state := str(found.get("state", ""))) in OVER:
            said = found.get("error") or {}
            failure = "" if state == "SUCCEEDED" else said.get("message") or f"it is {state.lower()} on Kubeflow"
            self._end(row, OVER[state], failure)
        else:
            beat(self.store, row.id)

    def _submit(self, server: Kubeflow, row: RunRow) -> None:
        called = run_name(row.pipeline, row.id, row.reason, datetime.fromtimestamp(row.started_at, UTC))
        try:
            known = self._find(server, called) or self._send(server, row, called)
        except UnavailableError:
            beat(self.store, row.id)  # whether it was submitted is seen when Kubeflow answers again
            raise
        except CohobateError as error:
            self._end(row, "failed", str(error))
            raise PipelineError(row.pipeline, self.workload, f"run {row.id} was not submitted: {error}") from error
        claim(self.store, row.id, self.workload, row.pipeline, known)
        log.info("%s: run %s is %s on %s", self.workload, row.id, known, server.host)

    def _find(self, server: Kubeflow, called: str) -> str | None:
        """The id of the run of this name in the workload's experiment."""
        found = server.named("runs", "runs", called, {"experiment_id": experiment_of(server, self.workload)})
        return None if found is None else str(found["run_id"])

    def _send(self, server: Kubeflow, row: RunRow, called: str) -> str:
        made: Mapping[str, Any] = {**row.detail["arguments"], "with_run": row.id}
        package = compiled(row.pipeline, self._settings)
        return submit(
            server, package, made, workload=self.workload, reason=row.reason, settings=self._settings, called=called
        ).id

    def _end(self, row: RunRow, status: str, failure: str) -> None:
        """Record an end, unless the run's exit handler has."""
        end(self.store, row.id, status, {"failure": failure} if failure else {}, row.actor)
