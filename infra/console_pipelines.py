"""What starts pipelines for the console: each run is a process of its own, as the trigger's are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType

from components.contracts.errors import PipelineError
from components.contracts.settings import Settings
from components.contracts.spec import Spec
from infra.specs import in_force
from pipelines.parameters import PARAMETERS, arguments

END_SECONDS = 20.0
"""How long a run may take to end itself when the platform stops."""


class LocalPipelines:
    """Starts runs on this machine with the spec in force, and ends them when it is left."""

    parameters: Mapping[str, tuple[str, ...]] = PARAMETERS

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: dict[tuple[str, str], subprocess.Popen[bytes]] = {}

    def spec(self, workload: str) -> Spec:
        """The spec in force.

        Raises:
            NotFoundError: the platform was never started with such a workload.

        """
        return in_force(self._settings, workload)

    def start(self, workload: str, pipeline: str, given: Mapping[str, str], reason: str, actor: str) -> None:
        """Start a run, and do not wait for it; its output goes to ``<home>/logs/console-runs.log``.

        Raises:
            ConfigError, NotFoundError: see :func:`pipelines.parameters.arguments`.
            PipelineError: a run of this pipeline that was started here is under way.

        """
        spec = self.spec(workload)
        arguments(pipeline, spec.source, given, reason)
        before = self._running.get((workload, pipeline))
        if before is not None and before.poll() is None:
            raise PipelineError(pipeline, workload, "a run that was started from the console is under way")
        texts = [f"{name}={value}" for name, value in given.items()]
        env = {**os.environ, **self._settings.environment(), "COHOBATE_ACTOR": actor}
        logs = self._settings.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / "console-runs.log").open("ab") as log:
            self._running[workload, pipeline] = subprocess.Popen(
                [sys.executable, "-m", "pipelines.run", pipeline, spec.source, reason, *texts],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def __enter__(self) -> LocalPipelines:
        """Start nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still runs; it is recorded as failed."""
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        for process in self._running.values():
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
