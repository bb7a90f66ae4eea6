"""The program that sets up the workers of a test's Ray: it has them forked, and starts those that it cannot."""

import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from pipelines.fork_server import ENVIRONMENT
from tests import ray_workers
from tests.ray_start import WORKERS, forking
from tests.waiting import wait_for

WORKER = """
import os, sys
print(os.environ["GIVEN"], os.environ["LEFT"], sys.argv, "json" in sys.modules, os.getppid(), file=sys.stderr)
sys.exit(3)
"""


@pytest.fixture
def started(tmp_path, monkeypatch):
    """What a worker says, and with what it ends."""
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setenv("LEFT", "left")
    context = '{"env_vars": {"GIVEN": "given"}}'

    def run(*words):
        command = [sys.executable, WORKERS, *words, "x", "--language=PYTHON"]
        command.append(f"--serialized-runtime-env-context={context}")
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stderr

    return run


@pytest.fixture
def server(monkeypatch):
    """What workers are forked from; Ray starts its workers as ever where the test has ended."""
    from ray._private import ray_constants

    monkeypatch.setattr(ray_constants, "SETUP_WORKER_FILENAME", ray_constants.SETUP_WORKER_FILENAME)
    monkeypatch.setenv(ray_workers.VARIABLE, "")
    with forking(["json"]) as made:
        yield made
        made.stdin.close()


@pytest.mark.integration
def test_a_worker_is_forked_in_the_environment_and_with_the_arguments_that_ray_gives_it(server, started, tmp_path):
    for words, first in ((["worker.py"], "worker.py"), (["-m", "worker"], f"{tmp_path}/worker.py")):
        code, said = started(*words)
        assert (code, said.splitlines()[-1]) == (3, f"given left ['{first}', 'x'] True {server.pid}")


@pytest.mark.integration
def test_one_that_cannot_be_forked_is_started_as_ray_does(started, monkeypatch):
    monkeypatch.setenv(ray_workers.VARIABLE, "nobody")
    code, said = started("worker.py")
    assert code == 3 and "nothing to fork a worker from" in said and "given left ['worker.py', 'x'] False" in said


@pytest.mark.integration
def test_what_they_are_forked_from_imports_in_the_environment_of_a_platform_s(server):
    environment = Path(f"/proc/{server.pid}/environ")  # of the program that it is: none while it is loaded
    wanted = {f"{name}={value}".encode() for name, value in ENVIRONMENT.items()}
    wait_for(lambda: wanted <= set(environment.read_bytes().split(b"\0")), seconds=30.0)


@pytest.mark.parametrize("told", [b"", b'{"pid": 7}\n'])
@pytest.mark.parametrize("read", [True, False])
def test_one_fails_that_is_not_told_how_it_ended(started, monkeypatch, told, read):
    name = f"cohobate-test-ray-{uuid.uuid4().hex}"
    monkeypatch.setenv(ray_workers.VARIABLE, name)

    def end(listener):
        """Accept one, and end: where what it said was not read, it finds its connection reset."""
        connection, _ = listener.accept()
        with connection:
            if read:
                (length,) = ray_workers.HEADER.unpack(connection.recv(ray_workers.HEADER.size))
                connection.recv(length, socket.MSG_WAITALL)
            connection.sendall(told)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        server = threading.Thread(target=end, args=(listener,))
        server.start()
        code, said = started("worker.py")
        server.join()
    assert code == 1 and said == "what workers are forked from ended before it told how this one did\n"
