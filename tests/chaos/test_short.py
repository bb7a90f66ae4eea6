"""A short chaos run for every change; the long one is ``python -m tests.chaos``."""

import json
import os
import subprocess
import sys

import pytest

from tests.chaos import apache
from tests.chaos.failpoints import ROOT

KILLS, BROKER_KILLS = 6, 1


@pytest.mark.integration
@pytest.mark.timeout(1200)
def test_nothing_is_lost_or_labelled_twice():
    if reason := apache.missing():
        pytest.skip(reason)
    argv = [sys.executable, "-m", "tests.chaos", "--seed", "4", "--seconds", "600", "--json"]
    argv += ["--kills", str(KILLS), "--broker-kills", str(BROKER_KILLS)]
    ran = subprocess.run(argv, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=1150)
    report = json.loads(ran.stdout)
    assert sum(report["kills"].values()) == KILLS and report["broker_kills"] == BROKER_KILLS
    assert report["produced"] > 100 and report["poison"] > 0 and report["unconfirmed"] == 0
    assert 0 < report["answered"] <= report["published"]
    assert not any(report["verdict"].values()), report
    assert report["last_line"] == f"lost 0 duplicated 0 kills {KILLS}" and ran.returncode == 0, report
