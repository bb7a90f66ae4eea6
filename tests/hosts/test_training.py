"""An update that trains by workers on several hosts, from a host that is none of them: ``make hosts``.

The step is a client of the cluster, or has a job of it train.

Its checkpoints are in the object store; the folder that hosts and this process share is only for what they say.
"""

import json
import os

import pytest

from tests import machines
from tests.hosts import nodes
from tests.integration.work import EPOCHS, STEPS
from tests.kubelet import SECONDS, ended
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(3600),
    pytest.mark.skipif("COHOBATE_TEST_HOSTS" not in os.environ, reason="make hosts: it takes minutes"),
]

WORKERS = (2, 3, 4)
STEP = 5
"""Hosts: one worker fits on each of three, and the step that waits for two of them runs on another."""

HELD = 9
"""After so many steps they wait, until they are let go."""

WATCHED = '''
import time
import ray


class Watched(Watched):
    """Says where it takes each step, and takes no more of them where a file says so."""

    def forward(self, ids, weights):
        found = super().forward(ids, weights)
        if self.training and torch.distributed.is_initialized():
            above = self.folder.parent
            with (above / "steps").open("a") as file:
                print(ray.util.get_node_ip_address(), torch.distributed.get_rank(), file=file)
            while (above / "hold").exists() and len((above / "steps").read_text().splitlines()) >= 2 * HELD:
                time.sleep(0.1)
        return found
'''

RUN = """
import json, sys
from dataclasses import replace
from pathlib import Path
from components.contracts.settings import Settings
from components.distill.fit import fit
from tests.integration.work import work
folder = Path("/srv/shared")
one = work(folder)
with (folder / "nets.py").open("a") as file:
    file.write(sys.argv[1])
place = Settings().artifacts + "/w/training"
found = fit(replace(one, checkpoint=place + "/two.pt"), "two", place + "/ray")
(folder / "found.json").write_text(json.dumps(found.history))
"""


@pytest.fixture
def made(tmp_path):
    with nodes.running(tmp_path, STEP) as found:
        yield found


@pytest.mark.parametrize(("scheme", "port"), [("ray", 10001), ("http", 8265)])
def test_a_host_of_a_worker_dies_and_the_update_goes_on_from_its_checkpoint(made, scheme, port):
    hosts, shared = made.hosts, made.hosts.shared
    made.form(dict.fromkeys(WORKERS, 1))
    (shared / "hold").touch()
    env = machines.environment(
        COHOBATE_RAY_ADDRESS=f"{scheme}://{made.place(port)}", COHOBATE_HOME="/srv/cohobate",
        **{k: v for k, v in made.env.items() if k.startswith("AWS_") or k == "COHOBATE_ARTIFACT_ROOT"},
    )  # fmt: skip
    log = made.folder / "step.log"
    step = hosts.start(STEP, "python", "-c", RUN, WATCHED.replace("HELD", str(HELD)), env=env, log=log)
    try:

        def steps():
            assert step.poll() is None, log.read_text()[-3000:]
            made = shared / "steps"
            return [tuple(line.split()) for line in made.read_text().splitlines()] if made.exists() else []

        wait_for(lambda: len(steps()) >= 2 * HELD, SECONDS)
        before = steps()
        where, known = {rank: address for address, rank in before}, {hosts.address(n): n for n in WORKERS}
        assert set(where) == {"0", "1"} and where["0"] != where["1"] and set(where.values()) < set(known)
        hosts.kill(known[where["1"]])
        (shared / "hold").unlink()
        assert step.wait(SECONDS) == 0, log.read_text()[-3000:]
    finally:
        ended(step, 0)
    after = [tuple(line.split()) for line in (shared / "steps").read_text().splitlines()][len(before) :]
    print(f"steps before and after the host died: {len(before)}, {len(after)}")
    assert {address for address, _ in after} == set(known) - {where["1"]}, "the host that was left over took over"
    assert len(json.loads((shared / "found.json").read_text())) == EPOCHS
    assert len(after) < 2 * EPOCHS * STEPS - HELD, "it went on, and did not begin anew"
