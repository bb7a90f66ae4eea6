"""How long ``cohobate pipeline submit`` takes from the command's start until a Kubeflow server has answered.

The server is the suite's double (a few milliseconds a request). ``COHOBATE_BENCH_BASE`` names another checkout with a
``.venv`` of its own: both submit the rollback of one workload to the same server by turns, ``COHOBATE_BENCH_ROUNDS``
times (10), after one of each that is not counted.
"""

import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench.gateway import machine
from tests.kubeflow import kubeflow

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("COHOBATE_BENCH_ROUNDS", "10"))
RUNS = ("POST", "/apis/v2beta1/runs")


def submit(checkout, world, home):
    """Seconds until the server has answered the request that starts the run, and until the command has ended."""
    env = os.environ | {
        "COHOBATE_KFP_HOST": world.url, "COHOBATE_HOME": str(home), "HOME": str(home), "PYTHONPATH": "",
    }  # fmt: skip
    spec = ROOT / "tests/workloads/tickets/tickets.yaml"
    argv = [checkout / ".venv/bin/cohobate", "pipeline", "submit", "rollback", "--spec", spec]
    argv += ["--param", "spec=/specs/tickets.yaml", "--output", home / "ir"]
    began = time.monotonic()
    subprocess.run(argv, env=env, cwd=checkout, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return world.answered[RUNS] - began, time.monotonic() - began


def main():
    base = os.environ.get("COHOBATE_BENCH_BASE")
    checkouts = {"this": ROOT} | ({"base": Path(base)} if base else {})
    print(machine())
    if not base:
        print("(no other checkout is measured: COHOBATE_BENCH_BASE names none)")
    taken = {name: [] for name in checkouts}
    with kubeflow() as world, tempfile.TemporaryDirectory() as folder:
        for round_ in range(ROUNDS + 1):
            for name, checkout in checkouts.items():
                home = Path(folder) / name
                home.mkdir(exist_ok=True)
                times = submit(checkout, world, home)
                taken[name] += [times] if round_ else []
    print(f"{'checkout':9} {'answered: median':>17} {'least':>7} {'most':>7} {'ended: median':>14}  seconds")
    for name, times in taken.items():
        answered, ended = zip(*times, strict=True)
        print(
            f"{name:9} {statistics.median(answered):17.2f} {min(answered):7.2f} {max(answered):7.2f} "
            f"{statistics.median(ended):14.2f}"
        )
    if base:
        ratio = statistics.median(a for a, _ in taken["base"]) / statistics.median(a for a, _ in taken["this"])
        print(f"this is {ratio:.2f} times as fast until the answer")


if __name__ == "__main__":
    main()
