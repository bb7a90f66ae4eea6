"""The short way to an answer: from a replica's HTTP server to the gateway, past what Ray Serve does for each request.

Ray's own part (contexts, a task that waits for the client to go, counters, a log line) takes longer than an answer. It
lets the application put middleware before it (``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``): :func:`middlewares` is
what a replica's environment names. Requests for predictions are answered there; everything else goes Ray's way.

What Ray would do for them the gateway does itself: bounds on the requests under way (:mod:`serving.gateway.pressure`),
metrics, traces, and errors as answers. A replica that Ray stops finishes them, since its server waits for what it has
begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

_ANSWERERS: dict[str, ASGIApp] = {}
"""Who answers a POST to a path, in this process: a replica is of one workload."""


def answer(path: str, by: ASGIApp) -> None:
    """From now on a POST to ``path`` (with the workload's prefix) is answered ``by`` this application."""
    _ANSWERERS[path] = by


def forget(path: str) -> None:
    """From now on Ray answers what comes to ``path``."""
    _ANSWERERS.pop(path, None)


class Shortcut:
    """ASGI middleware: what has an answerer of its own goes there, everything else to ``app``."""

    def __init__(self, app: ASGIApp, answerers: Mapping[str, ASGIApp]) -> None:
        self._app, self._answerers = app, answerers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            by = self._answerers.get(scope["path"])
            if by is not None:
                await by(scope, receive, send)
                return
        await self._app(scope, receive, send)


def middlewares() -> list[Any]:
    """What Ray Serve puts before a replica's application."""
    from starlette.middleware import Middleware

    return [Middleware(Shortcut, answerers=_ANSWERERS)]
