#!/usr/bin/env bash
# Ray 2.60.0: an idle actor is not idle.
#
# One would take an actor that nobody calls for a process that sleeps until a call comes. Its main thread wakes a
# hundred times a second all the same: its loop looks every 10 ms whether Python has a signal to handle
# (CoreWorker::RunTaskExecutionLoop), a number that is no setting. That is 0.4 to 0.5 % of a core for each actor, for as
# long as it lives: Ray Serve's controller, proxies and every replica are actors, so that a Serve with two replicas and
# two proxies that answers nobody takes 2 % of a core by this alone.
#
# Seen, as voluntary context switches a second: main thread 99 to 101 (82 on a busy machine), the busiest of 21 others
# 11. Exits with 1 if the main thread wakes less than 50 or more than 120 times a second.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
RAY_USAGE_STATS_ENABLED=0 "$folder/venv/bin/python" - <<'PYTHON'
import os
import sys
import time
from pathlib import Path

import ray

print("Ray", ray.__version__)
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)


@ray.remote(num_cpus=0)
class Idle:
    def pid(self):
        return os.getpid()


def switches(thread):
    lines = Path(f"{thread}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


actor = Idle.remote()
pid = ray.get(actor.pid.remote())
time.sleep(5)  # what it does at its start
threads = {int(t.name): t for t in Path(f"/proc/{pid}/task").iterdir()}
began, before = time.monotonic(), {n: switches(t) for n, t in threads.items()}
time.sleep(10)
lasted = time.monotonic() - began
rates = {n: (switches(t) - before[n]) / lasted for n, t in threads.items() if t.exists()}
main, others = rates.pop(pid), max(rates.values())
print(f"wakes a second: main thread {main:.0f}, the busiest of {len(rates)} others {others:.0f}")
ray.shutdown()
sys.exit(not 50 <= main <= 120)
PYTHON
