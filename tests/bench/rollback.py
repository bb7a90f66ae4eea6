"""A rollback while traffic comes in, again and again: how long the candidate goes on answering, and whom it costs.

The platform's own processes: gateway (Ray Serve behind HAProxy, two replicas), controller, admin API, a broker, MLflow.
A candidate takes half of the keys; the order ``rollback`` goes to the admin API; ``COHOBATE_BENCH_ROLLBACKS`` times
(default 50). The load is ``wrk``: 16 connections that each wait ``COHOBATE_BENCH_DELAY_MS`` (default 10) between two
requests; 0 is as much as the machine can answer.

``accepted`` is when the order was in the control database; an answer's start is its prediction's time, which the
replica notes before it asks a student; ``acknowledged`` is when the controller, having heard of every replica, closed
the order. All are of one machine's clock.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import msgspec
import numpy as np

from tests.bench.gateway import COLUMN_JSON, COLUMNS, SCRIPT, lost, machine, student
from tests.ports import free_port, free_ports

ROUNDS = int(os.environ.get("COHOBATE_BENCH_ROLLBACKS", "50"))
DELAY = int(os.environ.get("COHOBATE_BENCH_DELAY_MS", "10"))
HOLD_SECONDS = 0.7
"""How long the candidate serves before it is taken back."""

TABLE = msgspec.json.encode(COLUMNS).decode()
SPEC = f"""
name: bench
teacher: {{factory: "teacher.py:Teacher"}}
payload: {{decoder: json, max_bytes: 2000}}
features: {{factory: "components.student.table:TableColumns", options: {{columns: {TABLE}}}}}
rollout: {{steps: [{{weight: 0.5, min_requests: 1000000000}}], slow_ms: 1000, patience_seconds: 86400}}
serve: {{replicas: 2, audit_share: 0.0, buffer_records: 100000}}
"""


def register(settings, spec, folder):
    """Two versions, the first of which is to become champion."""
    from components.contracts.storage import digest_of, put_bytes
    from components.control.store import ControlStore
    from components.registry.registry import Registry
    from components.student.runtime import Student

    store = ControlStore(settings.control_url)
    store.migrate()
    registry = Registry(settings)
    for seed in (1, 2):
        data = student(seed)
        uri = (folder / f"v{seed}.onnx").as_uri()
        put_bytes(uri, data)
        registry.register(
            spec, uri, digest_of(data), Student.load(data).card, verdict={"decision": "promote"}, metrics={}, params={}
        )
    registry.set_alias(spec.name, "candidate", "1")
    return store


@contextlib.contextmanager
def workers(folder, *roles):
    """The platform's processes, until the block ends."""
    running = []
    try:
        for role in roles:
            with (folder / f"{role}.log").open("wb") as log:
                argv = [sys.executable, "-m", "infra.worker", role, str(folder / "bench.yaml")]
                running.append(subprocess.Popen(argv, stdout=log, stderr=log))
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until(condition, what, seconds=180):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.HTTPError, FileNotFoundError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {seconds} s")
        time.sleep(0.1)


@contextlib.contextmanager
def loaded(url, folder):
    """Load on ``url`` until the block ends; gives a list that then holds requests a second and failures."""
    script = folder / "load.lua"
    body = f'{{"key":"KEY","json":{COLUMN_JSON}}}'
    delay = f"delay = function() return {DELAY} end\n" if DELAY else ""
    script.write_text(f"BODY = [[{body}]]\n{delay}" + SCRIPT)
    command = ["wrk", "-t1", "-c16", "-d3600s", "--timeout", "5s", "-s", str(script), url]
    process, found = subprocess.Popen(command, stdout=subprocess.PIPE, text=True), []
    try:
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    n, microseconds, p50, p99, errors = map(int, re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", out).groups())
    found += [n, n / microseconds * 1e6, p50 / 1e3, p99 / 1e3, errors]


def rollbacks(admin, store):
    """Start and take back; when each order was accepted and acknowledged, and what the caller waited."""
    base, times = f"{admin}/v1/workloads/bench/rollout", []
    with httpx.Client(timeout=30) as client:

        def order(verb, **more):
            began = time.perf_counter()
            answer = client.post(f"{base}/{verb}", json={"reason": "bench", **more})
            if answer.status_code != 200:
                raise RuntimeError(f"{verb}: {answer.text}")
            return answer.json()["order"], time.perf_counter() - began

        for _ in range(ROUNDS):
            order("start", version="2", skip_shadow=True)
            time.sleep(HOLD_SECONDS)
            key, took = order("rollback")
            row = store.get_order(key)
            times.append((row.created_at, row.done_at, took))
            time.sleep(0.2)
    return times


def started_by_candidate(broker):
    """When each answer of version 2 was started."""
    from components.contracts.records import Prediction, decode

    consumer, found, seen = broker.consumer(["bench.predictions"]), [], 0
    while records := consumer.poll(5_000, timeout=2.0):
        for record in records:
            prediction = decode(Prediction, record.value)
            seen += 1
            if prediction.answer.version == "2":
                found.append(prediction.time)
    consumer.close()
    return np.sort(found), seen


def report(times, started, seen, load):
    n, rate, p50, p99, errors = load
    print(
        f"load: {n} requests, {rate:.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms; failed {errors}; "
        f"predictions read {seen}, of the candidate {len(started)}"
    )
    last, after, idle = [], 0, 0
    for i, (accepted, acknowledged, _) in enumerate(times):
        end = times[i + 1][0] - 0.5 if i + 1 < len(times) else float("inf")
        late = started[(started > accepted) & (started < end)]
        before = started[(started <= accepted) & (started > accepted - HOLD_SECONDS)]
        idle += not len(before)
        # the next start is ordered 0.2 s after the answer to this rollback
        after += int(((late > acknowledged) & (late < acknowledged + 0.2)).sum())
        inside = late[late <= acknowledged]
        last.append((inside[-1] - accepted) * 1e3 if len(inside) else 0.0)
    for name, values in (
        ("accepted to the last answer started", last),
        ("accepted to acknowledged", [(b - a) * 1e3 for a, b, _ in times]),
        ("the admin API's answer", [c * 1e3 for _, _, c in times]),
    ):
        p = np.percentile(values, [50, 90, 99, 100])
        print(f"{name:36} p50 {p[0]:6.1f}  p90 {p[1]:6.1f}  p99 {p[2]:6.1f}  most {p[3]:6.1f} ms")
    print(f"{len(times)} rollbacks; answers started after the acknowledgement {after}; rounds without traffic {idle}")


@contextlib.contextmanager
def benched(**environment):
    """A platform of the spec with a champion: folder, store, broker, and addresses of the gateway and the admin API."""
    from components.contracts.settings import Settings
    from components.contracts.spec import load_spec
    from components.stream import open_broker
    from infra.broker import EmbeddedBroker

    with tempfile.TemporaryDirectory() as name:
        folder, port, broker_port = Path(name), free_ports(6)[0], free_port()
        os.environ |= {
            "COHOBATE_HOME": name, "COHOBATE_GATEWAY_PORT": str(port), "COHOBATE_BROKER_PORT": str(broker_port),
            "COHOBATE_ADMIN_PORT": str(free_port()), "PYTHONPATH": os.getcwd(), **environment,
        }  # fmt: skip
        settings = Settings()
        (folder / "bench.yaml").write_text(SPEC)
        spec = load_spec(folder / "bench.yaml")
        store = register(settings, spec, folder)
        gateway, admin = f"http://127.0.0.1:{port}/bench", f"http://127.0.0.1:{settings.admin_port}"
        with EmbeddedBroker(broker_port, folder / "broker.log"):
            broker = open_broker(settings)
            broker.ensure_topics(spec.topics)
            try:
                with workers(folder, "gateway", "controller", "admin"):
                    until(lambda: httpx.get(f"{admin}/healthz").status_code == 200, "the admin API")
                    until(lambda: len(store.acknowledgements("bench")) == 2, "two replicas")
                    until(lambda: httpx.get(f"{gateway}/readyz").status_code == 200, "a champion")
                    yield folder, store, broker, gateway, admin
            except Exception:
                for log in ("gateway", "controller", "admin"):
                    print(f"-- {log}\n{(folder / f'{log}.log').read_text(errors='replace')[-1500:]}")
                raise
        store.close()


def main() -> None:
    if shutil.which("wrk") is None:
        print("skipped: wrk is not installed (apt-get install wrk)")
        return
    with benched(COHOBATE_ADMIN_AUTH="off") as (folder, store, broker, gateway, admin):
        print(f"{'no delay' if not DELAY else f'{DELAY} ms between requests'}, {machine()}", flush=True)
        with loaded(f"{gateway}/v1/predict", folder) as load:
            time.sleep(2)
            times = rollbacks(admin, store)
        time.sleep(3)  # the last predictions are on their way
        report(times, *started_by_candidate(broker), load)
        print(f"{lost(gateway):.0f} records lost by a replica; {machine()}")


if __name__ == "__main__":
    main()
