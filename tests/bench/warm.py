"""How soon an update's student is registered, and a platform is up: beside another build, and beside a warm process.

An update is made of the same 640 labels of the ``files`` workload each time, which the gate promotes (the spec's bound
on forgetting is lifted: what a student forgets of 54 inputs is chance): as the trigger starts it (here: forked from a
process that has imported what it needs), as ``COHOBATE_BENCH_BASE`` does (a checkout of another build with an
environment of its own, ``.venv``), and by the same functions in one process that has made such updates before. Builds
take turns. Each has a student and labels of its own making, since another build may not read them.
"""

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from components.contracts.settings import Settings
from infra.broker import EmbeddedBroker
from tests.bench.gateway import machine
from tests.bench.idle import ROOT, platform, pss
from tests.ports import free_port

ROUNDS = int(os.environ.get("COHOBATE_BENCH_ROUNDS", "5"))
BASE = os.environ.get("COHOBATE_BENCH_BASE")

PREPARE = """
import json, sys, time
import msgspec
from components.contracts.records import Input, Truth
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.control.store import ControlStore
from components.registry.registry import Registry
from components.stream import open_broker
from infra.workloads.files import source
from pipelines.local import run_local
try:
    from components.label.step import label_history
except ImportError:
    from components.steps import label_history

settings, made = Settings(), source(seed=0)
text = made.spec.read_text()
assert "max_forgetting: 0.06" in text
path = settings.home / "files.yaml"
path.write_text(text.replace("max_forgetting: 0.06", "max_forgetting: 1.0"))
spec = load_spec(str(path.resolve()))
store = ControlStore(settings.control_url)
store.migrate()
broker = open_broker(settings)
broker.ensure_topics(spec.topics, partitions=spec.partitions)


def history(name, items):
    path = settings.home / name
    with path.open("wb") as file:
        for at, item in enumerate(items, start=int(time.time()) - len(items)):
            entry = Input(workload=spec.name, id=item.id, key=item.key, time=at, payload=item.payload)
            truth = Truth(
                workload=spec.name, input_id=item.id, time=at, known_at=at, source="history", label=item.truth
            )
            file.write(msgspec.json.encode({"input": entry, "truth": truth}) + b"\\n")
    return path.resolve().as_uri()


first, second = made.phases[0].items, made.phases[1].items
run_local(
    "bootstrap", spec.source, {"history_uri": history("first.jsonl", made.history)}, reason="bench", settings=settings
)
champion = Registry(settings).get(spec.name, "candidate")
revision, intent = store.intent(spec.name)
store.put_intent(spec.name, revision, msgspec.structs.replace(intent, champion=champion))
label_history(spec.source, history("second.jsonl", [*first[:40], *second[:600]]))
store.close()
print(spec.source)
"""

FUNCTIONS = """
import sys, time
from components.distill.step import distil
from components.evaluate.step import judge
from components.registry.step import register
from components.snapshot.step import take_snapshot

for line in sys.stdin:
    began = time.perf_counter()
    _, digest = take_snapshot(sys.argv[1])
    register(sys.argv[1], judge(sys.argv[1], distil(sys.argv[1], "", False, digest)), True)
    print(time.perf_counter() - began, flush=True)
"""

REGISTERED = """
import sys
from components.contracts.settings import Settings
from components.control.store import ControlStore
from components.ledger.ledger import entries

store = ControlStore(Settings().control_url)
print([e.at for e in entries(store) if e.action == "register"][-1])
store.close()
"""


class Bench:
    """A home for each build, in which the broker and everything else is put back before every update."""

    def __init__(self, folder, checkout):
        self.home, self.kept, self.checkout = folder / "home", folder / "kept", checkout
        self.settings = Settings(home=self.home, broker_port=free_port())
        self.env = {
            **os.environ, **self.settings.environment(), "PYTHONPATH": "", "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.home.mkdir(parents=True)
        with self.broker():
            self.spec = self.python(PREPARE).splitlines()[-1]
        shutil.copytree(self.home, self.kept)

    def broker(self):
        return EmbeddedBroker(self.settings.broker_port, self.home.parent / "broker.log", self.home / "broker")

    def python(self, program, *args):
        command = [str(self.checkout / ".venv/bin/python"), "-c", program, *args]
        done = subprocess.run(command, cwd=self.checkout, env=self.env, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def restore(self, *left):
        """As it was prepared, but for what is ``left``, and what a fork server has there."""
        left = (*left, "fork-server.json", "logs")
        for path in self.home.iterdir():
            if path.name not in left:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.kept, self.home, dirs_exist_ok=True, ignore=lambda *_: left)

    def update(self, start):
        """Seconds from ``start(argv)``, which begins a run and gives what waits for it, to the registration."""
        self.restore()
        with self.broker():
            began = time.time()
            start(["continual", self.spec, "bench"])()
            took = float(self.python(REGISTERED)) - began
        assert took > 0, "the gate let no student through: there is no registration to measure"
        return took

    def cold(self, argv):
        command = [str(self.checkout / ".venv/bin/python"), "-m", "pipelines.run", *argv]
        run = subprocess.Popen(command, cwd=self.checkout, env=self.env, stderr=subprocess.DEVNULL)
        return run.wait


def forked(bench, server):
    from pipelines.forked import fork

    def start(argv):
        with Path(os.devnull).open("wb") as nothing:
            return fork(server.home, "run", argv, bench.env, nothing).wait

    return start


def told(name, times, ours):
    middle = statistics.median(times)
    print(f"{name:58} {middle:6.2f} ({min(times):.2f} to {max(times):.2f}) {middle / ours:6.2f}", flush=True)


def updates(folder):
    from pipelines.forked import Warm

    ours = Bench(folder / "this", ROOT)
    inside = Bench(folder / "inside", ROOT)
    base = Bench(folder / "base", Path(BASE).resolve()) if BASE else None
    server = Warm(ours.home)
    began = time.monotonic()
    server.start()
    log = ours.home / "logs/fork-server.log"
    while "ready: " not in log.read_text():
        time.sleep(0.05)
    print(f"the fork server has imported everything after {time.monotonic() - began:.1f} s, {pss(server.pid):.0f} MB")
    argv = [str(ROOT / ".venv/bin/python"), "-c", FUNCTIONS, inside.spec]
    process = subprocess.Popen(
        argv, cwd=ROOT, env=inside.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def functions():
        inside.restore("mlflow.db")  # it has that open
        with inside.broker():
            process.stdin.write("go\n")
            return float(process.stdout.readline())

    try:
        functions()  # its imports
        found = {"forked": [], "functions": [], "base": []}
        for _ in range(ROUNDS):
            found["forked"].append(ours.update(forked(ours, server)))
            found["functions"].append(functions())
            if base:
                found["base"].append(base.update(base.cold))
    finally:
        process.stdin.close()
        process.wait()
        server.stop()
    middle = statistics.median(found["forked"])
    print("seconds from the decision to a registered student, median (least to most), and as a multiple of ours")
    told("this build, forked", found["forked"], middle)
    told("this build's functions in one warm process", found["functions"], middle)
    if base:
        told(f"{BASE}", found["base"], middle)


def starts():
    checkouts = {"this build": ROOT} | ({BASE: Path(BASE).resolve()} if BASE else {})
    found = {name: [] for name in checkouts}
    for _ in range(ROUNDS):
        for name, checkout in checkouts.items():
            with platform(checkout, 1) as (_, took):
                found[name].append(took)
    print("seconds of 'cohobate up', median (least to most), and as a multiple of ours")
    for name, times in found.items():
        told(name, times, statistics.median(found["this build"]))


def main():
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        updates(Path(name))
    starts()
    if not BASE:
        print("name a second checkout with COHOBATE_BENCH_BASE to have both sides")
