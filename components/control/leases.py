"""Who works on which share: members and leases in the control database.

Used where several workers divide a workload's partitions. It works the same on every broker: Kafka's own group joins
take 15 to 45 s on the embedded one, and a lease needs nothing of the broker. A lease only decides who *should* work on
a share. That two never both do is the transactional id's business (:mod:`components.label.partition_worker`), so clocks
may be apart and leases may be late: the worst is that a share changes hands once more than it had to.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from components.contracts.errors import ConfigError, FencedError
from components.control.store import ControlStore
from components.control.tables import LeaseRow, MemberRow

log = logging.getLogger(__name__)

LEASE_SECONDS = 4.0
"""How long a member that says nothing keeps its shares; it renews them in a quarter of that."""

RENEWALS = 4
"""Renewals within one lease: three may fail before it runs out."""


def own_name() -> str:
    """A name for a member that was given none: host and process."""
    return f"{socket.gethostname()}-{os.getpid()}"


class Lease(NamedTuple):
    """Who has a share (empty: nobody), and until when (Unix seconds)."""

    owner: str
    until: float


class Division(NamedTuple):
    """What becomes of one member's shares.

    ``keep``: its own, to be renewed; ``returning``: beyond its part but still worked on, renewed until they are not;
    ``release``: given back now; ``take``: new ones.
    """

    keep: list[int]
    returning: set[int]
    release: set[int]
    take: list[int]


def divide(
    name: str,
    shares: Collection[int],
    busy: Collection[int],
    leases: Mapping[int, Lease],
    members: Collection[str],
    now: float,
) -> Division:
    """A member's part of the shares: as many as anybody else's or one more, with as few moves as that takes.

    ``members`` are those that live, ``name`` among them; ``busy`` are the shares that it works on. Members that have
    most already get the remainder, and shares that are worked on are kept before others.

    >>> divide("a", {0, 1, 2}, {0, 1, 2}, {n: Lease("a", 9.0) for n in range(3)}, ["a", "b"], now=5.0)
    Division(keep=[0, 1], returning={2}, release=set(), take=[])
    """
    held = Counter(x.owner for n, x in leases.items() if n in shares and x.until >= now)
    names = sorted(members, key=lambda other: (-held[other], other))
    fair = len(shares) // len(names) + (names.index(name) < len(shares) % len(names))
    mine = sorted((n for n, x in leases.items() if x.owner == name and n in shares), key=lambda n: (n not in busy, n))
    keep, surplus = mine[:fair], set(mine[fair:])
    returning = surplus & set(busy)
    nobody = Lease("", 0.0)
    free = [n for n in sorted(shares) if (x := leases.get(n, nobody)).owner != name and x.until < now]
    return Division(keep, returning, surplus - returning, free[: max(0, fair - len(keep))])


class Leases:
    """One member's view of a workload's leases.

    ``name``: a member that starts again under its old name has its leases at once, and its predecessor, should it
    still live, is told so by a FencedError. ``seconds``: how long a member that says nothing keeps its leases (> 0).
    """

    def __init__(self, store: ControlStore, workload: str, name: str = "", seconds: float = LEASE_SECONDS) -> None:
        if seconds <= 0:
            raise ConfigError("seconds", seconds, "a lease lasts longer than 0 s")
        self.store, self.workload, self.name, self.seconds = store, workload, name or own_name(), seconds
        self._incarnation = ""
        self._mine: set[int] = set()
        self._returning: set[int] = set()
        self._next = 0.0

    def tend(self, shares: set[int], busy: set[int]) -> set[int]:
        """The shares to work on, of all ``shares``; ``busy`` are those worked on, given back or not.

        Asks the database a few times in each lease, and otherwise says what it said before. While the database does
        not answer, a member keeps what it has.

        1. Say that this member lives, and forget those that do not.
        2. Count the fair part: the shares over the members, the rest to those that have most already.
        3. Renew what is ours and worked on; what is beyond the fair part stays ours until it is no longer worked on.
        4. Take what nobody has, up to the fair part.

        Raises:
            FencedError: another process has taken this member's name.

        """
        now = self.store.clock()
        if now < self._next and self._returning <= busy:
            return set(self._mine)
        try:
            with self.store.transaction() as s:
                self._mine = self._settle(s, shares, busy, now)
        except SQLAlchemyError as error:
            log.warning("%s: leases could not be renewed; going on with %s: %s", self.name, sorted(self._mine), error)
        self._next = now + self.seconds / RENEWALS
        return set(self._mine)

    def _settle(self, s: Session, shares: set[int], busy: set[int], now: float) -> set[int]:
        until = now + self.seconds
        # Step 1
        self._join(s, until)
        s.execute(delete(MemberRow).where(MemberRow.workload == self.workload, MemberRow.until < now))
        s.flush()
        leases = select(LeaseRow).where(LeaseRow.workload == self.workload).with_for_update()
        rows = {r.share: r for r in s.scalars(leases)}
        # Step 2
        members = s.scalars(select(MemberRow.name).where(MemberRow.workload == self.workload)).all()
        found = {n: Lease(r.owner, r.until) for n, r in rows.items()}
        part = divide(self.name, shares, busy, found, members, now)
        # Step 3
        self._returning = part.returning
        for n in (*part.keep, *part.returning):
            rows[n].until = until
        for n in part.release:
            rows[n].owner, rows[n].until = "", 0.0
        # Step 4
        for n in part.take:
            row = rows.get(n)
            if row is None:
                s.add(LeaseRow(workload=self.workload, share=n, owner=self.name, until=until, epoch=1))
            else:
                row.owner, row.until, row.epoch = self.name, until, row.epoch + 1
        return {*part.keep, *part.take}

    def _join(self, s: Session, until: float) -> None:
        row = s.get(MemberRow, (self.workload, self.name), with_for_update=True)
        if not self._incarnation:
            self._incarnation = uuid.uuid4().hex
        elif row is not None and row.incarnation != self._incarnation:
            raise FencedError(f"the place of {self.name} among the labelers", "it was started again elsewhere")
        s.merge(MemberRow(workload=self.workload, name=self.name, incarnation=self._incarnation, until=until))

    def leave(self) -> None:
        """Give everything back at once, so that nobody waits for the leases to run out."""
        try:
            with self.store.transaction() as s:
                row = s.get(MemberRow, (self.workload, self.name))
                if row is None or row.incarnation != self._incarnation:
                    return
                s.delete(row)
                for lease in s.scalars(
                    select(LeaseRow).where(LeaseRow.workload == self.workload, LeaseRow.owner == self.name)
                ):
                    lease.owner, lease.until = "", 0.0
        except SQLAlchemyError as error:
            log.warning("%s: leases were not given back and run out in %.0f s: %s", self.name, self.seconds, error)
        self._mine, self._incarnation = set(), ""
