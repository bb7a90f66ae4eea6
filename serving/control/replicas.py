"""The controller's side of the routing: the durable intent, the candidate's lease, and who has applied what.

A controller that starts takes over by raising the intent's epoch. One that finds a higher epoch than its own has been
replaced and stops: its leases are no longer renewed, and it can write no intent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from components.contracts.errors import CohobateError
from components.control.intent import Intent
from components.control.store import ControlStore

ACK_SECONDS = 10.0
"""How long a change waits for the replicas that are alive; one that is silent for 5 s no longer counts."""

ACK_POLL_SECONDS = 0.01

RENEW_BELOW = 2 / 3
"""A lease is renewed when less than this part of it is left: a few writes each lease, and two chances to fail."""


class ReplacedError(CohobateError):
    """Another controller has taken over this workload."""

    def __init__(self, workload: str, own: int, found: int) -> None:
        super().__init__(
            f"controller {own} of {workload} was replaced by controller {found}: run one controller for each workload"
        )
        self.workload, self.own, self.found = workload, own, found


class UnconfirmedError(CohobateError):
    """Live replicas did not confirm a change of the routing in time; it is durable all the same."""

    def __init__(self, waiting: tuple[str, ...]) -> None:
        super().__init__(
            f"replica {', '.join(waiting)} does not answer: the new routing is durable, and it follows when it can; "
            "see its log"
        )
        self.waiting = waiting


class Applied(NamedTuple):
    """How a change reached the replicas: whether all that live applied it, who did not, and when the last one did."""

    ok: bool
    waiting: tuple[str, ...]
    at: float
    replicas: int


class Replicas:
    """The routing of one workload, written by one controller."""

    def __init__(self, store: ControlStore, workload: str, clock: Callable[[], float]) -> None:
        self.store, self.workload, self._clock = store, workload, clock
        self.epoch = 0

    def take_over(self) -> None:
        """Become the one who writes."""
        revision, intent = self.store.intent(self.workload)
        self.epoch = intent.epoch + 1
        self.store.put_intent(self.workload, revision, msgspec.structs.replace(intent, epoch=self.epoch))

    def intent(self) -> Intent:
        """The intent in force.

        Raises:
            ReplacedError: another controller wrote it.

        """
        return self._read()[1]

    def _read(self) -> tuple[int, Intent]:
        revision, intent = self.store.intent(self.workload)
        if intent.epoch != self.epoch:
            raise ReplacedError(self.workload, self.epoch, intent.epoch)
        return revision, intent

    def change(self, change: Callable[[Intent], Intent]) -> int:
        """Write a changed intent; returns its revision. An intent that would be the same, but for the lease, stays.

        Raises:
            ReplacedError: another controller has taken over.
            StaleRevisionError: another controller is just doing so.

        """
        revision, intent = self._read()
        wanted = change(intent)
        if msgspec.structs.replace(wanted, lease_until=intent.lease_until) == intent:
            self.store.renew_lease(self.workload, self.epoch, wanted.lease_until)
            return revision
        return self.store.put_intent(self.workload, revision, wanted)

    def hold(self, seconds: float) -> None:
        """Renew the candidate's lease, if enough of it is gone.

        Raises:
            ReplacedError: another controller has taken over.

        """
        now = self._clock()
        if self.intent().lease_until - now < seconds * RENEW_BELOW:
            self.store.renew_lease(self.workload, self.epoch, now + seconds)

    def await_applied(self, revision: int, *, lease: float | None = None, seconds: float = ACK_SECONDS) -> Applied:
        """Wait until every replica that lives has acknowledged ``revision``, or ``seconds`` are over.

        A candidate's ``lease`` (seconds) is held meanwhile.
        """
        deadline = time.monotonic() + seconds
        while True:
            if lease is not None:
                self.hold(lease)
            alive = self.store.acknowledgements(self.workload)
            waiting = tuple(a.replica for a in alive if a.revision < revision)
            if not waiting or time.monotonic() > deadline:
                return Applied(not waiting, waiting, self._clock(), len(alive))
            time.sleep(ACK_POLL_SECONDS)

    def failures(self) -> list[tuple[str, dict[str, str]]]:
        """What each live replica could not load: artifact digests and why.

        Of one that has not applied the present revision yet nothing is known: what it says was of another order.
        """
        revision, _ = self.store.intent(self.workload)
        alive = self.store.acknowledgements(self.workload)
        return [(a.replica, a.detail.get("failed", {})) for a in alive if a.revision >= revision]
