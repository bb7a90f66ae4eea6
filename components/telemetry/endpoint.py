"""Where a worker answers: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz`` for whoever looks after it.

Each worker takes a free port and names it in ``<home>/metrics/<name>.json``, in the form that Prometheus's
file-based service discovery reads: one ``file_sd_configs`` entry for ``<home>/metrics/*.json`` finds all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Gauge, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, ThreadingWSGIServer, generate_latest

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.telemetry.announced import announced as announced

STALL_SECONDS = 300.0
"""A loop that made no turn for so long counts as dead: more than a slow teacher's call with all its retries takes."""


class Health:
    """What a worker says of itself. Safe to use from several threads.

    A worker that beats once must go on to beat: after :data:`STALL_SECONDS` without one it is no longer healthy.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat: float | None = None
        self._waiting: str | None = "starting"

    def beat(self) -> None:
        """Say that the loop made a turn."""
        self._beat = self._clock()

    def ready(self) -> None:
        """Say that work is being taken."""
        self._waiting = None

    def not_ready(self, reason: str) -> None:
        """Say why no work is taken: ``draining``, ``teacher away``."""
        self._waiting = reason

    @property
    def stalled(self) -> str | None:
        """Why the worker should be restarted; None while it is well."""
        silent = 0.0 if self._beat is None else self._clock() - self._beat
        return f"no turn of the loop for {silent:.0f} s" if silent > STALL_SECONDS else None

    @property
    def waiting(self) -> str | None:
        """Why the worker takes no work; None while it does."""
        return self._waiting


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log no request: Prometheus asks every few seconds."""


StartResponse = Callable[[str, list[tuple[str, str]]], object]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


def application(registry: CollectorRegistry, health: Health) -> Application:
    """The WSGI application of the three paths."""
    Gauge("cohobate_ready", "1 while the worker takes work.", registry=registry).set_function(
        lambda: float(health.waiting is None)
    )

    def answer(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        path, kind = environ["PATH_INFO"], "text/plain; charset=utf-8"
        if path == "/metrics":
            status, body, kind = "200 OK", generate_latest(registry), CONTENT_TYPE_LATEST
        elif path in ("/healthz", "/readyz"):
            why = health.stalled if path == "/healthz" else health.stalled or health.waiting
            status, body = ("503 Service Unavailable", why.encode()) if why else ("200 OK", b"ok")
        else:
            status, body = "404 Not Found", b"/metrics, /healthz, /readyz"
        start(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    return answer


@contextlib.contextmanager
def exposed(settings: Settings, role: str, workload: str, registry: CollectorRegistry, health: Health) -> Iterator[str]:
    """Answer while the block runs; gives the address, ``host:port``, empty where the settings want none.

    Raises:
        ConfigError: the port is taken, or the host is none of this machine's.

    """
    if not settings.metrics_host:
        yield ""
        return
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    server = _listen(settings, application(registry, health))
    address = f"{settings.metrics_host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    target = settings.home / "metrics" / f"{workload}-{role}-{os.getpid()}.json"
    _announce(target, address, {"workload": workload, "role": role, "pid": str(os.getpid())})
    try:
        yield address
    finally:
        target.unlink(missing_ok=True)
        server.shutdown()
        server.server_close()
        thread.join()


def _listen(settings: Settings, app: Application) -> WSGIServer:
    host, port = settings.metrics_host, settings.metrics_port
    try:
        return make_server(host, port, app, ThreadingWSGIServer, _Quiet)
    except OSError as error:
        allowed = f"must be free at COHOBATE_METRICS_HOST={host} ({error.strerror}); 0 takes any free port"
        raise ConfigError("COHOBATE_METRICS_PORT", port, allowed) from error


def _announce(path: Path, address: str, labels: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(json.dumps([{"targets": [address], "labels": labels}]))
    path.with_suffix(".tmp").replace(path)
