import signal
import sys
import time

import psutil
import pytest

from tests.chaos import slot as module
from tests.chaos.schedule import Kill
from tests.chaos.slot import Slot

WORKER = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print(os.environ.get("COHOBATE_FAILPOINT"), flush=True)
(pathlib.Path(os.environ["STEER"]) / f"work-{os.getpid()}").touch()
time.sleep(10_000)
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """However long this machine takes to start a process or to end one, nobody is killed for it."""
    for name in ("LIMIT_SECONDS", "WORK_SECONDS", "DRAIN_SECONDS"):
        monkeypatch.setattr(module, name, 1e5)


@pytest.fixture
def place(tmp_path):
    slot = Slot(1, tmp_path / "spec", {"STEER": str(tmp_path)}, tmp_path, tmp_path)
    slot.child.argv = [sys.executable, "-c", WORKER]
    slot.wanted = True
    yield slot
    if slot.child.process is not None:
        slot.child.process.kill()
        slot.child.process.wait()


def ended(slot, seconds=180.0):
    deadline = time.monotonic() + seconds
    while (end := slot.tend()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return end


def working(slot):
    while not slot.busy:
        assert slot.tend() is None
        time.sleep(0.02)


def test_a_kill_at_work_waits_for_the_first_work(place):
    place.start(Kill("work", after=0.1))
    assert ended(place) == "killed" and place.last_words() == "None"


def test_a_failpoint_is_armed_by_the_environment(place):
    place.start(Kill("failpoint", "labeler.3", passes=2))
    working(place)
    assert place.last_words() == "labeler.3:2"
    psutil.Process(place.child.pid).kill()
    assert ended(place) == "killed"


def test_who_never_comes_to_its_failpoint_is_killed_late(place, monkeypatch):
    monkeypatch.setattr(module, "WORK_SECONDS", 0.3)
    place.start(Kill("failpoint", "labeler.3"))
    assert ended(place) == "late"


def test_who_is_not_wanted_is_asked_to_end(place):
    place.start(None)
    working(place)
    place.wanted = False
    assert ended(place) == "ended" and not place.startable


def test_who_is_recycled_ends_and_another_may_start(place):
    place.start(None)
    working(place)
    place.recycle()
    assert ended(place) == "ended"
    time.sleep(module.RESTART_SECONDS)
    assert place.startable


def test_who_is_asked_to_end_before_it_can_hear_it_has_ended_as_asked(place):
    place.child.argv = [sys.executable, "-c", "import time; time.sleep(10_000)"]
    place.start(None)
    place.wanted = False
    assert ended(place) == "ended"


def test_who_ends_by_itself_is_told_apart(place):
    place.child.argv = [sys.executable, "-c", "raise SystemExit('no reason')"]
    place.start(None)
    assert ended(place) == "exited" and place.last_words() == "no reason"


def test_a_frozen_labeler_is_not_killed_and_goes_on(place):
    place.start(Kill("work", after=0.2))
    working(place)
    frozen = time.monotonic()
    place.freeze(0.6)
    assert ended(place) == "killed" and time.monotonic() - frozen >= 0.6


def test_frozen_means_stopped(place):
    place.start(None)
    working(place)
    place.freeze(1e5)
    pid = place.child.pid
    deadline = time.monotonic() + 180.0
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    place.thaw()
    psutil.Process(pid).send_signal(signal.SIGTERM)
    assert ended(place) == "exited", "nobody asked this place to end"
