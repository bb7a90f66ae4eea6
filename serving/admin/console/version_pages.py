"""The routes of a workload's versions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from starlette.responses import Response

from components.contracts.errors import ArtifactError
from components.contracts.storage import get_bytes
from components.control.tokens import allows
from components.registry.registry import VersionInfo
from serving.admin.console.console import Console
from serving.admin.console.versions import compared, newest_first, version_view
from serving.admin.console.web import session_of
from serving.admin.problems import Refused

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Number = Annotated[str, Path(pattern=r"^[1-9][0-9]{0,8}$")]
Chosen = Annotated[str, Query(pattern=r"^[1-9][0-9]{0,8}$")]
Report = Annotated[str, Path(pattern="^(quality|drift)$")]

REPORT_HEADERS = {
    "content-security-policy": (
        "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; frame-ancestors 'self'"
    ),
    "x-frame-options": "SAMEORIGIN",
}
"""A report is a page of its own with scripts in it. It gets an origin of its own, which has no session and reaches
nothing, and is shown inside the console's pages alone."""


def add(app: FastAPI, console: Console) -> None:
    """Add the routes."""
    registry = console.needs.registry

    def page(request: Request, template: str, workload: str, values: dict[str, Any]) -> Response:
        common = {"workload": workload, "sub": "/versions", "operates": _operates(request)}
        return console.page(request, template, {**common, **values})

    def report_of(workload: str, info: VersionInfo, name: str) -> bytes:
        folder = f"{info.ref.digest}-{(info.snapshots[0] if info.snapshots else '')[:12]}"
        uri = f"{console.settings.artifacts}/{workload}/reports/{folder}/{name}.html"
        try:
            return get_bytes(uri)
        except ArtifactError as error:
            raise Refused(404, "not_found", f"version {info.version} has no {name} report: {error}") from error

    @app.get("/w/{workload}/versions")
    def versions(request: Request, workload: Name) -> Response:
        """All versions, newest first."""
        console.needs.require(workload)
        ours, foreign = registry.sorted_out(workload)
        return page(request, "versions.html", workload, {"versions": newest_first(ours), "foreign": foreign})

    @app.get("/w/{workload}/versions/{version}")
    def version(request: Request, workload: Name, version: Number) -> Response:
        """One version: its lineage, its verdict with the numbers, its rollouts and reports."""
        console.needs.require(workload)
        info, verdict = registry.info(workload, version), registry.verdict(workload, version)
        view = version_view(console.store, info, verdict, workload)
        return page(request, "version.html", workload, {"view": view})

    @app.get("/w/{workload}/compare")
    def compare(request: Request, workload: Name, a: Chosen, b: Chosen) -> Response:
        """Two versions side by side."""
        console.needs.require(workload)
        first, second = registry.info(workload, a), registry.info(workload, b)
        lineage, measures = compared(first, second)
        values = {"first": first, "second": second, "lineage": lineage, "measures": measures}
        return page(request, "compare.html", workload, values)

    @app.get("/w/{workload}/versions/{version}/{report}")
    def report_page(request: Request, workload: Name, version: Number, report: Report) -> Response:
        """A version's report inside a page of the console."""
        console.needs.require(workload)
        report_of(workload, registry.info(workload, version), report)
        return page(request, "report.html", workload, {"version": version, "report": report})

    @app.get("/w/{workload}/versions/{version}/{report}/content")
    def report_content(workload: Name, version: Number, report: Report) -> Response:
        """A version's report as it was written."""
        console.needs.require(workload)
        data = report_of(workload, registry.info(workload, version), report)
        return Response(data, media_type="text/html; charset=utf-8", headers=REPORT_HEADERS)


def _operates(request: Request) -> bool:
    return allows(session_of(request).identity.role, "operator")
