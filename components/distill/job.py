"""Training as a job of a Ray cluster, by the Jobs API of its head: the step that wants it waits, and ends it.

1. A job of the same training that runs still, as a step that was killed leaves one, is taken up: go on at 4.
2. What is to be done is put under the artifact root.
3. The job is submitted. Ray keeps what it is told for whoever may look: where that lies, its digest, and settings that
   are no secrets.
4. Its log is passed on until it has ended.
5. Whatever ends the step before that, SIGTERM too, ends the job.

A job that failed has left its checkpoint: the step, when it is started again, has another one go on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import pickle
import shlex
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from components.contracts.errors import AccessError, RefusedError, UnavailableError
from components.contracts.ray_access import JOBS_API, SAID_CHARACTERS, access, last_line
from components.contracts.settings import Settings
from components.contracts.storage import digest_of, get_bytes, put_bytes, remove
from components.distill.cluster import handed_on
from components.distill.training import Training, train

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

log = logging.getLogger(__name__)

TRAINING = "cohobate_training"
"""The metadata by which a job of the same training is found."""

LOST_SECONDS = 60.0
"""How long a head that does not answer, as one that starts anew, is waited for."""

ANSWER_SECONDS = (10.0, 30.0)
"""How long a head may take to be connected to, and to answer: Ray's client waits for one that fell silent for ever."""

FOLLOW_SECONDS = 60.0
"""How long a job's log is followed before the job is looked at: it comes by a connection of which nobody would notice
that the other end is gone."""

STOP_SECONDS = 20.0
"""How long a job that was told to end is waited for: until then it looks as if it could be taken up."""

LOOK_SECONDS = 1.0

OVERRULING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Variables that Ray's client takes for any address that it is given."""

T = TypeVar("T")


def by_job(settings: Settings) -> bool:
    """Whether the address is that of a head's Jobs API."""
    return settings.ray_address.startswith(JOBS_API)


def train_by_job(training: Training, settings: Settings, prepare: Callable[[], None]) -> None:
    """Have a job of the cluster train; ``prepare`` puts the rows where it reads them, unless it does so already.

    Raises:
        UnavailableError: nobody answers there, or no more, for a minute.
        AccessError: the cluster asks for a token, and ours is missing or another.
        RefusedError: the job failed, or somebody stopped it.

    """
    place = f"{training.work.checkpoint}.job"
    with _ended_by_signals():
        jobs = Jobs(settings)
        name = hashlib.sha256(f"{training.storage}\0{training.run}".encode()).hexdigest()[:24]
        job = jobs.unfinished(name)
        try:
            if job is None:
                prepare()
                given = pickle.dumps(training)
                put_bytes(place, given)
                job = f"cohobate-{name}-{uuid.uuid4().hex[:8]}"
                words = ["python3", "-m", "components.distill.job", place, digest_of(given)]
                jobs.submit(job, shlex.join(words), {"env_vars": handed_on(settings)}, {TRAINING: name})
                log.warning("job %s trains on %s", job, settings.ray_address)
            else:
                log.warning("job %s trains on %s already: it is waited for", job, settings.ray_address)
            jobs.wait(job)
        except BaseException:
            if job is not None:
                jobs.stop(job)
            raise
    remove(place)


class Jobs:
    """The Jobs API of a cluster's head.

    Raises:
        UnavailableError, AccessError: see :func:`train_by_job`.

    """

    def __init__(self, settings: Settings) -> None:
        self._address = settings.ray_address
        os.environ.update(access(settings, os.environ))
        with _without(OVERRULING):
            self._client = self._asked(lambda: _client(self._address))

    def unfinished(self, name: str) -> str | None:
        """The job of a training that has not ended."""
        found = self._asked(self._client.list_jobs)
        return next((job.submission_id for job in found
                     if (job.metadata or {}).get(TRAINING) == name and not job.status.is_terminal()), None)  # fmt: skip

    def submit(self, job: str, entrypoint: str, environment: dict[str, Any], metadata: dict[str, str]) -> None:
        """Have a job begin."""
        self._asked(
            lambda: self._client.submit_job(
                entrypoint=entrypoint, submission_id=job, runtime_env=environment, metadata=metadata
            )
        )

    def stop(self, job: str) -> None:
        """Have a job end, and wait until it has; where nobody answers, it goes on."""
        deadline = time.monotonic() + STOP_SECONDS
        try:
            self._asked(lambda: self._client.stop_job(job))
            while not self._asked(lambda: self._client.get_job_info(job)).status.is_terminal():
                if time.monotonic() > deadline:
                    log.warning("job %s was told to end, and has not yet", job)
                    return
                time.sleep(LOOK_SECONDS)
        except (UnavailableError, AccessError, RefusedError) as error:
            log.warning("job %s could not be stopped: %s", job, error)

    def wait(self, job: str) -> None:
        """Pass on what a job says, until it has ended.

        Raises:
            RefusedError: it failed, was stopped, or the cluster knows it no more.
            UnavailableError: nobody answers for a minute.

        """
        said, lost = _Said(), None
        while True:
            asyncio.run(said.follow(self._client, job))
            try:
                found: JobDetails = self._asked(lambda: self._client.get_job_info(job))
            except UnavailableError:
                lost = time.monotonic() if lost is None else lost
                if time.monotonic() - lost > LOST_SECONDS:
                    raise
            else:
                lost = None
                if found.status.is_terminal():
                    break
            time.sleep(LOOK_SECONDS)
        if found.status != "SUCCEEDED":
            told = (found.message or "").strip()[-SAID_CHARACTERS:]
            remedy = "start the step again when that is mended: it goes on from the job's checkpoint"
            raise RefusedError("Ray", self._address, f"job {job} {found.status.lower()}: {told}", remedy)

    def _asked(self, ask: Callable[[], T]) -> T:
        from ray.exceptions import AuthenticationError

        try:
            return ask()
        except AuthenticationError as error:
            remedy = "set COHOBATE_RAY_TOKEN_FILE to the cluster's"
            raise AccessError("Ray", self._address, "token", "ours is missing or another", remedy) from error
        except OSError as error:  # ConnectionError, and what requests raises
            remedy = f"no Jobs API is there ({last_line(error)}): see COHOBATE_RAY_ADDRESS"
            raise UnavailableError("Ray", self._address, remedy) from error
        except RuntimeError as error:  # any answer that is no success
            if "status code 5" in str(error):  # the head is there, and the rest of it not yet
                remedy = f"its Jobs API cannot now ({last_line(error)}): try again"
                raise UnavailableError("Ray", self._address, remedy) from error
            raise RefusedError("Ray", self._address, last_line(error), "see COHOBATE_RAY_ADDRESS") from error


def _client(address: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):  # type: ignore[misc]  # whose requests end
        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, **{"timeout": ANSWER_SECONDS, **options})

    return Client(address)


class _Said:
    """What a job said, passed on once however often its log breaks off."""

    def __init__(self) -> None:
        self._passed, self._why = 0, ""

    async def follow(self, client: JobSubmissionClient, job: str) -> None:
        import aiohttp

        at = 0
        try:
            async with asyncio.timeout(FOLLOW_SECONDS):
                async for text in client.tail_job_logs(job):
                    at += len(text)
                    if at > self._passed:
                        sys.stderr.write(text[len(text) - (at - self._passed) :])
                        sys.stderr.flush()
                        self._passed = at
        except TimeoutError:
            return
        except (aiohttp.ClientError, RuntimeError, OSError) as error:  # whether the job has ended is asked apart
            why, self._why = self._why, f"{type(error).__name__}: {last_line(error)}"
            if self._why != why:
                log.warning("the log of job %s breaks off: %s", job, self._why)


@contextlib.contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Leave variables out of the environment meanwhile."""
    taken: Mapping[str, str] = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the block as an exception does, so that the job is ended; in the main thread, where it comes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, _: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one would keep the job from being ended
    raise SystemExit(128 + number)


def main(place: str, digest: str) -> None:
    """What the job runs: train what lies at ``place``. Where that fails, why is the last that the job says.

    Raises:
        ArtifactError: it is missing, or another than was submitted.

    """
    import ray

    training: Training = pickle.loads(get_bytes(place, digest))  # noqa: S301 - by its digest what the step put there
    try:
        train(training)
    except Exception as error:
        ray.shutdown()  # with which the workers' own log ends
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main(*sys.argv[1:])
