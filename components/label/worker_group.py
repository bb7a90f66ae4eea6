"""The threads of a labeler that runs: two for each worker, and one for the teacher.

A worker's *fetcher* opens it and fetches batches; the one *asker* takes them to the teacher, urgent ones first; the
worker's *committer* makes them durable. So the teacher answers one batch while the next is fetched and the last is
committed. Each worker has at most :data:`IN_FLIGHT` batches between fetch and commit: that is all that a labeler holds.
"""

from __future__ import annotations

import itertools
import logging
import math
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

import tenacity

from components.contracts.errors import FinderError, TeacherError, UnansweredError, UnavailableError
from components.control.database import DATABASE_AWAY
from components.label.intake import Work
from components.label.partition_worker import Batch, Labelled, PartitionWorker
from components.telemetry.metrics import LabelerMetrics

log = logging.getLogger(__name__)

IN_FLIGHT = 3
"""Batches of a worker: one that waits for the teacher, one that it answers, one that is committed."""

OVERDUE_SECONDS = 1.0
"""A batch that has waited so long for the teacher goes before urgent ones."""

SLICE_SECONDS = 0.2
"""How long a thread waits before it looks whether it shall end."""

IDLE_SECONDS = 5.0
"""How long the asker waits for a batch before it looks again: whoever brings one, or ends the work, wakes it."""

RETRY_SECONDS = (0.2, 15.0)
"""First and longest wait before a teacher that failed is asked again; drawn at random below, doubling."""

TOGETHER = 3
"""How often a batch is asked for as a whole before the inputs are sought that its teacher fails on. Once where a remote
teacher's server gave no answer: the teacher sent it several times."""

BLAME_SECONDS = 5.0
"""How long, too: a teacher may be out of order for a moment, and then fail on some inputs only."""

BLAMED_SECONDS = 60.0
"""How long after such an input was found the next ones are sought without that wait: they come in numbers."""

REOPEN_SECONDS = (0.3, 10.0)
"""First and longest wait before a worker that failed is opened again; likewise."""


class Counts:
    """What became of the inputs of committed batches; safe to share between threads."""

    def __init__(self, metrics: LabelerMetrics) -> None:
        self.metrics = metrics
        self._values = {"labelled": 0, "duplicates": 0, "dead": 0, "deferred": 0, "skipped": 0}
        self._lock = threading.Lock()

    def add(self, labelled: Labelled, topic: str) -> None:
        """Count a batch that was committed, its labels to ``topic``."""
        with self._lock:
            self._values["labelled"] += len(labelled.labels)
            self._values["duplicates"] += labelled.batch.duplicates
            self._values["dead"] += len(labelled.letters)
            self._values["deferred"] += labelled.deferred
            self._values["skipped"] += labelled.skipped
        metrics, now = self.metrics, time.time()
        metrics.consumed.inc(labelled.batch.records)
        metrics.batch_size.observe(labelled.batch.records)
        metrics.labelled.inc(len(labelled.labels))
        metrics.quarantined.inc(len(labelled.labels) if topic.endswith(".quarantine") else 0)
        metrics.duplicates.inc(labelled.batch.duplicates)
        for record, _, _ in labelled.labels:
            metrics.delay_seconds.observe(max(0.0, now - record.timestamp))
        for _, letter in labelled.letters:
            metrics.dead(letter.reason)

    def values(self) -> dict[str, int]:
        """The counts by name."""
        with self._lock:
            return dict(self._values)


class Shift:
    """One worker at work, from its opening to its end. ``failure`` is what ended it, None where it was asked to.

    ``unsearched``: how often in a row the search for personal data has failed on what came last.
    """

    def __init__(self, worker: PartitionWorker, tally: Counts, changed: threading.Condition) -> None:
        self.worker, self.tally = worker, tally
        self.failure: BaseException | None = None
        self.unsearched = 0
        self.waiting: deque[tuple[int, Batch]] = deque()
        self._changed = changed
        self._room = threading.Semaphore(IN_FLIGHT)
        self._done: queue.SimpleQueue[Labelled | None] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._asked = 0
        name = f"worker-{worker.spec.name}-{worker.share}"
        self._fetcher = threading.Thread(target=self._fetch, name=f"{name}-fetch", daemon=True)
        self._committer = threading.Thread(target=self._commit, name=f"{name}-commit", daemon=True)

    def start(self) -> None:
        """Open the worker and work."""
        self._fetcher.start()
        self._committer.start()

    def end(self) -> None:
        """Fetch no more; what the teacher has not been asked for is dropped, what it has is committed."""
        self._ending.set()
        with self._changed:
            self.waiting.clear()
            if not self._asked:
                self._done.put(None)

    @property
    def ending(self) -> bool:
        """Whether it fetches no more."""
        return self._ending.is_set()

    @property
    def over(self) -> bool:
        """Whether both threads are done: nothing more will be committed."""
        return not (self._fetcher.is_alive() or self._committer.is_alive())

    def asked(self) -> None:
        """The teacher is being asked for a batch of this worker; the caller holds the condition."""
        self._asked += 1

    def answered(self, labelled: Labelled | None) -> None:
        """The teacher's answer, None where there will be none."""
        with self._changed:
            self._asked -= 1
            if labelled is not None:
                self._done.put(labelled)
            if self.ending and not self._asked:
                self._done.put(None)

    def fail(self, error: BaseException) -> None:
        """End because of an error: nothing that was fetched after the present batch is answered."""
        if self.failure is None:
            self.failure = error
        self.end()

    def _fetch(self) -> None:
        try:
            self.worker.open()
            while not self.ending:
                try:
                    batch = self.worker.fetch(SLICE_SECONDS)
                except FinderError as error:
                    self._put_off(error)
                    continue
                self.unsearched = 0
                if batch is not None:
                    self._hand_over(batch)
        except BaseException as error:
            self.fail(error)
        finally:
            self.worker.close_readers()

    def _put_off(self, error: FinderError) -> None:
        self.unsearched += 1
        wait = _wait(RETRY_SECONDS, self.unsearched)
        log.warning("the search for personal data fails (attempt %d); nothing is lost: %s", self.unsearched, error)
        self._ending.wait(wait)

    def _hand_over(self, batch: Batch) -> None:
        while not self._room.acquire(timeout=SLICE_SECONDS):
            if self.ending:
                return
        with self._changed:
            if not self.ending:
                self.waiting.append((next(_numbers), batch))
                self._changed.notify_all()

    def _commit(self) -> None:
        try:
            while (labelled := self._done.get()) is not None:
                with self.tally.metrics.commit_seconds.time():
                    topic = self.worker.commit(labelled)
                self.tally.add(labelled, topic)
                self._room.release()
        except BaseException as error:
            self.fail(error)
        finally:
            self._fetcher.join()
            self.worker.close()


_numbers = itertools.count()


def _wait(limits: tuple[float, float], failures: int) -> float:
    """Seconds to wait after so many failures, however many these are."""
    first, longest = limits
    return random.uniform(0, min(longest, first * 2 ** min(failures, 30)))  # noqa: S311


class Failures:
    """How a batch failed so far: whether one of its inputs may be the cause."""

    def __init__(self) -> None:
        self._failed = 0
        self._unanswered = False

    @property
    def by_an_input(self) -> bool:
        """Whether the inputs are to be sought that the teacher fails on."""
        return self._unanswered or self._failed >= TOGETHER

    def add(self, error: TeacherError | UnavailableError, apart: bool) -> None:
        """Count a failure; ``apart``: of the search itself.

        A search that ends in an outage has found the server away for all: the batch is asked for as a whole again,
        which is the circuit breaker's to allow, until its inputs are under suspicion once more.
        """
        if apart and isinstance(error, UnavailableError):
            self._failed, self._unanswered = 0, False
        elif isinstance(error, UnansweredError):
            self._unanswered = True
        elif isinstance(error, TeacherError):
            self._failed += 1


class WorkerGroup:
    """The workers at work and the asker.

    ``make`` gives a worker for a share. ``paused`` says why nothing is labelled: ``teacher`` while it fails,
    ``masking`` while personal data cannot be looked for, ``broker`` while no worker is open; empty otherwise.
    ``lost``: positions that workers which have ended found lost.
    """

    def __init__(self, make: Callable[[int], PartitionWorker], tally: Counts) -> None:
        self.tally = tally
        self.lost = 0
        self._make = make
        self._changed = threading.Condition()
        self._shifts: Mapping[int, Shift] = {}  # another one for each change: the asker and reporters go through it
        self._failures: dict[int, int] = {}
        self._failure: BaseException | None = None
        self._not_before: dict[int, float] = {}
        self._mine: set[int] | None = None
        self._over = threading.Event()
        self._teacher_fails = False
        self._blamed_at = -math.inf
        self._asker = threading.Thread(target=self._ask, name="asker", daemon=True)
        self._asker.start()

    @property
    def busy(self) -> set[int]:
        """The shares that are worked on, those that are being given back included."""
        return set(self._shifts)

    @property
    def workers(self) -> dict[int, PartitionWorker]:
        """The workers at work."""
        return {share: shift.worker for share, shift in self._shifts.items()}

    @property
    def ready(self) -> bool:
        """Whether every share that is ours is open."""
        shifts, mine = self._shifts, self._mine
        return mine is not None and all(share in shifts and shifts[share].worker.opened for share in mine)

    @property
    def paused(self) -> str:
        """See the class."""
        if self._teacher_fails:
            return "teacher"
        if any(shift.unsearched for shift in self._shifts.values()):
            return "masking"
        if self._mine and self._failures.keys() >= self._mine:
            return "database" if isinstance(self._failure, DATABASE_AWAY) else "broker"
        return ""

    def lag(self) -> int:
        """Inputs that wait for their labels, as of about a second ago."""
        return sum(worker.lag for worker in self.workers.values())

    def tend(self, mine: set[int]) -> list[BaseException]:
        """Work on the shares ``mine`` and end work on others; returns what ended a worker since the last call."""
        self._mine = set(mine)
        errors: list[BaseException] = []
        now = time.monotonic()  # before any failure is seen: what failed is opened by a later call, if at all
        shifts = dict(self._shifts)
        for share, shift in self._shifts.items():
            if shift.over:
                del shifts[share]
                self.lost += shift.worker.resets
                if shift.failure is not None:
                    errors.append(shift.failure)
                    self._put_off(share, shift.failure)
            elif shift.worker.opened and not shift.ending:
                self._failures.pop(share, None)
            if share not in mine and not shift.ending:
                shift.end()
        made = [share for share in sorted(mine - shifts.keys()) if now > self._not_before.get(share, -math.inf)]
        shifts |= {share: Shift(self._make(share), self.tally, self._changed) for share in made}
        self._shifts = shifts
        for share in made:
            shifts[share].start()
        return errors

    def _put_off(self, share: int, error: BaseException) -> None:
        self._failure = error
        self._failures[share] = failures = self._failures.get(share, 0) + 1
        wait = _wait(REOPEN_SECONDS, failures)
        self._not_before[share] = time.monotonic() + wait
        log.warning("share %d ended; it may be opened again in %.1f s: %s", share, wait, error)

    def drain(self, seconds: float) -> None:
        """End all work: what the teacher was asked for is committed, if that takes no longer than ``seconds``."""
        deadline = time.monotonic() + seconds
        for shift in self._shifts.values():
            shift.end()
        self._over.set()
        with self._changed:
            self._changed.notify_all()
        while self._shifts and time.monotonic() < deadline:
            self._shifts = {n: s for n, s in self._shifts.items() if not s.over}
            time.sleep(0.01)
        if self._shifts:
            log.warning("shares %s did not end in %.0f s: nothing of their last batch counts", self.busy, seconds)
        self._asker.join(max(0.0, deadline - time.monotonic()))

    def _ask(self) -> None:
        while (taken := self._next()) is not None:
            shift, batch = taken
            labelled = None
            try:
                labelled = self._patiently(shift, batch)
            except BaseException as error:
                shift.fail(error)  # before another batch of it is taken: committing that would pass this one by
            finally:
                shift.answered(labelled)

    def _next(self) -> tuple[Shift, Batch] | None:
        """The batch to ask for: of the workers' first ones the urgent before others, unless one is overdue."""
        with self._changed:
            while not self._over.is_set():
                overdue = time.monotonic() - OVERDUE_SECONDS
                heads = [
                    (not (batch.urgent or batch.fetched_at < overdue), number, shift)
                    for shift in self._shifts.values() if shift.waiting for number, batch in [shift.waiting[0]]
                ]  # fmt: skip
                if heads:
                    shift = min(heads, key=lambda head: head[:2])[2]
                    shift.asked()
                    return shift, shift.waiting.popleft()[1]
                self._changed.wait(IDLE_SECONDS)
        return None

    def _waiting(self) -> list[Work]:
        """Inputs that wait for the teacher."""
        with self._changed:
            batches = [batch for shift in self._shifts.values() for _, batch in shift.waiting]
        return [work for batch in batches for work in batch.work]

    def _patiently(self, shift: Shift, batch: Batch) -> Labelled | None:
        """Ask until there is an answer; None when the worker ends before."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((TeacherError, UnavailableError)),
            wait=tenacity.wait_random_exponential(multiplier=RETRY_SECONDS[0], max=RETRY_SECONDS[1]),
            sleep=lambda seconds: self._wait(seconds, shift),
            stop=lambda _: shift.ending,
            before_sleep=self._outage,
        )
        began, failures = time.monotonic(), Failures()
        try:
            for attempt in retrying:
                with attempt:
                    now = time.monotonic()
                    long = now - began >= BLAME_SECONDS or now - self._blamed_at < BLAMED_SECONDS
                    apart = long and failures.by_an_input
                    try:
                        labelled = shift.worker.answer(batch, apart=apart, witnesses=self._waiting)
                    except (TeacherError, UnavailableError) as error:
                        failures.add(error, apart)
                        raise
                    if apart and len(labelled.letters) > len(batch.letters):
                        self._blamed_at = time.monotonic()
                    return labelled
            return None
        except tenacity.RetryError:
            return None
        finally:
            if self._teacher_fails:
                self._teacher_fails = False
                log.info("the teacher is asked no more, or answers again")

    def _outage(self, state: tenacity.RetryCallState) -> None:
        self._teacher_fails = True
        error = state.outcome.exception() if state.outcome is not None else None
        self.tally.metrics.teacher_failed(type(error).__name__)
        log.warning("the teacher fails (attempt %d); nothing is lost: %s", state.attempt_number, error)

    def _wait(self, seconds: float, shift: Shift) -> None:
        deadline = time.monotonic() + seconds
        while not shift.ending and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, SLICE_SECONDS))
