"""Steps that are forked from a server, and what becomes of them when they, the server, or who asked for them dies."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from components.contracts.settings import IMAGE
from pipelines.forked import FILE, GoneError, Warm, fork
from pipelines.steps import NICENESS, RESTARTS, steps_of
from tests.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]

SECONDS = 90.0


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A server that nobody ends."""
    server = Warm(tmp_path_factory.mktemp("warm"), ["kfp.dsl.executor_main"])
    server.start()
    yield server
    server.stop()


@pytest.fixture
def served(shared, home):
    """The home has that server, which is up for the whole test: else the steps would run by themselves unnoticed."""
    assert shared.up
    home.mkdir(parents=True)
    shutil.copy(shared.home / FILE, home)
    yield shared
    assert shared.up


@pytest.fixture
def warm(home):
    """The home has a server of its own."""
    server = Warm(home, ["kfp.dsl.executor_main"])
    server.start()
    yield server
    server.stop()


@pytest.fixture
def step(home, tmp_path):
    """Runs one component by Kubeflow's local runner; returns what it wrote."""
    from kfp import dsl, local

    @dsl.component(base_image=IMAGE, install_kfp_package=False)
    def act(folder: str, program: str) -> str:
        """Run a program that is told where its notes lie."""
        told = {}
        exec(program, {"folder": folder, "told": told})  # noqa: S102
        return str(told.get("said", ""))

    def run(program):
        local.init(
            runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"), raise_on_error=True
        )
        with steps_of(home):
            return act(folder=str(tmp_path), program=program).output

    return run


PARENT = "import os; told['said'] = os.getppid()"


def test_a_step_is_forked_where_there_is_a_server_and_runs_by_itself_where_there_is_none(warm, step):
    assert step(PARENT) == str(warm.pid)
    warm.stop()
    assert step(PARENT) not in ("", str(warm.pid))


def test_a_server_with_other_code_is_left_alone(served, home, step):
    file = home / FILE
    file.write_bytes(file.read_bytes().replace(b"fork_server.py", b"other.py"))
    assert step(PARENT) != str(served.pid)


def test_a_forked_step_has_its_asker_s_environment_and_no_thread_or_file_of_the_server_s(served, step, monkeypatch):
    monkeypatch.setenv("COLOUR", "mauve")
    monkeypatch.delenv("HOME", raising=False)
    seen = step(
        "import os, threading\n"
        "files = sorted(os.readlink(f'/proc/self/fd/{n}').split(':')[0] for n in os.listdir('/proc/self/fd')\n"
        "               if os.path.lexists(f'/proc/self/fd/{n}'))\n"
        "told['said'] = [os.environ.get('COLOUR'), os.environ.get('HOME'), threading.active_count(),\n"
        "                len(os.listdir('/proc/self/task')), 'socket' in files]"
    )
    assert seen == "['mauve', None, 1, 1, False]"


def test_only_the_reports_stand_back(served, step, monkeypatch):
    program = "import os; told['said'] = os.nice(0)"
    assert step(program) == str(os.nice(0))
    monkeypatch.setattr("pipelines.steps.REPORT", "act")
    assert step(program) == str(min(19, os.nice(0) + NICENESS))


def test_random_numbers_are_a_step_s_own(served, step):
    program = "import random; told['said'] = random.random()"
    assert step(program) != step(program)


def test_what_a_step_prints_and_how_it_fails_is_seen(served, step, capfd):
    assert step("print('loud'); " + PARENT) == str(served.pid)
    with pytest.raises(RuntimeError, match="FAILURE"):
        step("raise ValueError('broken')")
    with pytest.raises(RuntimeError, match="FAILURE"):
        step("raise SystemExit('refused')")
    out = capfd.readouterr().out
    assert "    loud" in out and "ValueError: broken" in out and "\n    refused\n" in out


ONCE = """
import os, pathlib, signal, time
mark = pathlib.Path(folder, 'mark')
if not mark.exists():
    mark.touch()
    {act}
told['said'] = 'done'
"""


@pytest.mark.parametrize("forked", [True, False])
def test_a_step_that_is_killed_is_started_anew(served, home, step, forked, capfd):
    if not forked:
        (home / FILE).unlink()
    assert step(ONCE.format(act="os.kill(os.getpid(), signal.SIGKILL)")) == "done"
    assert "the step act was ended by signal 9: it is started anew" in capfd.readouterr().out


def test_a_step_that_is_killed_each_time_fails(served, step, tmp_path):
    with pytest.raises(RuntimeError, match="FAILURE"):
        step("import os, pathlib; pathlib.Path(folder, str(os.getpid())).touch(); os.kill(os.getpid(), 9)")
    assert len([path for path in tmp_path.iterdir() if path.name.isdigit()]) == RESTARTS + 1


def test_a_step_ends_with_its_server_and_is_started_anew_without(warm, step, tmp_path):
    act = "pathlib.Path(folder, 'pid').write_text(str(os.getpid())); os.kill(os.getppid(), 9); time.sleep(600)"
    assert step(ONCE.format(act=act)) == "done"
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not psutil.pid_exists(pid), SECONDS)


def test_it_is_started_when_it_is_wanted_and_ends_when_nobody_wants_it_for_long(home, monkeypatch):
    monkeypatch.setattr("pipelines.forked.AGAIN_SECONDS", 3_600.0)
    server = Warm(home, [])
    server.tend(wanted=False)
    assert not server.up
    server.tend(wanted=True)
    first = server.pid
    assert first is not None
    server.tend(wanted=False)
    assert server.pid == first, "one is kept for a while"
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not server.up, SECONDS)
    server.tend(wanted=True)
    assert not server.up, "one that dies at once is not started again and again"
    monkeypatch.setattr("pipelines.forked.AGAIN_SECONDS", 0.0)
    server.tend(wanted=True)
    assert server.up and server.pid != first
    monkeypatch.setattr("pipelines.forked.IDLE_SECONDS", 0.0)
    server.tend(wanted=False)
    assert not server.up and not (home / FILE).exists()
    with pytest.raises(GoneError, match="has no fork server"):
        fork(home, "step", [], {}, 1)


def test_nonsense_ends_no_server(served, home, step):
    import socket

    import msgspec

    where = msgspec.json.decode((home / FILE).read_bytes())
    for data in (b"", b"abc", b"\0\0\0\2{}", b"\0\0\0\1"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{where['folder']}/socket")
            client.sendall(data)
    with pytest.raises(GoneError, match="does not answer"):
        fork(home, "shell", [], {}, 1)
    assert step(PARENT) == str(served.pid)


STARTER = """
import sys, time
from pathlib import Path
from pipelines.forked import Warm
server = Warm(Path(sys.argv[1]), [])
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


def test_a_server_ends_with_its_starter(home):
    with subprocess.Popen([sys.executable, "-c", STARTER, str(home)], stdout=subprocess.PIPE) as starter:
        pid = int(starter.stdout.readline())
        assert psutil.pid_exists(pid)
        starter.kill()
    wait_for(lambda: not psutil.pid_exists(pid), SECONDS)


@pytest.fixture
def run(warm, spec, store, settings, home, monkeypatch):
    """A run that waits for an order to be carried out, which nobody does; forked from the server."""
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / FILE).write_bytes((home / FILE).read_bytes())
    with Path(os.devnull).open("wb") as nothing:
        made = fork(settings.home, "run", ["rollback", spec.source, "why"], os.environ, nothing)
    wait_for(lambda: store.open_orders("tickets"), SECONDS)
    yield made
    made.close()


@pytest.mark.parametrize("end", ["hang up", "terminate", "the server's death"])
def test_a_run_ends_with_who_asked_for_it_or_its_server_and_is_recorded_as_failed(run, end, store, warm):
    children = [p.pid for p in psutil.Process(warm.pid).children()]
    assert run.pid in children and len(children) == 2, "the run and its step"
    if end == "hang up":
        run.close()
    elif end == "terminate":
        run.terminate()
        assert run.wait(SECONDS) == 143
    else:
        os.kill(warm.pid, signal.SIGKILL)
        with pytest.raises(GoneError):
            run.wait(SECONDS)
    (row,) = wait_for(lambda: [r for r in store.runs("tickets") if r.status != "running"], SECONDS)
    assert (row.status, row.detail["failure"]) == ("failed", "it was ended")
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in children), SECONDS)
