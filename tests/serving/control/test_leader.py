"""Controllers of one workload as real processes over one control database: one leads, another takes over."""

import os
import signal
import subprocess
import sys
import time

import pytest

from components.control.intent import Intent
from components.control.store import ControlStore
from components.control.tables import LeaderRow
from serving.control.leader import GAUGE

W = "signs"
TERM = 1.5

CONTROLLER = """
import sys, threading, time
from types import SimpleNamespace
from components.control.store import ControlStore
from components.registry.registry import Registry
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.stream.memory import MemoryBroker
from serving.control.controller import Controller
from serving.control.leader import lead
from pathlib import Path

class NoRegistry:
    def get(self, workload, name): return None

spec, store = load_spec(sys.argv[1]), ControlStore(sys.argv[2])
broker = MemoryBroker()
broker.ensure_topics(spec.topics)
made = lambda: Controller(spec, store, NoRegistry(), broker, Path(sys.argv[3]))
lead(store, spec.name, made, term=float(sys.argv[4]), stop=threading.Event(), holder=sys.argv[5])
"""


@pytest.fixture
def start(spec, store, tmp_path):
    store.put_intent(W, 0, Intent())
    running = {}

    def go(name):
        argv = [sys.executable, "-c", CONTROLLER, spec.source, store.url, str(tmp_path / "rollouts"), str(TERM), name]
        running[name] = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": os.getcwd()})
        return running[name]

    yield go
    for process in running.values():
        process.kill()
        process.wait()


def leader(store):
    with store.session() as s:
        row = s.get(LeaderRow, f"controller/{W}")
        return row.holder if row else None


def carried_out(store, seconds=60.0):
    """Order something and wait until a controller answered it; returns the seconds that this took."""
    began = time.monotonic()
    row = store.await_order(store.order(W, "pause", "eve", "is anybody there"), seconds)
    assert row.done_at is not None and "no rollout is under way" in row.outcome
    return time.monotonic() - began


@pytest.mark.integration
def test_another_controller_takes_over_after_kill_9_and_nobody_fights(store, start):
    processes = {name: start(name) for name in ("a", "b")}
    carried_out(store)
    for _ in range(3):
        first, epoch = leader(store), store.intent(W)[1].epoch
        assert store.gauges(W)[GAUGE].value == {"leader": first}
        time.sleep(2 * TERM)  # the other one stands by: no change of leader, no new epoch
        assert (leader(store), store.intent(W)[1].epoch) == (first, epoch)
        processes[first].send_signal(signal.SIGKILL)
        processes[first].wait()
        took = carried_out(store)
        assert leader(store) not in (first, "") and store.intent(W)[1].epoch == epoch + 1
        # a term of silence, one look of the standby, and slack for a loaded machine
        assert took < TERM * 1.25 + 4.0
        processes[first] = start(f"{first}'")
        processes[f"{first}'"] = processes.pop(first)
        time.sleep(1.0)


@pytest.mark.integration
def test_a_leader_that_was_frozen_finds_itself_replaced_and_stands_by(store, start):
    processes = {name: start(name) for name in ("a", "b")}
    carried_out(store)
    frozen = leader(store)
    processes[frozen].send_signal(signal.SIGSTOP)
    took = carried_out(store)
    other = leader(store)
    assert other != frozen and took < TERM * 1.25 + 4.0
    processes[frozen].send_signal(signal.SIGCONT)
    time.sleep(3 * TERM)
    assert leader(store) == other and processes[frozen].poll() is None
    epoch = store.intent(W)[1].epoch
    processes[other].kill()
    processes[other].wait()
    carried_out(store)
    assert leader(store) == frozen and store.intent(W)[1].epoch == epoch + 1


def test_a_controller_alone_leads_at_once(store, start):
    assert isinstance(store, ControlStore)
    start("only")
    assert carried_out(store) < 60
    assert leader(store) == "only"
