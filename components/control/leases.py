"""Who works on which share: members and leases in the control database.

Used where several workers divide a workload's partitions. It works the same on every broker: Kafka's own group
joins take 15 to 45 s on the embedded one, and a lease needs nothing of the broker. A lease only decides who *should*
work on a share. That two never both do is the transactional id's business (:mod:`components.label.lane`), so clocks
may be apart and leases may be late: the worst is that a share changes hands once more than it had to.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections import Counter

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
        held = Counter(r.owner for r in rows.values() if r.share in shares and r.until >= now)
        members = s.scalars(select(MemberRow.name).where(MemberRow.workload == self.workload))
        names = sorted(members, key=lambda name: (-held[name], name))
        fair = len(shares) // len(names) + (names.index(self.name) < len(shares) % len(names))
        # Step 3
        mine = sorted(n for n, r in rows.items() if r.owner == self.name and n in shares)
        # Shares that are worked on are kept before others, so that a rebalance moves no more than it must.
        mine.sort(key=lambda n: (n not in busy, n))
        keep, surplus = mine[:fair], mine[fair:]
        self._returning = {n for n in surplus if n in busy}
        for n in (*keep, *self._returning):
            rows[n].until = until
        for n in set(surplus) - busy:
            rows[n].until = 0.0
            rows[n].owner = ""
        # Step 4
        free = [n for n in sorted(shares) if n not in rows or (rows[n].owner != self.name and rows[n].until < now)]
        for n in free[: max(0, fair - len(keep))]:
            row = rows.get(n)
            if row is None:
                s.add(LeaseRow(workload=self.workload, share=n, owner=self.name, until=until, epoch=1))
            else:
                row.owner, row.until, row.epoch = self.name, until, row.epoch + 1
            keep.append(n)
        return set(keep)

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
