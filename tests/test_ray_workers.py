"""The program that sets up the workers of a test's Ray: it has them forked, and starts those that it cannot."""

import subprocess
import sys

import pytest

from tests import ray_workers
from tests.ray_start import WORKERS, forking

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
