"""Processes that are forked for a test end with it, so that a run which is killed leaves none."""

import os
import subprocess
import sys

import pytest

from tests.waiting import ended, wait_for

ASKER = """
import os, sys, time
from pathlib import Path
from tests.forks import forked
process = forked(time.sleep, 600, environment=os.environ, log=Path(sys.argv[1]))
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.integration
def test_they_end_with_who_asked_for_them_though_it_is_killed(tmp_path):
    command = [sys.executable, "-c", ASKER, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.getcwd()}) as asker:
        pid = int(asker.stdout.readline())
        assert not ended(pid)
        asker.kill()
    wait_for(lambda: ended(pid))
