"""What 100 open consoles cost the gateway's answers, and how soon a click in one stops the last candidate answer.

The platform's own processes: gateway (Ray Serve behind HAProxy, two replicas), controller, admin API, a broker, MLflow.
The load is ``wrk``: 16 connections that each wait ``COHOBATE_BENCH_DELAY_MS`` (10) between two requests.

1. ``COHOBATE_BENCH_ROUNDS`` rounds (5), each with ``COHOBATE_BENCH_STREAMS`` (100) open pages and without, in turn, the
   order changing from round to round; ``COHOBATE_BENCH_SECONDS`` (10) each. Pages are those of the workload, whose
   rollout has new evidence all the time. The pages' own processor time is not the platform's: it is a process beside,
   which on a machine of few cores takes some from the gateway too, and is printed.
2. ``COHOBATE_BENCH_ROLLBACKS`` times (50) the console's form is opened, and sent as a browser sends it: ``click`` is
   just before that. The last answer of the candidate that was started after it, by the replica's clock, is what
   the click cost beyond the network.
"""

import asyncio
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

import httpx
import numpy as np
import psutil

from tests.bench.console import listen
from tests.bench.gateway import COLUMN_JSON, SCRIPT, machine
from tests.bench.rollback import DELAY, HOLD_SECONDS, benched, loaded, started_by_candidate

ROUNDS = int(os.environ.get("COHOBATE_BENCH_ROUNDS", "5"))
STREAMS = int(os.environ.get("COHOBATE_BENCH_STREAMS", "100"))
SECONDS = float(os.environ.get("COHOBATE_BENCH_SECONDS", "10"))
ROLLBACKS = int(os.environ.get("COHOBATE_BENCH_ROLLBACKS", "50"))

PAGES = """
import asyncio, sys
from tests.bench.console_beside import look_on
asyncio.run(look_on(*sys.argv[1:]))
"""


async def look_on(url, token, streams):
    """Open pages until the standard input ends; says so when all are open, and how many bytes came from then on."""
    cookies = []
    for _ in range(-(-int(streams) // 10)):
        with httpx.Client(base_url=url) as client:
            client.post("/console/sign-in", data={"token": token})
            cookies.append(client.cookies)
    page = f"{url}/console/events/workload?about=bench"
    got = [[] for _ in range(int(streams))]
    tasks = [asyncio.create_task(listen(page, cookies[n % len(cookies)], 3600, g)) for n, g in enumerate(got)]
    while not all(got):
        await asyncio.sleep(0.1)
    before = sum(map(sum, got))
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(sum(map(sum, got)) - before, flush=True)
    for task in tasks:
        task.cancel()


@contextlib.contextmanager
def open_pages(admin, token):
    """Open pages until the block ends; gives their process, and a list that then holds the bytes that came."""
    argv = [sys.executable, "-c", PAGES, admin, token, str(STREAMS)]
    came = []
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout.readline().strip() != "open":
            raise RuntimeError("the pages did not open")
        yield psutil.Process(process.pid), came
        process.stdin.close()
        came.append(int(process.stdout.readline()))
        process.stdin = None


def load(url, folder):
    """Requests a second, p50 and p99 in ms, and failures of one measurement."""
    script = folder / "round.lua"
    body = f'{{"key":"KEY","json":{COLUMN_JSON}}}'
    script.write_text(f"BODY = [[{body}]]\ndelay = function() return {DELAY} end\n" + SCRIPT)
    command = ["wrk", "-t1", "-c16", f"-d{SECONDS:.0f}s", "--timeout", "5s", "-s", str(script), url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    n, microseconds, p50, p99, errors = map(int, re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", out).groups())
    return n / microseconds * 1e6, p50 / 1e3, p99 / 1e3, errors


def beside_pages(url, admin, token, folder, pages):
    """One measurement, beside open pages or not, and what is to be said of the pages."""
    if not pages:
        return *load(url, folder), ""
    with open_pages(admin, token) as (process, came):
        before = sum(process.cpu_times()[:2])
        found = load(url, folder)
        share = (sum(process.cpu_times()[:2]) - before) / SECONDS
    return *found, f"  pages: {came[0] / 1e6:.2f} MB came, their own process {100 * share:.0f} % of a core"


def beside(url, admin, token, folder):
    """Part 1."""
    found = {"with": [], "without": []}
    for number in range(ROUNDS):
        for side in ("with", "without") if number % 2 else ("without", "with"):
            rate, p50, p99, errors, own = beside_pages(url, admin, token, folder, side == "with")
            found[side].append(p99)
            said = f"round {number} {side:8s} {rate:7.0f}/s  p50 {p50:6.2f}  p99 {p99:6.2f} ms  failed {errors}"
            print(said + own, flush=True)
    ratios = [a / b for a, b in zip(found["with"], found["without"], strict=True)]
    medians = {side: statistics.median(values) for side, values in found.items()}
    print(f"p99 with {STREAMS} open pages {medians['with']:.2f} ms, without {medians['without']:.2f} ms: ratio of the "
          f"medians {medians['with'] / medians['without']:.3f}, median of the rounds' ratios "
          f"{statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})", flush=True)  # fmt: skip


def clicks(admin, token, store):
    """Part 2: when each click was, and when its order was accepted and closed."""
    from components.control.order_client import LocalOrderClient

    times = []
    page = "/console/w/bench/order/rollback"
    orders = LocalOrderClient(store, "bench")
    with httpx.Client(base_url=admin, timeout=30) as client:
        client.post("/console/sign-in", data={"token": token})
        for _ in range(ROLLBACKS):
            key = store.order("bench", "start", "bench", "bench", {"version": "2", "skip_shadow": True})
            if not store.await_order(key, timeout=30).ok:
                raise RuntimeError("no rollout started")
            time.sleep(HOLD_SECONDS)
            text = client.get(page).text
            form = dict(re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', text[text.rindex("<form") :]))
            clicked = time.time()
            sent = client.post(page, data={**form, "reason": "bench"})
            if sent.status_code != 303:
                raise RuntimeError(f"{sent.status_code} {sent.text[:500]}")
            row = store.await_order(orders.orders("bench")[-1]["id"], timeout=30)
            times.append((clicked, row.created_at, row.done_at))
            time.sleep(0.2)
    return times


def report(times, started, seen):
    """The quantiles of part 2."""
    last, idle, after = [], 0, 0
    for clicked, _, done in times:
        before = started[(started <= clicked) & (started > clicked - HOLD_SECONDS)]
        late = started[(started > clicked) & (started < done + 0.15)]
        idle += not len(before)
        after += int((late > done).sum())
        last.append((late[-1] - clicked) * 1e3 if len(late) else 0.0)
    for name, values in (
        ("click to the last candidate answer", last),
        ("click to accepted", [(b - a) * 1e3 for a, b, _ in times]),
        ("click to acknowledged", [(c - a) * 1e3 for a, _, c in times]),
    ):
        p = np.percentile(values, [50, 90, 99, 100])
        print(f"{name:36} p50 {p[0]:6.1f}  p90 {p[1]:6.1f}  p99 {p[2]:6.1f}  most {p[3]:6.1f} ms")
    print(f"{len(times)} rollbacks, {seen} predictions read, {len(started)} of the candidate; answers started after "
          f"the acknowledgement {after}; rounds without traffic {idle}")  # fmt: skip


def main() -> None:
    if shutil.which("wrk") is None:
        print("skipped: wrk is not installed (apt-get install wrk)")
        return
    from components.control.tokens import Tokens

    with benched() as (folder, store, broker, gateway, admin):
        token = Tokens(store).create("bench", "operator", "bench")[1]
        print(f"{DELAY} ms between requests, {machine()}", flush=True)
        key = store.order("bench", "start", "bench", "bench", {"version": "2", "skip_shadow": True})
        store.await_order(key, timeout=30)
        load(f"{gateway}/v1/predict", folder)  # warm
        beside(f"{gateway}/v1/predict", admin, token, folder)
        store.await_order(store.order("bench", "rollback", "bench", "bench", {}), timeout=30)
        with loaded(f"{gateway}/v1/predict", folder):
            time.sleep(2)
            times = clicks(admin, token, store)
        time.sleep(3)  # the last predictions are on their way
        report(times, *started_by_candidate(broker))
        print(machine())


if __name__ == "__main__":
    main()
