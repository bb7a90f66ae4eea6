import os
import sys
from pathlib import Path

import psutil

from infra.processes import Child, stop_all
from tests.waiting import ended, wait_for

FOREVER = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [sys.executable, "-c", "import signal, time; signal.signal(15, 1); print('on', flush=True); time.sleep(600)"]


def test_a_child_runs_until_it_is_stopped(tmp_path: Path) -> None:
    child = Child("sleeper", FOREVER, {}, tmp_path)
    child.start()
    pid = child.pid
    assert pid is not None and psutil.pid_exists(pid)
    child.stop()
    assert child.pid is None and not psutil.pid_exists(pid)


def test_a_dead_child_is_started_again_after_its_wait(tmp_path: Path) -> None:
    child = Child("fragile", FOREVER, {}, tmp_path)
    child.start()
    first = child.pid
    psutil.Process(first).kill()
    wait_for(lambda: child.pid is None)
    assert not child.tend(), "it waits before it starts again"
    wait_for(child.tend)
    assert child.restarts == 1 and child.pid not in (None, first)
    child.stop()


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    child = Child("stubborn", STUBBORN, {}, tmp_path)
    child.start()
    wait_for(lambda: "on" in child.log.read_text())
    child.stop(seconds=0.3)
    assert child.pid is None


def test_children_get_their_environment_and_a_log(tmp_path: Path) -> None:
    program = "import os; print(os.environ['COLOUR'])"
    child = Child("painter", [sys.executable, "-c", program], {"COLOUR": "mauve"}, tmp_path)
    child.start()
    wait_for(lambda: child.pid is None)
    assert child.log.read_text() == "mauve\n"
    child.stop()


def test_children_end_when_a_bound_parent_is_killed(tmp_path: Path) -> None:
    grandchild = tmp_path / "grandchild.pid"
    inner = (
        "from infra.processes import die_with_parent; die_with_parent(); import os, pathlib, time; "
        f"pathlib.Path({str(grandchild)!r}).write_text(str(os.getpid())); time.sleep(600)"
    )
    outer = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {inner!r}]).wait()"
    child = Child("outer", [sys.executable, "-c", outer], {"PYTHONPATH": os.getcwd()}, tmp_path)
    child.start()
    wait_for(lambda: grandchild.exists() and grandchild.read_text())
    pid = int(grandchild.read_text())
    psutil.Process(child.pid).kill()
    wait_for(lambda: ended(pid))
    child.stop()


def test_stop_all_stops_all(tmp_path: Path) -> None:
    children = [Child(f"c{i}", FOREVER, {}, tmp_path) for i in range(3)]
    for child in children:
        child.start()
    stop_all(children)
    assert [c.pid for c in children] == [None, None, None]
