"""The labeler: every input gets one soft label from the declared teacher, or a dead letter that says why not.

The protocol of one share of the partitions is in :mod:`components.label.partition_worker`; here are the labeler's
workers: which it has, one cycle over them (:meth:`Labeler.step`), and the threads of a labeler that runs
(:mod:`components.label.worker_group`).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError

from components.contracts.errors import CohobateError, FencedError, LostPositionsError
from components.contracts.signing import Signer
from components.contracts.spec import Spec
from components.control.database import DATABASE_AWAY
from components.label.asking import Asking, Company
from components.label.intake import Intake
from components.label.partition_worker import Batch, PartitionWorker, shares_of
from components.label.worker_group import Counts, WorkerGroup
from components.query.budget import PERIODS
from components.stream.contract import Broker
from components.teachers.contract import Teacher, state
from components.telemetry.metrics import BreakerState

log = logging.getLogger(__name__)

TEND_SECONDS = 0.5
"""How often a running labeler looks after its workers and its leases."""

DRAIN_SECONDS = 12.0
"""How long a labeler that ends may take to commit what the teacher has answered; a supervisor waits 20 s."""

SELECTION_SECONDS = 1.0
"""How old a labeler's report of its decisions and its budget may be: it is read from the control database."""

BREAKER: dict[str, BreakerState] = {"closed": "closed", "opened": "open", "half-opened": "half_open"}
"""The states of a teacher's circuit breaker, and what metrics call them."""


class Leases(Protocol):
    """Which shares of a workload are this labeler's, while others label too: :mod:`components.control.leases`."""

    def tend(self, shares: set[int], busy: set[int]) -> set[int]:
        """The shares to work on now, of all ``shares``; ``busy`` are those worked on, given back or not."""

    def leave(self) -> None:
        """Give everything back at once."""


class Labeler:
    """Labels a workload's inputs exactly once.

    Without ``leases`` it takes all partitions, and whoever had them is fenced; with leases it works on those that it
    is given, beside other labelers. ``company``: who has a say beside the teacher; ``signer`` signs the labels.
    ``paused`` says why nothing is labelled at the moment, and is empty otherwise.

    Raises:
        ConfigError: the teacher is not the one that the spec declares, or its task is another.

    """

    def __init__(
        self,
        spec: Spec,
        teacher: Teacher,
        broker: Broker,
        clock: Callable[[], float] = time.time,
        leases: Leases | None = None,
        company: Company | None = None,
        signer: Signer | None = None,
    ) -> None:
        self.spec, self.broker, self.leases = spec, broker, leases
        self.asking = Asking(spec, teacher, clock, company)
        self.intake = Intake(spec, lambda: self.asking.reference, teacher.space, clock)
        self.tally = Counts(self.asking.company.metrics)
        self._signer = signer
        self._counted_resets = 0
        self._selected: dict[str, int | float] = {}
        self._selected_at = -math.inf
        self._workers: dict[int, PartitionWorker] = {}
        self._held: dict[int, Batch] = {}
        self._group: WorkerGroup | None = None
        self._paused = ""
        broker.ensure_topics(spec.topics, spec.partitions)
        self._shares = shares_of(broker, spec)
        if leases is None:
            self._open_workers()

    @property
    def counts(self) -> dict[str, int]:
        """Inputs by what became of them since the start: ``labelled``, ``duplicates`` (delivered again), and so on."""
        return self.tally.values()

    def _worker(self, share: int) -> PartitionWorker:
        return PartitionWorker(
            share, self._shares[share], self.spec, self.broker, self.intake, self.asking, self._signer
        )

    def _open_workers(self) -> None:
        """Have a worker for each share that is ours, for :meth:`step`."""
        mine = set(self._shares)
        if self.leases is not None:
            mine = self.leases.tend(mine, set(self._workers))
        for share in set(self._workers) - mine:
            self._drop(share)
        if self.leases is not None:
            self.leases.tend(set(self._shares), set(self._workers))
        for share in sorted(mine - set(self._workers)):
            worker = self._worker(share)
            try:
                worker.open()
            except BaseException:
                worker.close()
                raise
            self._workers[share] = worker

    def _drop(self, share: int) -> None:
        self._held.pop(share, None)
        self._workers.pop(share).close()

    def step(self, timeout: float = 0.5) -> int:
        """One batch of each worker, from fetch to commit; returns how many inputs it consumed.

        0 when none came within ``timeout`` seconds. After an error the labeler may go on: the same inputs come again.

        Raises:
            TeacherError: the teacher failed; the next step asks for the same batch again.
            FinderError: the search for personal data failed; the next step searches the same inputs again.
            FencedError: another labeler has taken a share over.
            UnavailableError: the broker did not confirm.

        """
        self._open_workers()
        consumed = 0
        for share, worker in list(self._workers.items()):
            batch = self._held.pop(share, None) or worker.fetch(timeout / len(self._workers))
            if batch is None:
                continue
            self._held[share] = batch
            labelled = worker.answer(batch)
            try:
                topic = worker.commit(labelled)
            except BaseException:
                self._drop(share)
                raise
            del self._held[share]
            self.tally.add(labelled, topic)
            consumed += batch.records
        return consumed

    def lag(self) -> int:
        """Inputs that have no label yet: now, or for a labeler that runs as it was about a second ago."""
        if self._group is not None:
            return self._group.lag()
        return sum(worker.count() for worker in self._workers.values())

    @property
    def paused(self) -> str:
        """Why nothing is labelled: ``teacher``, ``masking``, ``broker``, ``lost_positions``; empty otherwise."""
        return self._paused or (self._group.paused if self._group is not None else "")

    def gauge(self) -> dict[str, Any]:
        """What a labeler reports of itself; ``ready``: it has joined, and every worker that is its own is open."""
        group, company = self._group, self.asking.company
        workers = group.workers if group is not None else self._workers
        found: dict[str, Any] = {
            **self.counts,
            "lag": self.lag(),
            "shares": len(workers),
            "ready": group is not None and group.ready,
            "paused": self.paused,
            "lost_positions": (group.lost if group is not None else 0)
            + sum(worker.resets for worker in workers.values()),
        }
        if company.guard is not None:
            found |= {"teacher_status": company.guard.state.status, **company.guard.counts}
        if own := state(self.asking.teacher):
            found["teacher"] = own
        found |= {f"answers_{outcome}": n for outcome, n in sorted(self.asking.receipts.counts.items())}
        found |= self._selection()
        self._measure(found, [*workers.values()])
        return found

    def _selection(self) -> dict[str, int | float]:
        """What the selector says of itself; while the control database does not answer, what it said last."""
        if time.monotonic() - self._selected_at >= SELECTION_SECONDS:
            self._selected_at = time.monotonic()
            with suppress(SQLAlchemyError):
                self._selected = self.asking.selector.gauge()
        return self._selected

    def _measure(self, found: dict[str, Any], workers: Sequence[PartitionWorker]) -> None:
        """Set the metrics that are states, not counts of what was committed."""
        metrics = self.asking.company.metrics
        metrics.paused.set(1 if found["paused"] else 0)
        ends = {p: at for worker in workers for p, at in worker.ends.items()}
        metrics.lag(ends, {p: at for worker in workers for p, at in worker.positions.items()})
        metrics.offset_resets.inc(max(0, found["lost_positions"] - self._counted_resets))
        self._counted_resets = max(self._counted_resets, found["lost_positions"])
        for period in PERIODS:
            if (left := found.get(f"budget_left_{period}")) is not None:
                kept = found.get(f"budget_kept_{period}", 0.0)
                metrics.budget_left(self.spec.label.budget.unit, period, left - kept)
        breaker = found.get("teacher", {}).get("breaker")
        if breaker is not None:
            metrics.breaker(BREAKER[breaker])

    def run(self, stop: threading.Event, on_batch: Callable[[], None] | None = None) -> None:
        """Label until ``stop`` is set, then commit what the teacher has answered and let go.

        A teacher, broker or database that fails pauses the labelling, which goes on by itself when they are back.
        ``on_batch`` is called a few times a second.

        Raises:
            FencedError: another labeler took over, and there are no leases to say whose turn it is.
            LostPositionsError: the broker lost the inputs' positions, and the spec says to stop then.

        """
        log.info("labelling %s with %s", self.spec.topic("inputs"), self.asking.reference)
        report = on_batch or (lambda: None)
        for share in list(self._workers):
            self._drop(share)
        group = self._group = WorkerGroup(self._worker, self.tally)
        try:
            while not stop.is_set():
                self._tend(group)
                report()
                stop.wait(TEND_SECONDS)
        except LostPositionsError:
            self._paused = "lost_positions"
            report()
            raise
        finally:
            group.drain(DRAIN_SECONDS)
            report()
            self._group = None
            self.close()

    def _tend(self, group: WorkerGroup) -> None:
        """Hear which shares are ours, and raise what a worker cannot get over by itself."""
        mine = set(self._shares)
        if self.leases is not None:
            mine = self.leases.tend(mine, group.busy)
        for error in group.tend(mine):
            if isinstance(error, LostPositionsError) or not isinstance(error, (CohobateError, *DATABASE_AWAY)):
                raise error
            if isinstance(error, FencedError) and self.leases is None:
                raise error

    def close(self) -> None:
        """Release everything."""
        for share in list(self._workers):
            self._drop(share)
        if self.asking.company.guard is not None:
            self.asking.company.guard.close()
        if self.leases is not None:
            self.leases.leave()
