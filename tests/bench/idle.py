"""What a platform costs while nothing happens: processor time and memory, with 1, 2 and more workloads.

``cohobate up`` of this checkout, and of the one that ``COHOBATE_BENCH_BASE`` names (a folder with a ``.venv`` of its
own), each with the built-in workload ``files`` and then with small ones beside it (``COHOBATE_BENCH_WORKLOADS``, by
default 1, 2 and 4 in all). There is no champion and no traffic. After ``COHOBATE_BENCH_SETTLE`` seconds (20) the
processor time of the supervisor and of everything below it (Ray, the broker and HAProxy too) is counted over
``COHOBATE_BENCH_WINDOW`` seconds (60) from ``/proc/<pid>/stat``, and memory is its proportional set size (PSS), which
counts a page that processes share once.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.bench.gateway import machine
from tests.ports import free_port, free_ports

ROOT = Path(__file__).resolve().parents[2]
COUNTS = [int(n) for n in os.environ.get("COHOBATE_BENCH_WORKLOADS", "1,2,4").split(",")]
SETTLE = float(os.environ.get("COHOBATE_BENCH_SETTLE", "20"))
WINDOW = float(os.environ.get("COHOBATE_BENCH_WINDOW", "60"))
TICKS = os.sysconf("SC_CLK_TCK")


def specs(folder, count):
    """``files`` and ``count - 1`` copies of the tickets workload, each with a name of its own."""
    tickets = ROOT / "tests/workloads/tickets"
    shutil.copy(tickets / "tickets.py", folder)
    text = (tickets / "tickets.yaml").read_text()
    made = ["files"]
    for number in range(1, count):
        path = folder / f"tickets{number}.yaml"
        path.write_text(re.sub(r"(?m)^name: .*$", f"name: tickets{number}", text))
        made.append(str(path))
    return made


@contextlib.contextmanager
def platform(checkout, count):
    """A checkout's platform, until the block ends; gives its supervisor's pid and the seconds that ``up`` took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = os.environ | {
            "COHOBATE_HOME": str(folder / "home"), "COHOBATE_GATEWAY_PORT": str(free_ports(6)[0]),
            "COHOBATE_BROKER_PORT": str(free_port()), "COHOBATE_ADMIN_PORT": str(free_port()), "PYTHONPATH": "",
        }  # fmt: skip
        command = str(checkout / ".venv/bin/cohobate")
        asked = [arg for spec in specs(folder, count) for arg in ("--spec", spec)]
        began = time.monotonic()
        subprocess.run([command, "up", *asked], env=env, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
        try:
            took = time.monotonic() - began
            yield json.loads((folder / "home/platform.json").read_text())["pid"], took
        finally:
            subprocess.run([command, "down"], env=env, cwd=checkout, check=True, stdout=subprocess.DEVNULL)


def title(process):
    """What a process is, in a few words: its role, or its program."""
    argv = process.cmdline()
    if "infra.worker" in argv:
        rest = argv[argv.index("infra.worker") + 1 :]
        return f"worker {rest[0]}" + (f" {Path(rest[1]).stem}" if len(rest) == 2 else "")
    if "-m" in argv:
        return argv[argv.index("-m") + 1]
    scripts = [Path(a).stem for a in argv if a.endswith(".py")]
    if scripts:
        return f"ray {scripts[0]}"
    return argv[0].strip() if argv and argv[0].startswith("ray::") else process.name()


def seconds(pid):
    """Processor seconds of one process, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def pss(pid):
    """Proportional set size in MB."""
    (kilobytes,) = re.findall(r"(?m)^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    return int(kilobytes) * 1024 / 1e6


def measure(pid):
    """For each process that lived through the window: its title, percent of a core, and MB."""
    root = psutil.Process(pid)
    alive = {p.pid: p for p in (root, *root.children(recursive=True))}
    before, began = {pid: seconds(pid) for pid in alive}, time.monotonic()
    time.sleep(WINDOW)
    lasted, rows = time.monotonic() - began, []
    for number, process in alive.items():
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            rows.append((title(process), (seconds(number) - before[number]) / lasted * 100, pss(number)))
    return rows


def report(name, count, rows, took):
    """Print one platform; returns its percent of a core and its MB."""
    core, memory = sum(r[1] for r in rows), sum(r[2] for r in rows)
    print(f"-- {name}, {count} workloads: {core:.1f} % of a core, {memory:.0f} MB in {len(rows)} processes", end="")
    print(f"; up in {took:.0f} s; {machine()}")
    for what, percent, megabytes in sorted(rows, key=lambda r: -r[2]):
        print(f"   {percent:6.2f} %  {megabytes:7.1f} MB  {what}")
    sys.stdout.flush()
    return core, memory


def main() -> None:
    base = os.environ.get("COHOBATE_BENCH_BASE")
    checkouts = {"this": ROOT} | ({"base": Path(base).resolve()} if base else {})
    found = {}
    for count in COUNTS:
        for name, checkout in checkouts.items():
            with platform(checkout, count) as (pid, took):
                time.sleep(SETTLE)
                found[name, count] = report(name, count, measure(pid), took)
    print(f"{'workloads':>9} {'':6} {'core %':>8} {'MB':>8} {'each further: core %':>22} {'MB':>8}")
    for (name, count), (core, memory) in found.items():
        line = f"{count:9} {name:6} {core:8.1f} {memory:8.0f}"
        first = found[name, COUNTS[0]]
        if count > COUNTS[0]:
            more = count - COUNTS[0]
            line += f" {(core - first[0]) / more:22.2f} {(memory - first[1]) / more:8.0f}"
        print(line)
    if not base:
        print("name a second checkout with COHOBATE_BENCH_BASE to have both sides")
    for count in COUNTS if base else ():
        (core, memory), (was_core, was_memory) = found["this", count], found["base", count]
        print(f"{count} workloads, this / base: core {core / was_core:.2f}, memory {memory / was_memory:.2f}")


if __name__ == "__main__":
    main()
