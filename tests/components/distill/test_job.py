"""A job that trains, by a stand-in for the Jobs API's client: what is submitted, waited for, passed on and ended."""

import asyncio
import os
import pickle
import shlex
import signal
import socket
from dataclasses import replace
from types import SimpleNamespace

import pytest

from components.contracts.errors import ArtifactError, RefusedError, UnavailableError
from components.contracts.settings import Settings
from components.contracts.storage import get_bytes, put_bytes
from components.distill import job
from components.distill.training import Training
from tests.integration.work import work

ADDRESS = "http://head:8265"


class Status(str):
    """As Ray's: a word that knows whether it is the last."""

    def is_terminal(self):
        return self in ("SUCCEEDED", "FAILED", "STOPPED")


class Client:
    """Of a cluster that knows ``jobs``; ``log`` and ``infos`` are what it answers one time after the other."""

    def __init__(self):
        self.jobs, self.log, self.infos, self.calls = [], [[]], [], []

    def __call__(self, address):
        self.calls.append(("open", address, os.environ.get("RAY_ADDRESS")))
        return self

    def list_jobs(self):
        return self.jobs

    def submit_job(self, **given):
        self.calls.append(("submit", given))

    def stop_job(self, name):
        self.calls.append(("stop", name))

    def get_job_info(self, name):
        found = self.infos.pop(0) if len(self.infos) > 1 else self.infos[0]
        if isinstance(found, Exception):
            raise found
        return SimpleNamespace(status=Status(found), message="Traceback\nValueError: no network today")

    async def tail_job_logs(self, name):
        for text in self.log.pop(0) if len(self.log) > 1 else self.log[0]:
            if text is None:
                raise RuntimeError("WebSocket connection closed unexpectedly")
            yield text

    def named(self, what):
        return [given for name, given, *_ in self.calls if name == what]


@pytest.fixture
def client(monkeypatch):
    made = Client()
    monkeypatch.setattr(job, "_client", made)
    monkeypatch.setattr(job, "LOOK_SECONDS", 0.0)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")  # so that it is put back as it was when the test is over
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:1")
    return made


SETTINGS = Settings(
    ray_address=ADDRESS, ray_token="t0ken", artifact_root="s3://bucket/root",  # noqa: S106
    database_url="postgresql+psycopg://me:s3cret@host/db", home="/elsewhere",
)  # fmt: skip


def training(folder, run="one"):
    return Training(work=work(folder), rows="", cuda=False, run=run, storage=f"file://{folder}/ray")


def test_what_is_submitted_is_pinned_by_its_digest_and_holds_no_secret(client, tmp_path, monkeypatch):
    client.infos, prepared, wanted = ["SUCCEEDED"], [], training(tmp_path)
    kept = []
    monkeypatch.setattr(job, "remove", kept.append)
    job.train_by_job(wanted, SETTINGS, lambda: prepared.append(True))
    assert client.calls[0] == ("open", ADDRESS, None), "Ray's own variable names another cluster"
    assert os.environ["RAY_ADDRESS"] == "http://elsewhere:1"
    (given,) = client.named("submit")
    assert given["runtime_env"] == {"env_vars": {"COHOBATE_ARTIFACT_ROOT": "s3://bucket/root"}}
    assert "t0ken" not in str(given) and "s3cret" not in str(given)
    *program, place, digest = shlex.split(given["entrypoint"])
    assert program == ["python3", "-m", "components.distill.job"] and prepared == [True]
    assert pickle.loads(get_bytes(place, digest)).run == "one"  # noqa: S301
    assert kept == [place] and not client.named("stop")
    trained = []
    monkeypatch.setattr(job, "train", trained.append)
    job.main(place, digest)
    assert [one.run for one in trained] == ["one"]
    monkeypatch.setattr(job, "train", lambda one: 1 // 0)
    with pytest.raises(SystemExit, match="ZeroDivisionError: integer division"):
        job.main(place, digest)
    put_bytes(place, pickle.dumps(training))
    with pytest.raises(ArtifactError):
        job.main(place, digest)
    assert len(trained) == 1


def test_a_job_of_the_same_training_is_taken_up_and_no_other(client, tmp_path, monkeypatch):
    wanted = training(tmp_path)
    client.infos = ["SUCCEEDED"]
    job.train_by_job(wanted, SETTINGS, lambda: None)
    (first,) = client.named("submit")

    def known(status):
        return SimpleNamespace(submission_id="known", metadata=first["metadata"], status=Status(status))

    client.jobs, client.infos = [SimpleNamespace(metadata=None, status=Status("RUNNING")), known("RUNNING")], ["FAILED"]
    with pytest.raises(RefusedError, match="job known failed"):
        job.train_by_job(wanted, SETTINGS, lambda: pytest.fail("the job reads it"))
    assert len(client.named("submit")) == 1 and client.named("stop") == ["known"]
    for jobs, run in (([known("STOPPED")], "one"), ([known("RUNNING")], "two")):
        client.jobs, client.infos = jobs, ["SUCCEEDED"]
        job.train_by_job(replace(wanted, run=run), SETTINGS, lambda: None)
    assert len({given["submission_id"] for given in client.named("submit")}) == 3


def test_a_log_that_breaks_off_is_passed_on_once(client, capsys):
    client.log = [["one\n", "tw", None], ["one\ntwo\n", "th", None], ["one\n", "two\nthree\n"]]
    client.infos = ["RUNNING", "RUNNING", "SUCCEEDED"]
    job.Jobs(SETTINGS).wait("j")
    assert capsys.readouterr().err == "one\ntwo\nthree\n"


def test_why_a_log_breaks_off_is_said_once(client, caplog):
    client.log, client.infos = [[None]], ["RUNNING", "RUNNING", "SUCCEEDED"]
    job.Jobs(SETTINGS).wait("j")
    assert caplog.messages == ["the log of job j breaks off: RuntimeError: WebSocket connection closed unexpectedly"]


def test_a_log_of_which_nothing_comes_does_not_keep_the_job_from_being_looked_at(client, monkeypatch):
    async def silent(name):
        await asyncio.Event().wait()
        yield ""

    monkeypatch.setattr(client, "tail_job_logs", silent)
    monkeypatch.setattr(job, "FOLLOW_SECONDS", 0.01)
    client.infos = ["RUNNING", "SUCCEEDED"]
    job.Jobs(SETTINGS).wait("j")
    assert client.infos == ["SUCCEEDED"]


def test_a_head_that_takes_a_connection_and_says_nothing_is_away(monkeypatch):
    monkeypatch.setattr(job, "ANSWER_SECONDS", (60.0, 0.2))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = SETTINGS.model_copy(update={"ray_address": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        with pytest.raises(UnavailableError, match=r"no Jobs API is there \(.*timed out"):
            job.Jobs(settings)


@pytest.fixture
def seconds(monkeypatch):
    """A clock that a look at a job lets go on."""
    time = SimpleNamespace(now=0.0, monotonic=lambda: time.now, sleep=lambda _: setattr(time, "now", time.now + 1.0))
    monkeypatch.setattr(job, "time", time)
    return time


@pytest.mark.parametrize("away", [ConnectionError("refused"), RuntimeError("Request failed with status code 503: no")])
def test_a_head_that_is_away_is_waited_for_and_not_for_ever(client, seconds, away):
    client.infos = [*[away] * 60, "RUNNING", *[away] * 60, "SUCCEEDED"]
    job.Jobs(SETTINGS).wait("j")
    assert seconds.now == 121.0
    client.infos = [away]
    with pytest.raises(UnavailableError, match=r"COHOBATE_RAY_ADDRESS|try again"):
        job.Jobs(SETTINGS).wait("j")
    assert seconds.now - 121.0 == pytest.approx(job.LOST_SECONDS, abs=1.0)


def test_a_minute_without_a_head_begins_when_it_is_gone_however_long_the_log_was(client, seconds, monkeypatch):
    async def long(name):
        seconds.now += 3600.0
        yield "trained\n"

    monkeypatch.setattr(client, "tail_job_logs", long)
    client.infos = [ConnectionError("refused"), "SUCCEEDED"]
    job.Jobs(SETTINGS).wait("j")


def test_a_job_that_is_told_to_end_is_waited_for_a_while(client, seconds, caplog):
    client.infos = ["RUNNING", "RUNNING", "STOPPED"]
    jobs = job.Jobs(SETTINGS)
    jobs.stop("j")
    assert client.infos == ["STOPPED"] and not caplog.messages
    client.infos = ["RUNNING"]
    jobs.stop("j")
    assert caplog.messages == ["job j was told to end, and has not yet"]


def terminated():
    """What Python does when SIGTERM comes: with a real one, a mistake would end the test's own process."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not signal.SIG_IGN:
        handler(signal.SIGTERM, None)


def test_a_second_signal_does_not_keep_the_job_from_being_ended(client, tmp_path, monkeypatch):
    ended = []

    def stop(name):
        terminated()
        ended.append(name)

    monkeypatch.setattr(client, "stop_job", stop)
    client.infos = ["STOPPED"]
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(job.Jobs, "wait", lambda self, name: terminated())
    with pytest.raises(SystemExit) as told:
        job.train_by_job(training(tmp_path), SETTINGS, lambda: None)
    assert told.value.code == 128 + signal.SIGTERM and len(ended) == 1
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_job_that_the_cluster_knows_no_more_fails_the_step(client, tmp_path):
    client.infos = [RuntimeError("Request failed with status code 404: Job j does not exist")]
    with pytest.raises(RefusedError, match="does not exist"):
        job.train_by_job(training(tmp_path), SETTINGS, lambda: None)
    assert len(client.named("stop")) == 1


def test_what_a_job_that_failed_said_last_stands_in_the_error(client):
    client.infos = ["FAILED"]
    with pytest.raises(RefusedError, match=r"(?s)ValueError: no network today.*goes on from the job's checkpoint"):
        job.Jobs(SETTINGS).wait("j")
