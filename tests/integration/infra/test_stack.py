"""How long the supervisor waits for a gateway that is on its way up, and what it says when it does not come."""

import sys
from pathlib import Path
from time import sleep
from time import time as now
from types import SimpleNamespace

import pytest

from components.contracts.errors import UnavailableError
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.control.store import ControlStore
from components.control.workloads import changes, in_force
from infra import processes, stack
from infra.processes import Child, last_line, progress_marks, stop_all
from infra.specs import prepared
from infra.stack import Stack, read_state
from infra.workloads import spec_path
from tests.ports import free_port

pytestmark = pytest.mark.integration

DIES = "import sys; print('starting'); print('ConfigError: teacher is wrong', flush=True); sys.exit(3)"
SLEEPS = "import time; time.sleep(600)"
SERVES = """
import http.server, sys

class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Healthy).serve_forever()
"""
MOVES = """
import pathlib, subprocess, sys, time
folder = pathlib.Path(sys.argv[3])

def looks():
    return int((folder / 'looks').read_text())

def is_now(seconds):
    'Set the clock of who waits, once it has had a look at what was done before.'
    since = looks()
    while looks() < since + 2:
        time.sleep(0.01)
    (folder / 'clock.new').write_text(str(seconds))
    (folder / 'clock.new').rename(folder / 'clock')
"""
SILENT = f"{MOVES}\nprint('importing', flush=True)\nis_now(10)\ntime.sleep(600)"
ANSWERS = f"""{MOVES}
for step in range(6):  # each well within what may be quiet, all together longer
    print(f'step {{step}} of 6', flush=True)
    is_now(step + 1)
exec(sys.argv[2])
"""
CHILDREN = f"""{MOVES}
for step in range(3):
    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
    is_now(2 * step + 1)
    child.kill()
    child.wait()
    is_now(2 * step + 2)
exec(sys.argv[2])
"""


@pytest.fixture
def time(tmp_path, monkeypatch):
    """The clock of who waits is one that the program moves; between its looks it does not wait long."""
    (tmp_path / "clock").write_text("0")
    (tmp_path / "looks").write_text("0")

    def looked(children):
        found = progress_marks(children)
        (tmp_path / "looks.new").write_text(str(int((tmp_path / "looks").read_text()) + 1))
        (tmp_path / "looks.new").rename(tmp_path / "looks")
        return found

    made = SimpleNamespace(
        monotonic=lambda: float((tmp_path / "clock").read_text()), sleep=lambda _: sleep(0.01), time=now
    )
    monkeypatch.setattr(stack, "time", made)
    monkeypatch.setattr(stack, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(stack, "progress_marks", looked)
    monkeypatch.setattr(stack, "QUIET_SECONDS", 2.5)


@pytest.fixture
def waiting(tmp_path):
    """A stack of which only the gateway is there: a program, and perhaps another worker."""
    started = []

    def make(*programs):
        said = []
        made = Stack(Settings(home=tmp_path, gateway_port=free_port()), [load_spec(spec_path("files"))], said.append)
        for index, program in enumerate(programs):
            command = [sys.executable, "-c", program, str(made.settings.gateway_port), SERVES, str(tmp_path)]
            child = Child(("gateway", "files-labeler")[index], command, {}, tmp_path)
            child.start()
            started.append(child)
        made.children = started
        return made, said

    yield make
    stop_all(started)


def test_it_waits_as_long_as_lines_come_and_says_what_for(waiting, time):
    made, said = waiting(ANSWERS)
    made._await_gateway()
    assert [line for line in said if "step" in line] == [f"Ray Serve gateway: step {n} of 6" for n in range(6)]


def test_processes_that_begin_and_end_are_progress_too(waiting, time):
    made, _ = waiting(CHILDREN)
    made._await_gateway()


def test_it_gives_up_when_nothing_moved_and_says_what_was_last(waiting, time, tmp_path):
    (tmp_path / "gateway.log").write_text("of the run before\n")
    made, _ = waiting(SILENT)
    with pytest.raises(
        UnavailableError, match=r"nothing moved for 2 s; last it said: importing \(its log: .*gateway\.log"
    ):
        made._await_gateway()


def test_a_worker_that_dies_ends_the_wait_at_once_with_its_reason(waiting):
    made, _ = waiting(SLEEPS, DIES)
    with pytest.raises(UnavailableError, match=r"files-labeler.*ended with 3: ConfigError: teacher is wrong"):
        made._await_gateway()


LATE = """
import pathlib, sys
if len(sys.argv) < 6:
    sys.exit(0)
tries = pathlib.Path(sys.argv[4])
tries.write_text(tries.read_text() + 'x' if tries.exists() else 'x')
if len(tries.read_text()) < int(sys.argv[5]):
    print('Ray is late', flush=True)
    sys.exit(75)
exec(sys.argv[2])
"""


@pytest.mark.parametrize(("needs", "comes"), [(2, True), (9, False)])
def test_a_worker_that_asks_for_another_try_gets_some(waiting, monkeypatch, tmp_path, needs, comes):
    monkeypatch.setattr(processes, "RESTART_SECONDS", (0.1,))
    made, _ = waiting(LATE)
    made.children[0].stop()
    made.children[0].argv += [str(tmp_path / "tries"), str(needs)]
    made.children[0].start()
    if comes:
        made._await_gateway()
    else:
        with pytest.raises(UnavailableError, match="ended with 75: Ray is late"):
            made._await_gateway()
    assert len((tmp_path / "tries").read_text()) == (needs if comes else 1 + stack.TRIES)


def test_the_last_line_of_a_log(tmp_path):
    log = tmp_path / "a.log"
    assert last_line(log) == ""
    log.write_text("one\ntwo \n\n  \n")
    assert last_line(log) == "two"
    assert last_line(log, since=4) == "two" and last_line(log, since=9) == ""
    log.write_text("x" * 100_000 + "end")
    assert last_line(log, most=10) == "x" * 7 + "end"


def test_what_moves_changes_the_marks_and_nothing_else_does(tmp_path):
    child = Child("c", [sys.executable, "-c", "input()"], {}, tmp_path)
    before = progress_marks([child])
    assert before == progress_marks([child])
    child.log.write_text("a line\n")
    assert progress_marks([child]) != before


@pytest.mark.parametrize(
    ("workload", "roles", "hit"),
    [
        ("files", ("labeler",), ["files-labeler", "files-labeler-2"]),
        ("files", ("trigger",), ["monitors"]),
        ("files", ("controller", "labeler"), ["controllers", "files-labeler", "files-labeler-2"]),
        ("files-labeler", ("labeler",), ["files-labeler-labeler"]),
        ("other", ("labeler",), []),
    ],
)
def test_a_restart_is_of_one_workloads_roles_alone(waiting, workload, roles, hit, tmp_path):
    made, _ = waiting()
    names = [
        "gateway", "controllers", "monitors", "files-labeler", "files-labeler-2", "mail-labeler",
        "files-labeler-labeler",
    ]  # fmt: skip
    restarted = []

    class Noted(Child):
        def stop(self, seconds=0.0):
            restarted.append(self.name)

        def start(self):
            assert restarted[-1] == self.name

    old, new = made.specs[0].source, str(tmp_path / "new.yaml")
    (tmp_path / "new.yaml").write_text(Path(old).read_text().replace("name: files", f"name: {workload}"))
    made.children = [Noted(name, ["worker", old], {}, tmp_path) for name in names]
    made.restart(workload, roles, new)
    now = new if workload == "files" else old
    assert all(child.argv == ["worker", now] for child in made.children)
    assert read_state(made.settings).specs == (now,)
    assert restarted == hit


def test_what_a_platform_is_started_with_is_registered_and_so_is_what_another_start_changes(tmp_path):
    settings = Settings(home=tmp_path, actor="ana")
    store = ControlStore(settings.control_url)
    store.migrate()
    (tmp_path / "code.py").write_text("class T: pass\n")
    seen = []
    for seed in (1, 1, 2):
        text = f"name: w\nseed: {seed}\nteacher: {{factory: 'code.py:T'}}\nfeatures: {{factory: 'builtins:dict'}}\n"
        (tmp_path / "w.yaml").write_text(text)
        made = Stack(settings, [prepared(settings, tmp_path / "w.yaml"), load_spec(spec_path("files"))])
        made._register()
        seen.append(in_force(store, "w"))
        assert seen[-1].reference == made.specs[0].source
    assert [v.number for v in seen] == [1, 1, 2] and seen[0].actor == "ana"
    assert [c.reason for c in changes(store, "w")] == ["the platform was started with it"] * 2
    assert not changes(store, "files")  # a file that no bundle was made of is read where it lies
    store.close()
