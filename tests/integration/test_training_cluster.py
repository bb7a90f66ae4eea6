"""Workers that train on a Ray cluster which the pipeline's step is no node of, and end with the step.

The step is a client of the cluster, or submits a job to it. In one test it runs on the node itself.
"""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest
import torch

from components.contracts import failpoint
from components.distill import checkpoint
from components.distill.fit import fit
from components.distill.prune import answers
from components.distill.work import fresh
from tests.forks import forked, preload
from tests.integration.work import EPOCHS, NETWORK, ROWS, STEPS, work
from tests.ports import free_port
from tests.ray_start import FEW, WORKERS, head
from tests.serving.test_app import SEARCH
from tests.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800), pytest.mark.filterwarnings("ignore")]

TOKEN, SECRET = "a-token-of-this-test" * 3, "a-password-of-this-test"
MEMBER = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
"""Variables of whoever is a part of the cluster."""

START_SECONDS = 300.0

TOLD = '''
import time


class Watched(Watched):
    """Says where it learns, and learns nothing more where a file wants that."""

    def forward(self, ids, weights):
        found = super().forward(ids, weights)
        if self.training and torch.distributed.is_initialized():
            above = self.folder.parent
            (above / f"at-{os.getpid()}").write_text(os.environ.get("TEST_CLUSTER", "elsewhere"))
            while (above / "wait").exists():
                time.sleep(0.1)
        return found
'''

DIES_AFTER = 10
"""More than half of the steps: with as many left, the next life would die as well, once it has nothing left to do."""

IMPORTED = (
    "torch", "torch._dynamo", "pandas", "pyarrow.parquet", "pyarrow.dataset", "google.protobuf.json_format", "aiohttp",
    "grpc.aio", "jsonschema", "requests", "opentelemetry.sdk.trace", "components.distill.fit",
    "components.distill.loop", "components.distill.networks.bag", "components.student.table",
)  # fmt: skip
"""What workers import beside Ray, and those that watch over them."""

preload(__name__)


def step(folder, scheme):
    """Train as a step does that has a process of its own."""
    given = pickle.loads((folder / "work.pkl").read_bytes())  # noqa: S301
    found = fit(given, "two", f"{scheme}://{folder}/ray")
    (folder / "found.pkl").write_bytes(pickle.dumps(found.history))


def step_on_a_node(folder, address):
    """Train as a step does that runs on a node, by workers of which the second dies once."""
    import ray

    variables = {failpoint.VARIABLE: f"train.3.1:{DIES_AFTER}"}
    ray.init(address=address, log_to_driver=False, configure_logging=False, runtime_env={"env_vars": variables})
    found = fit(pickle.loads((folder / "work.pkl").read_bytes()), "two", f"file://{folder}/ray")  # noqa: S301
    (folder / "found.pkl").write_bytes(pickle.dumps((found.history, found.net.state_dict())))
    ray.shutdown()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The variables of a client of a Ray head that asks for a token; what runs there is told where it is."""
    home, (address, dashboard, agent, client) = tmp_path_factory.mktemp("home"), (free_port() for _ in range(4))
    (home / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} {WORKERS} "$@"\n')  # a job is forked as well
    (home / "python3").chmod(0o755)
    env = os.environ | MEMBER | {
        "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore",
        "TEST_CLUSTER": "there", "COHOBATE_HOME": str(home / "there"),
        "PATH": f"{home}:{os.environ['PATH']}",
    }  # fmt: skip
    options = [
        f"--port={address}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
        f"--ray-client-server-port={client}", "--num-cpus=4", "--dashboard-host=127.0.0.1",
    ]  # fmt: skip
    with head(env, *options, modules=IMPORTED) as folder:
        yield {
            **os.environ, **FEW, "PYTHONWARNINGS": "ignore", "COHOBATE_HOME": str(home / "own"),
            "COHOBATE_RAY_ADDRESS": f"ray://127.0.0.1:{client}", "COHOBATE_RAY_TOKEN": TOKEN,
            "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "1", "TEST_JOBS": f"http://127.0.0.1:{dashboard}",
            "TEST_HEAD": f"127.0.0.1:{address}", "TEST_LOGS": str(folder / "ray/session_latest/logs"),
        }  # fmt: skip


@pytest.fixture(params=[2])
def folder(request, tmp_path):
    """What a step is to learn, by as many workers."""
    (tmp_path / "work.pkl").write_bytes(pickle.dumps(work(tmp_path, request.param)))
    (tmp_path / "nets.py").write_text(NETWORK + TOLD)
    return tmp_path


alone = pytest.mark.parametrize("folder", [1], indirect=True)
"""For tests of how training ends: a second worker would take more time to start than all that they look at."""


@pytest.fixture
def jobs(cluster):
    """The variables of a step that trains by a job, among them passwords."""
    listed(cluster)
    given = {"COHOBATE_DATABASE_URL": f"postgresql+psycopg://me:{SECRET}@host/db", "AWS_SECRET_ACCESS_KEY": SECRET}
    return cluster | given | {"COHOBATE_RAY_ADDRESS": cluster["TEST_JOBS"]}


def listed(cluster):
    """All jobs that the cluster knows, as it tells of them once its Jobs API answers."""
    asked, bearer = f"{cluster['TEST_JOBS']}/api/jobs/", {"Authorization": f"Bearer {TOKEN}"}

    def answered():
        with contextlib.suppress(httpx.TransportError):
            found = httpx.get(asked, headers=bearer, timeout=90.0)
            return found if found.status_code == 200 else None

    return wait_for(answered, START_SECONDS).json()


def of_step(cluster, before):
    """Those that were not there before, by their ids."""
    known = {job["submission_id"] for job in before}
    return {job["submission_id"]: job for job in listed(cluster) if job["submission_id"] not in known}


def kept(cluster, *texts):
    """Which of the texts Ray keeps, in its control service or in its logs."""
    given = json.dumps({"address": cluster["TEST_HEAD"], "texts": texts, "serve": False})
    env = os.environ | MEMBER | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", SEARCH], env=env, input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    logs = [p.read_bytes() for p in Path(cluster["TEST_LOGS"]).rglob("*") if p.is_file()]
    return [bool(found[text]) or any(text.encode() in log for log in logs) for text in texts]


def started(cluster, folder, scheme="file"):
    """A step that trains, as a process of its own; ``scheme`` is of the URI of Ray's own state."""
    (folder / "step.log").write_bytes(b"")
    return forked(step, folder, scheme, environment=cluster, log=folder / "step.log")


def ended(process):
    """With what a step ended, once it has."""
    process.join(START_SECONDS)
    return process.exitcode


def said(folder):
    """What a step has said."""
    return (folder / "step.log").read_text()


def why(folder):
    """What a step that ended said at its end."""
    return said(folder)[-3000:]


def told(folder):
    """Where those learn who do, by their process ids."""
    found = {int(path.name.removeprefix("at-")): path.read_text() for path in folder.glob("at-*")}
    return {pid: where for pid, where in found.items() if where}


@contextlib.contextmanager
def at_work(cluster, folder, workers=2):
    """A step whose workers have begun to learn, and wait; it is killed at the end of the block."""
    (folder / "wait").touch()
    process = started(cluster, folder)
    try:
        wait_for(lambda: not process.is_alive() or len(told(folder)) == workers, START_SECONDS)
        assert process.is_alive(), why(folder)
        yield process
    finally:
        process.kill()
        process.join()


def gone(pids):
    return not any(psutil.pid_exists(pid) for pid in pids)


def test_workers_train_on_the_cluster_and_leave_what_the_step_goes_on_from(cluster, folder):
    assert ended(started(cluster, folder)) == 0, why(folder)
    assert len(pickle.loads((folder / "found.pkl").read_bytes())) == EPOCHS  # noqa: S301
    assert list(told(folder).values()) == ["there"] * 2
    wait_for(lambda: gone(told(folder)), START_SECONDS)


@alone
def test_training_ends_with_the_step_that_waits_for_it(cluster, folder):
    with at_work(cluster, folder, 1):
        assert not gone(told(folder))
    wait_for(lambda: gone(told(folder)), START_SECONDS)
    assert not (folder / "found.pkl").exists()


def test_a_job_of_a_step_that_was_killed_is_taken_up_by_the_next(jobs, folder):
    before = listed(jobs)
    with at_work(jobs, folder):
        pass
    second = started(jobs, folder)
    try:
        wait_for(lambda: not second.is_alive() or "is waited for" in said(folder), START_SECONDS)
        assert second.is_alive() and not gone(told(folder)), why(folder)
        (folder / "wait").unlink()
        assert ended(second) == 0, why(folder)
    finally:
        second.kill()
        second.join()
    assert len(pickle.loads((folder / "found.pkl").read_bytes())) == EPOCHS  # noqa: S301
    assert list(told(folder).values()) == ["there"] * 2
    assert "TorchTrainer" in said(folder) or "RayTrain" in said(folder), "what the job said is passed on"
    (job,) = of_step(jobs, before).values()
    assert job["status"] == "SUCCEEDED"
    assert kept(jobs, job["submission_id"], SECRET, TOKEN) == [True, False, False]
    assert not [*folder.glob("*.rows"), *folder.glob("*.job")], "what the job read is gone"


@alone
def test_a_job_ends_with_the_step_that_waits_for_it(jobs, folder):
    before = listed(jobs)
    with at_work(jobs, folder, 1) as process:
        process.terminate()
        assert ended(process) == 128 + signal.SIGTERM, why(folder)
    wait_for(lambda: gone(told(folder)), START_SECONDS)
    wait_for(lambda: [job["status"] for job in of_step(jobs, before).values()] == ["STOPPED"], START_SECONDS)


def test_a_job_that_fails_or_may_not_be_submitted_says_why(jobs, folder):
    assert ended(started(jobs, folder, "nowhere")) == 1
    last = said(folder).rpartition("RefusedError: Ray at")[2]
    assert "failed" in last and "nowhere" in last and "goes on from the job's checkpoint" in last, why(folder)
    process = started(jobs | {"COHOBATE_RAY_TOKEN": "another" * 9}, folder)
    assert ended(process) == 1 and "AccessError: Ray at" in why(folder), why(folder)
    nobody = f"http://127.0.0.1:{free_port()}"
    process = started(jobs | {"COHOBATE_RAY_ADDRESS": nobody}, folder)
    assert ended(process) == 1 and f"UnavailableError: Ray at {nobody}" in why(folder), why(folder)


def seen(folder):
    """The rows of each step, by the worker's rank, of each of its lives."""
    lives = {}
    for path in sorted((folder / "seen").iterdir(), key=lambda p: p.stat().st_mtime_ns):
        steps = [[int(x) for x in line.split()] for line in path.read_text().splitlines()]
        lives.setdefault(path.name.partition("-")[0], []).append(steps)
    return lives


def test_two_workers_one_of_which_is_killed_learn_what_one_process_does(cluster, tmp_path, monkeypatch):
    for name in ("EVERY_SECONDS", "SHARE"):  # which importing the network sets in this process too
        monkeypatch.setattr(checkpoint, name, getattr(checkpoint, name))
    two = work(tmp_path)
    (tmp_path / "work.pkl").write_bytes(pickle.dumps(two))
    environment = os.environ | FEW | MEMBER | {"PYTHONWARNINGS": "ignore"}
    process = forked(step_on_a_node, tmp_path, cluster["TEST_HEAD"], environment=environment, log=tmp_path / "step.log")
    assert ended(process) == 0, why(tmp_path)
    history, state = pickle.loads((tmp_path / "found.pkl").read_bytes())  # noqa: S301
    single = msgspec.structs.replace(two.spec.student, workers=0, batch_size=16)
    one = replace(
        two, spec=msgspec.structs.replace(two.spec, student=single), checkpoint=f"file://{tmp_path}/one.pt"
    )  # fmt: skip
    whole = fit(one, "one", f"file://{tmp_path}/ray")
    lives = seen(tmp_path)
    assert {rank: len(of) for rank, of in lives.items()} == {"0": 2, "1": 2}, "one was killed, and both began anew"
    assert len(lives["1"][0]) == DIES_AFTER and DIES_AFTER - 1 <= EPOCHS * STEPS - len(lives["1"][1]) <= DIES_AFTER
    for life, steps in ((0, slice(0, STEPS)), (1, slice(-STEPS, None))):
        of_an_epoch = [row for rank in lives for step in lives[rank][life][steps] for row in step]
        assert sorted(of_an_epoch) == list(range(ROWS)), "each row once, by one of them"
    assert len(history) == EPOCHS and history[-1] < history[0]
    pairs = zip(state.values(), whole.net.state_dict().values(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in pairs), "the gradient is that of both batches together"
    found = fresh(one)
    found.load_state_dict(state)
    labels = [answers(net.eval(), two.data.features).argmax(dim=1) for net in (found, whole.net)]
    assert torch.equal(*labels) and torch.equal(labels[0], torch.from_numpy(two.data.truth))
    assert not list(tmp_path.glob("*.rows")), "what the workers read is gone"
