"""What Ray is told by its environment, and how Ray reads it."""

import os
import subprocess
import sys

from components.contracts.settings import Settings
from serving.ray_environment import (
    DRAIN_SECONDS,
    PROXY_CHECK_SECONDS,
    PROXY_START_SECONDS,
    QUIET,
    REPLICA_PORTS,
    environment,
)


def test_the_environment_puts_haproxy_in_front_on_ports_of_its_own():
    here, there = (environment(Settings(gateway_port=port)) for port in (8400, 9400))
    assert here["RAY_SERVE_ENABLE_HA_PROXY"] == "1" and here["RAY_USAGE_STATS_ENABLED"] == "0"
    shared = {"RAY_SERVE_HAPROXY_RETRY_ON", "RAY_SERVE_HAPROXY_METRICS_ENABLED"}
    apart = [n for n in here if n.startswith(("RAY_SERVE_HAPROXY_", "RAY_SERVE_FALLBACK_")) and n not in shared]
    assert "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT" in apart, "else it would be every cluster's on the machine"
    assert apart and all(here[n] != there[n] for n in apart)


def test_replicas_of_platforms_on_one_machine_begin_at_ports_of_their_own():
    """So that no HAProxy sends what it still means for one that has ended to a replica of somebody else."""
    names = [f"RAY_SERVE_DIRECT_INGRESS_{which}_HTTP_PORT" for which in ("MIN", "MAX")]
    given = [environment(Settings(gateway_port=port)) for port in range(8400, 8400 + 10 * len(REPLICA_PORTS), 10)]
    ports = sorted(tuple(int(variables[name]) for name in names) for variables in given)
    firsts = [first for first, _ in ports]
    assert firsts == list(REPLICA_PORTS) and all(last == first + 1000 for first, last in ports)
    assert ports[-1][1] < 32_768, "Linux's own begin there"


def test_ray_reads_the_settings_of_its_ports_its_checks_of_the_proxy_and_how_long_a_replica_stays_open():
    """Ray's own names: one that it does not know would change nothing, and nobody would notice."""
    settings = Settings(gateway_port=8470)
    given = QUIET | environment(settings)
    first, last = (f"RAY_SERVE_DIRECT_INGRESS_{which}_HTTP_PORT" for which in ("MIN", "MAX"))
    names = (
        "PROXY_HEALTH_CHECK_PERIOD_S", "PROXY_READY_CHECK_TIMEOUT_S", "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", first, last,
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S",
    )  # fmt: skip
    code = f"from ray.serve._private import constants as c; print({', '.join(f'c.{name}' for name in names)})"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | given, capture_output=True, text=True, check=True
    )
    *checked, port, lowest, highest, drains = map(float, done.stdout.split())
    assert port == settings.haproxy_ports[0]
    assert [lowest, highest] == [float(given[name]) for name in (first, last)]
    assert checked == [PROXY_CHECK_SECONDS, PROXY_START_SECONDS] and drains == float(DRAIN_SECONDS) == 1.0


def test_without_haproxy_it_warns_and_goes_on(monkeypatch, caplog):
    monkeypatch.setattr("serving.ray_environment._haproxy", lambda: False)
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in environment(Settings())
    assert "ten times fewer" in caplog.text
