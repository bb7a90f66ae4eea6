"""kill -9 of what stands before a student, under load: a replica, and the proxy in front of both.

The Ray of its own is in a process of its own: one that a test process starts outlives pytest's warnings.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from typing import NamedTuple

import httpx
import msgspec
import psutil
import pytest

from components.telemetry.endpoint import announced
from serving.replica.split import to_candidate
from tests.ports import free_port, free_ports
from tests.waiting import wait_for

SERVER = """
import os, sys
from components.contracts.ray_access import access
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from serving.declaration import Workload, declared, serve_config
from serving.ray_cluster import deployed
from serving.ray_environment import QUIET, environment
from serving.ray_light import SETUP, import_serve
from tests.ray_start import init
settings = Settings()
os.environ.update(QUIET | access(settings, os.environ) | environment(settings))
import_serve()
import ray
from ray.serve._private import api, client
api.HTTP_PROXY_TIMEOUT = client.HTTP_PROXY_TIMEOUT = 300  # seconds: on a machine with other things to do
held = init(sys.argv[2:], num_cpus=2, runtime_env={"worker_process_setup_hook": SETUP})
with deployed(serve_config(settings, [declared(settings, [Workload.of(load_spec(sys.argv[1]))])], {})):
    print("ready", flush=True)
    sys.stdin.read()
ray.shutdown()
"""

IMPORTED = (
    "google.protobuf.json_format", "aiohttp", "grpc.aio", "jsonschema", "requests", "opentelemetry.sdk.trace",
    "fastapi", "uvicorn", "serving.gateway.app",
)  # fmt: skip
"""What the processes of a gateway import beside Ray."""

CLIENTS = 4

HALF_SENT = "without sending complete message body"

until = partial(wait_for, seconds=240.0)


class Answer(NamedTuple):
    """``status`` 0: the connection broke. ``told``: the arm that answered, what else was answered, or what broke it."""

    begun: float
    status: int
    told: str | None
    key: str


class Load:
    """Clients that ask again and again; ``answers`` are :class:`Answer`, in the order of their ends."""

    def __init__(self, url):
        self.url, self.answers, self._ended = url, [], threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self, n):
        with httpx.Client(timeout=90.0) as client:
            asked = 0
            while not self._ended.is_set():
                asked += 1
                key, begun = f"k{n}-{asked}", time.time()
                body = {"key": key, "json": {"x": 3}}
                try:
                    answer = client.post(f"{self.url}/v1/predict", json=body)
                    told = answer.json().get("arm") if answer.status_code == 200 else answer.text
                    self.answers.append(Answer(begun, answer.status_code, told, key))
                except httpx.TransportError as error:
                    self.answers.append(Answer(begun, 0, repr(error), key))
                time.sleep(0.005)

    def since(self, at):
        """Of the requests that were begun then or later."""
        return [answer for answer in list(self.answers) if answer.begun >= at]

    def end(self):
        self._ended.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def served(spec, tmp_path, store):
    path = tmp_path / "signs.yaml"
    path.write_text(path.read_text().replace("replicas: 1", "replicas: 2"))
    env = os.environ | {
        "COHOBATE_HOME": str(tmp_path),
        "COHOBATE_GATEWAY_PORT": str(free_ports(5)[0]),
        "COHOBATE_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
    }
    argv = [sys.executable, "-c", SERVER, spec.source, *IMPORTED]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout.readline() == b"ready\n", (tmp_path / "server.log").read_text()[-3000:]
        yield f"http://127.0.0.1:{env['COHOBATE_GATEWAY_PORT']}/signs"
    finally:
        process.communicate(timeout=300)


def replicas(home):
    """Process ids of the replicas that announced themselves and live."""
    pids = {int(name.rsplit("-", 1)[1]) for name in announced(home)}
    return {pid for pid in pids if psutil.pid_exists(pid)}


def proxies(url):
    """The HAProxy processes of this gateway: their configuration's folder is named by its port."""
    folder = f"cohobate-haproxy-{url.split(':')[2].split('/')[0]}"
    found = psutil.process_iter(["name", "cmdline"])
    return [p for p in found if p.info["name"] == "haproxy" and folder in " ".join(p.info["cmdline"] or [])]


@pytest.mark.integration
@pytest.mark.timeout(480)
def test_replica_and_proxy_are_killed_under_load(served, store, model, tmp_path):
    revision, intent = store.intent("signs")
    candidate = model("2")
    wanted = msgspec.structs.replace(
        intent, champion=model("1"), candidate=candidate, weight=0.5, lease_until=time.time() + 600
    )
    revision = store.put_intent("signs", revision, wanted)
    until(lambda: [a.revision for a in store.acknowledgements("signs")] == [revision] * 2)
    load = Load(served)
    try:
        # Step 1: a replica
        until(lambda: len(load.answers) > 100)
        until(lambda: len(replicas(tmp_path)) == 2)  # one announces itself after it follows the intent
        before, asked = replicas(tmp_path), len(load.answers)
        assert {psutil.Process(pid).nice() for pid in before} == {psutil.Process().nice()}, (
            "no replica yields to others"
        )
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in replicas(tmp_path))
        dead_at = time.time()
        until(lambda: len(replicas(tmp_path) - before) == 1)
        (new,) = replicas(tmp_path) - before
        until(lambda: [a.revision for a in store.acknowledgements("signs")] == [revision] * 2)
        back_at = time.time()
        until(lambda: len(load.since(back_at)) > 50)
        seen = list(load.answers)[asked:]
        broken = [answer for answer in seen if answer.status != 200]
        # what no proxy can repair: an answer whose first bytes had gone out when the replica died
        assert all(a.begun < dead_at and HALF_SENT in str(a.told) for a in broken), broken
        assert len(broken) <= CLIENTS
        print(f"replica {victim} killed, {new} in its place: {len(seen)} requests, {len(broken)} broken off half-way")

        # Step 2: the proxy
        doomed = proxies(served)
        assert doomed
        killed_at = time.time()
        for process in doomed:
            process.kill()
        psutil.wait_procs(doomed, timeout=90.0)
        dead_at = time.time()
        until(lambda: any(a.status == 200 for a in load.since(dead_at)))
        back = next(a.begun for a in load.since(dead_at) if a.status == 200)
        # one that starts may answer 404 to some until it has its routes
        until(lambda: len(last := load.since(back)[-100:]) == 100 and {a.status for a in last} == {200})
        after = [a for a in load.since(back) if a.status == 200]
        # Ray starts another HAProxy, which knows no routes at first: broken off or 404, and never another answer
        assert {a.status for a in load.since(killed_at)} <= {0, 404, 200}
        assert all((a.told == "candidate") == to_candidate("signs", candidate.digest, a.key, 0.5) for a in after)
        print(f"proxy killed: answers again after {back - killed_at:.1f} s")

        # Step 3: the lease ends, with nobody to renew it
        revision, intent = store.intent("signs")
        ends = time.time() + 1.0
        revision = store.put_intent("signs", revision, msgspec.structs.replace(intent, lease_until=ends))
        until(lambda: [a.revision for a in store.acknowledgements("signs")] == [revision] * 2)
        ended = max(ends, time.time())  # a busy replica may hear of it later
        until(lambda: len(load.since(ended)) > 50)
        assert {a.told for a in load.since(ended)} == {"champion"}
    finally:
        load.end()
