"""Controllers of one workload as real processes over one control database: one leads, another takes over."""

import contextlib
import os
import threading
from pathlib import Path

import psutil
import pytest

from components.contracts.spec import load_spec
from components.control.intent import Intent
from components.control.leader import BEATS_PER_TERM
from components.control.store import ControlStore
from components.control.tables import LeaderRow
from components.stream.memory import MemoryBroker
from serving.control.controller import Controller
from serving.control.leader import GAUGE, lead
from tests.forks import forked, preload
from tests.waiting import wait_for

W = "signs"
TERM = 0.4
"""Seconds of the clock that the test moves: no leader loses its place because this machine kept it waiting."""

PATIENCE = 90.0

preload(__name__)


class NoRegistry:
    def changed(self):
        return True

    def get(self, workload, name):
        return None

    def named(self, workload, alias):
        return None


def control(source, url, artifacts, holder, clock):
    """What a controller's process does, by the clock in a file."""
    spec, store, broker = load_spec(source), ControlStore(url), MemoryBroker()
    broker.ensure_topics(spec.topics)
    print("up", flush=True)
    lead(
        store, spec.name, lambda: Controller(spec, store, NoRegistry(), broker, artifacts), term=TERM,
        stop=threading.Event(), holder=holder, clock=lambda: float(clock.read_text()),
    )  # fmt: skip


class SharedClock:
    """A clock that every process reads, and that the test alone moves."""

    def __init__(self, path):
        self.path, self.now = path, 0.0
        self.move(0.0)

    def move(self, seconds):
        self.now += seconds
        fresh = self.path.with_suffix(".new")
        fresh.write_text(str(self.now))
        fresh.replace(self.path)


@pytest.fixture
def time(tmp_path):
    return SharedClock(tmp_path / "clock")


@pytest.fixture
def start(spec, store, tmp_path, time):
    store.put_intent(W, 0, Intent())
    running = {}

    def go(name):
        log = tmp_path / f"{name}.log"
        given = (spec.source, store.url, f"file://{tmp_path}/artifacts", name, time.path)
        running[name] = forked(control, *given, environment=os.environ, log=log)
        wait_for(lambda: log.read_text() == "up\n", PATIENCE)
        return running[name]

    yield go
    for process in running.values():
        process.kill()
        process.join()


def leader(store):
    with store.session() as s:
        row = s.get(LeaderRow, f"controller/{W}")
        return row.holder if row else None


def beats(store):
    with store.session() as s:
        return s.get(LeaderRow, f"controller/{W}").beats


def stopped(pid):
    """Whether each of its threads stands still."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)


def led_on(store, time):
    """Let more than a term go by, in each part of which the leader has beaten: another one had time to take over."""
    for _ in range(BEATS_PER_TERM + 2):
        before = beats(store)
        wait_for(lambda before=before: beats(store) > before + 1)
        time.move(TERM / 2)


@contextlib.contextmanager
def silent(store, time, holder):
    """Let time go by until another one leads."""
    stop = threading.Event()

    def go_on():
        while leader(store) == holder and not stop.wait(0.02):
            time.move(TERM / 2)

    moving = threading.Thread(target=go_on)
    moving.start()
    try:
        yield
    finally:
        stop.set()
        moving.join()


def carried_out(store):
    """Order something and wait until a controller answered it."""
    row = store.await_order(store.order(W, "pause", "eve", "is anybody there"), PATIENCE)
    assert row.done_at is not None and "no rollout is under way" in row.outcome


@pytest.mark.integration
def test_another_controller_takes_over_after_kill_9_and_nobody_fights(store, start, time):
    processes = {name: start(name) for name in ("a", "b")}
    carried_out(store)
    for _ in range(3):
        first, epoch = leader(store), store.intent(W)[1].epoch
        assert store.gauges(W)[GAUGE].value == {"leader": first}
        led_on(store, time)  # the other one stands by: no change of leader, no new epoch
        assert (leader(store), store.intent(W)[1].epoch) == (first, epoch)
        processes[first].kill()
        processes[first].join()
        with silent(store, time, first):
            carried_out(store)
        assert leader(store) not in (first, "") and store.intent(W)[1].epoch == epoch + 1
        processes[first] = start(f"{first}'")
        processes[f"{first}'"] = processes.pop(first)


@pytest.mark.integration
def test_a_leader_that_was_frozen_finds_itself_replaced_and_stands_by(store, start, time):
    processes = {name: start(name) for name in ("a", "b")}
    carried_out(store)
    with store.transaction() as s:  # so that it is frozen in none of its own, for whose end all others would wait
        frozen = s.get(LeaderRow, f"controller/{W}").holder
        paused = psutil.Process(processes[frozen].pid)
        paused.suspend()
        wait_for(lambda: stopped(paused.pid), PATIENCE)
    with silent(store, time, frozen):
        carried_out(store)
    other = leader(store)
    assert other != frozen
    paused.resume()
    led_on(store, time)
    assert leader(store) == other and processes[frozen].is_alive()
    epoch = store.intent(W)[1].epoch
    processes[other].kill()
    processes[other].join()
    with silent(store, time, other):
        carried_out(store)
    assert leader(store) == frozen and store.intent(W)[1].epoch == epoch + 1


def test_a_controller_alone_leads_at_once(store, start):
    assert isinstance(store, ControlStore)
    start("only")
    carried_out(store)
    assert leader(store) == "only"
