"""A first student and an update of it, in processes that are forked from one that has imported what they need."""

import os
import shutil
import signal
from pathlib import Path

import msgspec
import psutil
import pytest

from components.contracts.records import encode
from components.contracts.spec import build, load_spec
from components.control.intent import Intent
from components.ledger.ledger import entries
from components.registry.registry import Registry
from components.snapshot.step import take_snapshot
from components.stream import open_broker
from components.teachers.contract import reference
from infra.broker import EmbeddedBroker
from pipelines.forked import GoneError, Warm, fork
from tests.stores import migrated, registering
from tests.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]

TICKETS = Path(__file__).parents[1] / "workloads" / "tickets"
SECONDS = 390.0

ALLOCATOR = "jemalloc_bg_thd"
"""The thread of pyarrow's allocator, which begins it anew in whoever is forked."""

HOLD = """

import os, pathlib, sys, time

if "distill" in sys.argv and "HOLD" in os.environ:
    pathlib.Path(os.environ["HOLD"]).write_text(str(os.getpid()))
    time.sleep(600)
"""


@pytest.fixture
def spec(tmp_path):
    """The tickets workload, whose training waits for its end where the environment has a ``HOLD``."""
    folder = tmp_path / "tickets"
    shutil.copytree(TICKETS, folder, ignore=shutil.ignore_patterns("__pycache__"))  # other tests write there
    with (folder / "tickets.py").open("a") as file:
        file.write(HOLD)
    return load_spec(folder / "tickets.yaml")


@pytest.fixture
def warm(settings):
    server = Warm(settings.home.resolve())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def broker(settings, spec):
    registering(settings)
    with EmbeddedBroker(settings.broker_port, settings.home / "broker.log"):
        made = open_broker(settings)
        made.ensure_topics(spec.topics, partitions=spec.partitions)
        yield made


@pytest.fixture
def begin(warm, spec, tmp_path):
    """Starts a run in the server; the shell by which a step begins where none is forked is nowhere to be found."""

    def start(name, *given, **environment):
        env = {**os.environ, "PATH": str(tmp_path / "nothing"), **environment}
        with (tmp_path / "out.log").open("ab") as out:
            return fork(warm.home, "run", [name, spec.source, "why", *given], env, out)

    return start


def test_updates_are_forked_and_leave_what_others_leave(
    warm, begin, broker, spec, settings, tickets, label_of, tmp_path
):
    history = tmp_path / "history.jsonl"
    rows = [
        {"id": e.input.id, "time": e.input.time, "text": e.input.payload.decode(), "label": e.truth.label}
        for e in tickets(80, start=1.7e9)
    ]
    history.write_bytes(b"\n".join(msgspec.json.encode(row) for row in rows))
    store = migrated(settings.control_url)

    assert begin("bootstrap", f"history_uri={history.as_uri()}").wait(SECONDS) == 0, (tmp_path / "out.log").read_text()
    (run,) = store.runs("tickets")
    root = settings.home / "pipelines" / run.id
    assert run.status == "succeeded" and run.started_at < run.detail["reporting_at"] < run.finished_at
    assert run.detail["outputs"]["register"] == "1"
    assert [path.stat().st_size > 0 for path in root.glob("*/report/quality")] == [True]
    assert "tickets: candidate" in Path(run.detail["log"]).read_text()
    assert [e.action for e in entries(store)] == ["apply workload", "register", "pipeline bootstrap"]

    log = settings.home / "logs" / "fork-server.log"
    wait_for(lambda: "ready: " in log.read_text(), SECONDS)
    tasks = Path(f"/proc/{warm.pid}/task").iterdir()
    assert len([t for t in tasks if (t / "comm").read_text().strip() != ALLOCATOR]) == 1, "it only imports"

    first = Registry(settings).get("tickets", "candidate")
    store.put_intent("tickets", 0, Intent(champion=first))
    producer, teacher = broker.producer(), build(spec.teacher, spec.source)
    for entry in tickets(60, seed=1, start=1.71e9):
        producer.send(
            spec.topic("labels"), entry.input.id, encode(label_of(entry, teacher=reference(teacher), at=1.72e9))
        )
    producer.flush()

    hold = tmp_path / "hold"
    held = begin("continual", HOLD=str(hold))
    training = int(wait_for(lambda: hold.exists() and hold.read_text(), SECONDS))
    os.kill(warm.pid, signal.SIGKILL)
    with pytest.raises(GoneError):
        held.wait(SECONDS)
    wait_for(lambda: not psutil.pid_exists(training), SECONDS)
    failed = wait_for(lambda: [r for r in store.runs("tickets") if r.status == "failed"], SECONDS)[0]
    assert failed.detail["failure"] == "it was ended"
    window = store.windows("tickets")[1]
    assert take_snapshot(spec.source) == (window.rows, window.digest), "it waits for a student"
    store.close()
