"""How fast the console's pages are on a large platform, and what its open pages cost.

A control database (SQLite) with ``COHOBATE_BENCH_WORKLOADS`` workloads (50), ``COHOBATE_BENCH_ROLLOUTS`` rollouts
(10,000) and ``COHOBATE_BENCH_ENTRIES`` entries of the ledger (100,000), behind an admin API of a process of its own;
nobody works on the platform meanwhile, but every workload's rollout sees new evidence once a second while the streams
are measured. Pages are asked for one after the other, ``COHOBATE_BENCH_PAGES`` times each (50), and the overview
as the first page of an admin API that just started, ``COHOBATE_BENCH_STARTS`` times (10). Then
``COHOBATE_BENCH_STREAMS`` (100) streams of server-sent events are opened, of the overview and of workloads, and the
processor time of the admin API's process is counted from ``/proc`` over ``COHOBATE_BENCH_WINDOW`` seconds (30).
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import msgspec
import psutil

from components.contracts.settings import Settings
from components.contracts.spec import RolloutPolicy
from components.control.chain import GENESIS, entry_hash
from components.control.intent import Intent, ModelRef
from components.control.store import ControlStore
from components.control.tables import GaugeRow, LedgerRow, RolloutRow, RoutingRow
from components.control.tokens import Tokens
from serving.rollout.evidence import Answered, Reply
from serving.rollout.state import as_dict
from serving.rollout.step import begin, step
from tests.bench.gateway import machine
from tests.ports import free_port

WORKLOADS = int(os.environ.get("COHOBATE_BENCH_WORKLOADS", "50"))
ROLLOUTS = int(os.environ.get("COHOBATE_BENCH_ROLLOUTS", "10000"))
ENTRIES = int(os.environ.get("COHOBATE_BENCH_ENTRIES", "100000"))
PAGES = int(os.environ.get("COHOBATE_BENCH_PAGES", "50"))
STREAMS = int(os.environ.get("COHOBATE_BENCH_STREAMS", "100"))
STARTS = int(os.environ.get("COHOBATE_BENCH_STARTS", "10"))
WINDOW = float(os.environ.get("COHOBATE_BENCH_WINDOW", "30"))

SERVE = """
import sys, threading
from components.contracts.settings import Settings
from serving.admin.app import create_app
from serving.admin.server import served
settings = Settings()
app = create_app(settings)
threading.Thread(target=app.state.traffic.run, args=(threading.Event(),), daemon=True).start()
with served(app, settings):
    sys.stdin.read()
"""


def ref(version):
    return ModelRef(version=version, uri=f"file:///v{version}", digest="d" * 64, snapshot="s" * 64, teacher="t@1")


def a_rollout(name, workload, number, now, requests=50):
    """A rollout in its first step, with evidence."""
    state, _ = begin(name, workload, ref(str(number + 2)), ref("1"), RolloutPolicy(), now, audit_share=0.1)
    both = {"champion": Reply(ok=True, latency_ms=1.0, label="a"), "candidate": Reply(ok=True, latency_ms=1.0)}
    seen = [Answered(id=f"{name}-{i}", arm="champion", weight=0.0, **both) for i in range(requests)]
    return step(state, seen, now)[0]


def fill(store):
    """The database's rows, written without the detours of their owners."""
    now, names = time.time(), [f"workload{n:02d}" for n in range(WORKLOADS)]
    template = as_dict(a_rollout("template", "template", 0, now))
    with store.transaction() as s:
        for name in names:
            intent = Intent(
                champion=ref("1"), previous=ref("0"), candidate=ref("2"), lease_until=now + 1e6, shadow=True
            )
            s.add(RoutingRow(workload=name, revision=1, intent=msgspec.to_builtins(intent)))
            for gauge in ("labeler", "drift", "entropy", "monitor", "trigger", "evaluation", "foretold_accuracy"):
                s.add(GaugeRow(workload=name, name=gauge, at=now, value={"lag": 3, "last": "waits"}))
    for first in range(0, ROLLOUTS, 1000):
        with store.transaction() as s:
            for n in range(first, min(first + 1000, ROLLOUTS)):
                workload, newest = names[n % WORKLOADS], n >= ROLLOUTS - WORKLOADS
                state = {**template, "id": f"rollout-{n}", "workload": workload}
                if not newest:
                    state |= {"phase": "promoted", "outcome": "promoted", "ended_at": now, "outbox": []}
                s.add(RolloutRow(id=f"rollout-{n}", workload=workload, revision=1, active=newest,
                                 created_at=now - ROLLOUTS + n, state=state))  # fmt: skip
    previous = GENESIS
    for first in range(0, ENTRIES, 5000):
        with store.transaction() as s:
            for n in range(first, min(first + 5000, ENTRIES)):
                row = LedgerRow(
                    seq=n + 1, previous=previous, hash="", at=now - ENTRIES + n, workload=names[n % WORKLOADS],
                    actor="controller" if n % 3 else "ada", action=("rollout step", "ordered pause")[n % 2],
                    detail={"rollout": f"rollout-{n % ROLLOUTS}", "reason": "because", "requests": n},
                )  # fmt: skip
                row.hash = previous = entry_hash(row)
                s.add(row)
    return names


@contextlib.contextmanager
def serving(folder):
    """The admin API in a process of its own; gives its URL and process."""
    port = free_port()
    env = os.environ | {"COHOBATE_HOME": str(folder), "COHOBATE_ADMIN_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-c", SERVE], env=env, stdin=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.stdin.close()
        process.wait(30)


def pages(client, names):
    """The 50 %, 95 % and 100 % quantiles of each page, in milliseconds."""
    asked = {
        "overview": lambda n: "/console/",
        "workload": lambda n: f"/console/w/{names[n % len(names)]}",
        "order": lambda n: f"/console/w/{names[n % len(names)]}/order/rollback",
        "inbox": lambda n: "/console/inbox",
        "runs": lambda n: "/console/runs",
        "ledger": lambda n: f"/console/ledger?before={ENTRIES - 100 * n}",
        "ledger, one workload": lambda n: f"/console/ledger?workload={names[n % len(names)]}",
        "ledger, nothing fits": lambda n: f"/console/ledger?actor=nobody{n}",
        "savings": lambda n: "/console/savings",
    }
    for name, url in asked.items():
        took, size = [], 0
        for n in range(PAGES):
            began = time.perf_counter()
            answer = client.get(url(n))
            took.append(1000 * (time.perf_counter() - began))
            if answer.status_code != 200:
                raise RuntimeError(f"{url(n)}: {answer.status_code} {answer.text[:300]}")
            size = len(answer.content)
        p95 = statistics.quantiles(took, n=20)[-1]
        print(f"{name:22s} p50 {statistics.median(took):6.1f} ms   p95 {p95:6.1f} ms   most {max(took):6.1f} ms"
              f"   {size / 1000:.0f} kB", flush=True)  # fmt: skip


def first_overviews(folder, cookies):
    """The first overview after each of some starts."""
    took = []
    for _ in range(STARTS):
        with serving(folder) as (url, _), httpx.Client(base_url=url, timeout=60, cookies=cookies) as client:
            began = time.perf_counter()
            answer = client.get("/console/")
            took.append(1000 * (time.perf_counter() - began))
            if answer.status_code != 200 or "row-workload" not in answer.text:
                raise RuntimeError(f"{answer.status_code} {answer.text[:300]}")
    p95 = statistics.quantiles(took, n=20, method="inclusive")[-1]
    print(f"first overview after {STARTS} starts: p50 {statistics.median(took):.0f} ms   p95 {p95:.0f} ms   "
          f"most {max(took):.0f} ms", flush=True)  # fmt: skip


async def listen(url, cookies, seconds, got):
    async with httpx.AsyncClient(cookies=cookies, timeout=None) as client:  # noqa: S113
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), client.stream("GET", url) as answer:
                if answer.status_code != 200:
                    raise RuntimeError(f"{url}: {answer.status_code}")
                async for data in answer.aiter_bytes():
                    got.append(len(data))


def watched(url, process, cookies, names, of):
    """Opens streams, each of the URL that ``of`` gives, and counts what they cost."""
    got, used = [], []

    def measure():
        time.sleep(5)  # the first sending of everything is no part of it
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(WINDOW)
        used.append((sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began))

    async def all_of_them():
        await asyncio.gather(*(listen(url + of(n), cookies[n % len(cookies)], WINDOW + 8, got) for n in range(STREAMS)))

    measuring = threading.Thread(target=measure)
    measuring.start()
    asyncio.run(all_of_them())
    measuring.join()
    return used[0], sum(got)


@contextlib.contextmanager
def evidence_comes(store, names):
    """Every workload's rollout sees something new once a second."""
    stop = threading.Event()

    def work():
        n = 0
        while not stop.wait(1.0):
            n += 1
            for name in names:
                row = store.last_rollout(name)
                state = {**row.state, "requests": row.state["requests"] + n}
                store.put_rollout(row.id, name, row.revision, True, state)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def main():
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder))
        store = ControlStore(settings.control_url)
        store.migrate()
        names = fill(store)
        print(f"{WORKLOADS} workloads, {ROLLOUTS} rollouts, {ENTRIES} entries of the ledger")
        token = Tokens(store).create("bench", "operator", "bench")[1]
        with serving(Path(folder)) as (url, process), contextlib.ExitStack() as opened:
            clients = [opened.enter_context(httpx.Client(base_url=url, timeout=60)) for _ in range(10)]
            for client in clients:
                client.post("/console/sign-in", data={"token": token})
            pages(clients[0], names)
            first_overviews(Path(folder), clients[0].cookies)
            cookies = [client.cookies for client in clients]
            about = {
                "the overview": lambda n: "/console/events/overview",
                "one workload": lambda n: f"/console/events/workload?about={names[0]}",
                "ten workloads": lambda n: f"/console/events/workload?about={names[n % 10]}",
            }
            idle, _ = watched(url, process, cookies, names, about["the overview"])
            print(f"{STREAMS} streams of the overview, nothing new: {100 * idle:.1f} % of a core")
            with evidence_comes(store, names):
                for what, of in about.items():
                    used, size = watched(url, process, cookies, names, of)
                    print(f"{STREAMS} streams of {what}, evidence once a second: {100 * used:.1f} % of a core, "
                          f"{size / WINDOW / 1e6:.2f} MB/s", flush=True)  # fmt: skip
        store.close()
