"""Refusals: why a request was not carried out, as an error and as a problem document (RFC 9457)."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from components.contracts.errors import (
    ArtifactError,
    CohobateError,
    ConfigError,
    LedgerError,
    NotFoundError,
    TransitionError,
    UnavailableError,
)
from components.control.database import StaleRevisionError
from serving.gateway.wire import PROBLEM


class Refused(CohobateError):
    """A request that is not carried out. ``code`` is stable; ``more`` are further members of the problem document.

    ``silent``: one like it was recorded a moment ago, and this one is not.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        silent: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.more = status, code, detail, more
        self.headers, self.silent = headers or {}, silent

    def response(self) -> JSONResponse:
        """The problem document."""
        content = {"title": self.code, "status": self.status, "detail": self.detail, **self.more}
        return JSONResponse(content, status_code=self.status, headers=self.headers, media_type=PROBLEM)


CODES: dict[type[CohobateError], tuple[int, str]] = {
    ConfigError: (422, "invalid"),
    NotFoundError: (404, "not_found"),
    TransitionError: (409, "refused"),
    ArtifactError: (409, "refused"),
    LedgerError: (409, "ledger"),
    UnavailableError: (503, "unavailable"),
}


def refusal(error: CohobateError) -> Refused:
    """An error of ours as a refusal."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, StaleRevisionError):
        return Refused(409, "stale_revision", str(error), expected=error.expected, revision=error.found)
    status, code = next((c for kind, c in CODES.items() if isinstance(error, kind)), (500, "failed"))
    headers = {"Retry-After": "1"} if status == 503 else {}
    return Refused(status, code, str(error), headers=headers)


def database_away(error: Exception) -> Refused:
    """A control database that does not answer, as a refusal."""
    detail = f"the control database does not answer ({type(error).__name__}); try again with the same key"
    return Refused(503, "unavailable", detail, headers={"Retry-After": "1"})
