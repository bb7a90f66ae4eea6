"""What many workloads on one control plane cost whoever looks after them, and what an idle one asks of PostgreSQL.

A control database (SQLite) and a registry with one workload, and then with ``COHOBATE_BENCH_WORKLOADS`` (200), each
registered, with a champion, reports of its workers, a rollout that has ended, runs, alarms and windows. Measured are
``cohobate status`` (the command, and what it reads), one cycle of an idle controller, and the console's overview, each
``COHOBATE_BENCH_TURNS`` times (20), the two platforms in turn.

Then all that works for a workload (controller, monitor, trigger, a labeler's leases, two replicas, and the notices)
works for ``COHOBATE_BENCH_UP`` of them (1, and 4) on a PostgreSQL, while nothing happens. Its transactions are counted
over ``COHOBATE_BENCH_WINDOW`` seconds (40), after ``COHOBATE_BENCH_SETTLE`` (12). Broker and registry are in memory.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import httpx
import msgspec

from components.contracts.settings import Settings
from components.contracts.spec import RolloutPolicy, load_spec
from components.contracts.storage import digest_of, put_bytes
from components.control import workloads
from components.control.intent import ModelRef
from components.control.leases import Leases
from components.control.store import ControlStore
from components.control.tables import AlarmRow, GaugeRow, RolloutRow, RoutingRow, RunRow, WindowRow
from components.control.tokens import Tokens
from components.label.labeler import TEND_SECONDS
from components.ledger.ledger import append
from components.notify.notifier import Notifier
from components.registry import Registry
from components.stream.memory import MemoryBroker
from components.student.card import StudentCard
from infra.status import read
from pipelines.monitor import Monitor
from pipelines.trigger import Trigger
from serving.control.controller import Controller
from serving.control.leader import lead
from serving.replica.loaded_versions import LoadedVersions
from serving.rollout.state import as_dict
from serving.rollout.step import begin
from tests import postgres
from tests.bench.console import serving
from tests.bench.gateway import machine
from tests.serving.conftest import MemoryRegistry
from tests.students import bag

WORKLOADS = int(os.environ.get("COHOBATE_BENCH_WORKLOADS", "200"))
TURNS = int(os.environ.get("COHOBATE_BENCH_TURNS", "20"))
TERM = 5.0
FILES = Path(__file__).resolve().parents[2] / "infra/deploy/example/files.yaml"
UP = [int(n) for n in os.environ.get("COHOBATE_BENCH_UP", "1,4").split(",") if n]
SETTLE = float(os.environ.get("COHOBATE_BENCH_SETTLE", "12"))
WINDOW = float(os.environ.get("COHOBATE_BENCH_WINDOW", "40"))

TEXT = """
name: {name}
teacher: {{factory: "components.teachers.magika:MagikaTeacher"}}
features: {{factory: "components.student.bytes:ByteNgrams"}}
"""

GAUGES = ("labeler", "drift", "entropy", "monitor", "trigger", "evaluation", "agreement", "controller")
LOOKS = {"drift": [{"at": 1.0, "index": n, "columns": {f"c{c}": (0.1, 0.2) for c in range(24)}} for n in range(60)]}


def ref(version):
    return ModelRef(version=version, uri=f"file:///v{version}", digest="d" * 64, snapshot="s" * 64, teacher="t@1")


def fill(settings, store, folder, count):
    """Register ``count`` workloads and write what a year of work leaves of each."""
    registry, now, names = Registry(settings), store.clock(), [f"workload{n:03d}" for n in range(count)]
    for name in names:
        path = folder / f"{name}.yaml"
        path.write_text(TEXT.format(name=name))
        spec, bundle = workloads.opened(str(path), settings)
        workloads.apply(store, bundle, spec, actor="bench", reason="bench")
        register(settings, registry, spec)
        state, _ = begin(f"rollout-{name}", name, ref("2"), ref("1"), RolloutPolicy(), now, audit_share=0.1)
        told = as_dict(state) | {"phase": "promoted", "outcome": "promoted", "ended_at": now, "outbox": []}
        with store.transaction() as s:
            intent = {"champion": msgspec.to_builtins(ref("1")), "previous": None, "candidate": None}
            s.add(RoutingRow(workload=name, revision=1, intent=intent))
            s.add(RolloutRow(id=state.id, workload=name, revision=1, active=False, created_at=now, state=told))
            for gauge in GAUGES:
                value = {"share": 0.9, "lower": 0.8, "lag": 3, "last": "waits", "rows": 150, "upper": 1.0}
                s.add(GaugeRow(workload=name, name=gauge, at=now, value=value))
            s.add(GaugeRow(workload=name, name="looks", at=now, value=LOOKS))
            for n in range(20):
                s.add(RunRow(id=f"{name}-run-{n}", workload=name, pipeline="continual", reason="drift", actor="trigger",
                             started_at=now - n, finished_at=now, status="succeeded", detail={}))  # fmt: skip
                s.add(AlarmRow(workload=name, kind="drift", input_index=n, at=now - n, detail={"answered": "v1"}))
            for n in range(1, 21):
                digest = digest_of(f"{name}-{n}".encode())
                s.add(window(name, digest, n, now))
        for n in range(5):
            append(store, name, "controller", "rollout step", {"rollout": state.id, "reason": f"step {n}"})
    return names


def register(settings, registry, spec):
    """A version of a workload, its champion."""
    card = StudentCard(
        workload=spec.name, task="classification", space="s@1", classes=("x", "y"), features=spec.features,
        payload=spec.payload, **bag(1024, 4, 8), variant="base", snapshots=("a" * 64,), teacher="t@1",
        parent=None, code="bench",
    )  # fmt: skip
    data = f"student of {spec.name}".encode()
    uri = f"{settings.artifacts}/{spec.name}/model.onnx"
    put_bytes(uri, data)
    registry.register(spec, uri, digest_of(data), card, verdict={"decision": "promote"}, metrics={}, params={})
    registry.set_alias(spec.name, "champion", "1")


def window(name, digest, number, now):
    """A snapshot of 500 labels."""
    return WindowRow(
        digest=digest,
        workload=name,
        number=number,
        uri="file:///w",
        created_at=now,
        rows=500,
        manifest={"learnt_share": 1.0},
    )


class Plane:
    """A control plane with so many workloads."""

    def __init__(self, folder, count):
        self.folder, self.count = folder, count
        self.settings = Settings(home=folder)
        self.store = ControlStore(self.settings.control_url)
        self.store.migrate()
        self.names = fill(self.settings, self.store, folder, count)
        self.times = {}

    def took(self, what, work):
        began = time.perf_counter()
        work()
        self.times.setdefault(what, []).append(1000 * (time.perf_counter() - began))

    @contextlib.contextmanager
    def open(self):
        spec, broker = load_spec(self.folder / f"{self.names[0]}.yaml"), MemoryBroker()
        broker.ensure_topics(spec.topics)
        controller = Controller(spec, self.store, Registry(self.settings), broker, self.settings.artifacts)
        token = Tokens(self.store).create("bench", "operator", "bench")[1]
        command = [str(Path(sys.executable).with_name("cohobate")), "status", "--json"]
        env = os.environ | {"COHOBATE_HOME": str(self.folder)}
        with serving(self.folder) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
            client.post("/console/sign-in", data={"token": token})

            def page():
                answer = client.get("/console/")
                if answer.status_code != 200 or answer.text.count("row-workload") < self.count:
                    raise RuntimeError(f"{answer.status_code} {answer.text[:300]}")

            def turn():
                self.took("cohobate status", lambda: subprocess.run(
                    command, env=env, check=True, stdout=subprocess.DEVNULL))  # fmt: skip
                self.took("what it reads", lambda: read(self.settings))
                controller.tick()
                self.took("a controller's cycle", controller.tick)
                self.took("the overview", page)

            yield turn
        controller.close()


def many():
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as opened:
        planes = [Plane(Path(name) / str(count), count) for count in (1, WORKLOADS)]
        turns = [opened.enter_context(plane.open()) for plane in planes]
        for turn in turns:
            turn()
        for plane in planes:
            plane.times.clear()
        for _ in range(TURNS):
            for turn in turns:
                turn()
        for plane in planes:
            plane.store.close()
        print(f"{'median ms':24s} {'1 workload':>12s} {f'{WORKLOADS} workloads':>15s} {'times':>7s}")
        for what in planes[0].times:
            one, all_ = (statistics.median(plane.times[what]) for plane in planes)
            print(f"{what:24s} {one:12.1f} {all_:15.1f} {all_ / one:7.2f}", flush=True)


def idle():
    """Transactions a second of all that works for idle workloads, on PostgreSQL."""
    with postgres.running() as server:
        for count in UP:
            url = server.database()
            with working(url, count):
                time.sleep(SETTLE)
                before, began = transactions(server, url), time.monotonic()
                time.sleep(WINDOW)
                done = (transactions(server, url) - before) / (time.monotonic() - began)
            print(f"{count} idle workloads on PostgreSQL: {done:.1f} transactions/s, {done / count:.1f} for each")
            sys.stdout.flush()


@contextlib.contextmanager
def working(url, count):
    """The roles of so many workloads, as threads, each role with a connection pool of its own as its process has."""
    roles = ("controllers", "monitors", "labelers", "replica-1", "replica-2")
    stores, stop, broker = {role: ControlStore(url) for role in roles}, threading.Event(), MemoryBroker()
    stores["controllers"].migrate()
    registry, work, replicas = MemoryRegistry(), [lambda: Notifier(stores["controllers"], ()).run(stop)], []
    registry.changed = lambda: False
    for n in range(count):
        spec = msgspec.structs.replace(load_spec(FILES), name=f"files{n}")
        broker.ensure_topics(spec.topics)
        work += [
            partial(lead, stores["controllers"], spec.name,
                    lambda s=spec: Controller(s, stores["controllers"], registry, broker, "memory://bench"),
                    term=TERM, stop=stop),
            partial(Monitor(spec, stores["monitors"], broker).run, stop),
            partial(Trigger(spec, stores["monitors"], broker).run, stop),
            partial(labeling, Leases(stores["labelers"], spec.name, "labeler"), spec, stop),
        ]  # fmt: skip
        replicas += [LoadedVersions(spec, stores[role], role) for role in roles[3:]]
    threads = [threading.Thread(target=one) for one in work]
    try:
        for one in (*replicas, *threads):
            one.start()
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for replica in replicas:
            replica.stop()
        for store in stores.values():
            store.close()


def labeling(leases, spec, stop):
    """What a labeler without inputs asks of the database."""
    while not stop.wait(TEND_SECONDS):
        leases.tend(set(range(spec.partitions)), set())


def transactions(server, url):
    """Those that ended in a database since it was made."""
    database = url.rpartition("/")[2]
    query = f"SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{database}'"  # noqa: S608
    return int(server.execute(query)[0][0])


def main():
    print(machine())
    many()
    idle()


if __name__ == "__main__":
    main()
