"""The routes of pipeline runs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Path, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from components.contracts.errors import ConfigError, NotFoundError, PipelineError
from components.control.order_client import REASON_CHARACTERS
from components.control.tokens import allows
from serving.admin.console.console import Console
from serving.admin.console.runs import log_tail, recent, run_of, steps_of
from serving.admin.console.web import ROOT, checked_form, session_of
from serving.admin.dependencies import caller, require_role
from serving.admin.problems import Refused

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]

WHAT = {
    "data-free": "Make inputs up against the teacher, and distil a student of them that real ones must judge.",
    "bootstrap": "Label a history, distil two students of it, and register the better one if the gate lets it.",
    "continual": "Freeze the new labels, train from the champion with replay, and register the student if it passes.",
    "promote": "Start the rollout of a registered version.",
    "rollback": "Make the previous champion, or the version that is named, serve again.",
}
"""What each pipeline does, in words."""

HELP = {
    "history_uri": "URI or path of the history, on the platform's machine",
    "first_variant": "empty: the spec's first",
    "second_variant": "empty: the spec's last",
    "version": "the registered version",
    "to": "empty: the previous champion",
}
"""What a parameter means; the others of a pipeline are not asked for."""


def add(app: FastAPI, console: Console) -> None:
    """Add the routes."""
    store, home = console.store, console.settings.home

    @app.get("/runs")
    def all_runs(request: Request) -> Response:
        """The newest runs of all workloads."""
        values = {"runs": recent(store), "here": "/runs", "kfp": _kfp(console)}
        return console.page(request, "runs.html", values)

    def runs_page(
        request: Request, workload: str, *, status: int = 200, problem: str = "", given: dict[str, str] | None = None
    ) -> Response:
        starts = console.pipelines is not None and allows(session_of(request).identity.role, "operator")
        parameters = console.pipelines.parameters if console.pipelines is not None and starts else {}
        values: dict[str, Any] = {
            "workload": workload, "runs": recent(store, workload), "sub": "/runs", "problem": problem,
            "given": given or {}, "kfp": _kfp(console), "what": WHAT, "help": HELP,
            "reason_characters": REASON_CHARACTERS,
            "parameters": {name: [n for n in names if n in HELP] for name, names in parameters.items()},
            "forcible": {name for name, names in parameters.items() if "force" in names},
        }  # fmt: skip
        return console.page(request, "workload_runs.html", values, status=status)

    @app.get("/w/{workload}/runs")
    def workload_runs(request: Request, workload: Name) -> Response:
        """A workload's runs, and the forms to start one."""
        console.needs.require(workload)
        return runs_page(request, workload)

    @app.get("/w/{workload}/runs/{run}")
    def run_page(request: Request, workload: Name, run: Id) -> Response:
        """A run with its steps, and its log as it grows; for a script the changing part alone."""
        console.needs.require(workload)
        found = run_of(store, workload, run)
        if found is None:
            raise Refused(404, "not_found", f"{workload} had no run {run}")
        values = {
            "workload": workload, "sub": "/runs", "run": found, "steps": steps_of(home, found),
            "log": log_tail(home, found),
        }  # fmt: skip
        return console.page(request, "_run.html" if request.headers.get("hx-request") else "run.html", values)

    @app.post("/w/{workload}/runs/start/{pipeline}")
    async def start(request: Request, workload: Name, pipeline: Name) -> Response:
        """Start a run."""
        given = await checked_form(request)
        console.limit(session_of(request))
        reason = given.pop("reason", "").strip()

        def begin() -> None:
            require_role(request, "operator")
            console.needs.require(workload)
            if console.pipelines is None:
                raise Refused(404, "not_found", "no pipelines are started from here")
            if given.get("force"):
                require_role(request, "admin")
            if not 1 <= len(reason) <= REASON_CHARACTERS:
                raise ConfigError("reason", reason[:40], f"must say why in 1 to {REASON_CHARACTERS} characters")
            told = {name: value for name, value in given.items() if value}
            console.pipelines.start(workload, pipeline, told, reason, caller(request).actor)

        try:
            await run_in_threadpool(begin)
        except (ConfigError, NotFoundError, PipelineError) as error:
            status = 409 if isinstance(error, PipelineError) else 422
            again, said = {**given, "reason": reason, "pipeline": pipeline}, str(error)
            return await run_in_threadpool(
                lambda: runs_page(request, workload, status=status, problem=said, given=again)
            )
        return RedirectResponse(f"{ROOT}/w/{workload}/runs", status_code=303)


def _kfp(console: Console) -> str:
    """The Kubeflow host's page of runs, where the settings name a host."""
    host = console.settings.kfp_host.rstrip("/")
    return f"{host}/#/runs" if host.startswith(("http://", "https://")) else ""
