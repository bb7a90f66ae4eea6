"""Labelers that divide a topic's shares, in simulated time, by :func:`components.control.leases.divide`."""

import heapq
import random
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from components.control.leases import LEASE_SECONDS, RENEWALS, Lease, divide
from components.label.labeler import TEND_SECONDS
from components.label.partition_worker import SHARES

STEP_SECONDS = 0.05
"""How finely simulated time is looked at; between two looks members act at their own moments."""


class Costs(NamedTuple):
    """Seconds that a worker takes to open, and most seconds that one takes to commit what it has and close."""

    opening: float
    closing: float


class Move(NamedTuple):
    """A change of the members: shares that changed hands, seconds that each stood still, seconds until all was calm."""

    moved: int
    stood: list[float]
    calm: float


class Table:
    """The control database's two tables: leases and members."""

    def __init__(self, shares: int) -> None:
        self.shares = set(range(shares))
        self.leases: dict[int, Lease] = {}
        self.members: dict[str, float] = {}


class Member:
    """A labeler: tends its leases as :class:`components.control.leases.Leases` does; workers open and close in time."""

    def __init__(self, name: str, table: Table, costs: Costs, rng: random.Random, now: float) -> None:
        self.name, self.table, self.costs, self.rng = name, table, costs, rng
        self.looks = now + rng.uniform(0, TEND_SECONDS)
        self.opens: dict[int, float] = {}
        self.closes: dict[int, float] = {}
        self._returning: set[int] = set()
        self._renews = 0.0

    def look(self, now: float) -> None:
        """What a running labeler does every :data:`TEND_SECONDS`."""
        self.looks = now + TEND_SECONDS
        self.closes = {n: at for n, at in self.closes.items() if at > now}
        busy = self.opens.keys() | self.closes.keys()
        if now >= self._renews or not self._returning <= busy:
            self._tend(now, busy)
            self._renews = now + LEASE_SECONDS / RENEWALS

    def _tend(self, now: float, busy: set[int]) -> None:
        table, until = self.table, now + LEASE_SECONDS
        table.members[self.name] = until
        table.members = {n: at for n, at in table.members.items() if at >= now}
        part = divide(self.name, table.shares, busy, table.leases, table.members, now)
        self._returning = part.returning
        table.leases |= {n: Lease(self.name, until) for n in (*part.keep, *part.returning, *part.take)}
        table.leases |= {n: Lease("", 0.0) for n in part.release}
        mine = {*part.keep, *part.take}
        for share in self.opens.keys() - mine:
            del self.opens[share]
            self.closes[share] = now + self.rng.uniform(0, self.costs.closing)
        for share in mine - busy:
            self.opens[share] = now + self.costs.opening

    def leave(self, now: float) -> None:
        """End cleanly: what is at work is committed, then everything is given back."""
        self.table.members.pop(self.name, None)
        self.table.leases |= {n: Lease("", 0.0) for n, x in self.table.leases.items() if x.owner == self.name}


class Fleet:
    """Labelers of one workload."""

    def __init__(self, labelers: int, costs: Costs, seed: int = 0, shares: int = SHARES) -> None:
        self.rng, self.costs, self.table, self.now = random.Random(seed), costs, Table(shares), 0.0
        self.members: dict[str, Member] = {}
        self._made = 0
        for _ in range(labelers):
            self._add()
        self._settle(self.working())

    def _add(self) -> None:
        name = f"labeler-{self._made:03d}"
        self._made += 1
        self.members[name] = Member(name, self.table, self.costs, self.rng, self.now)

    def working(self) -> dict[int, str]:
        """Who works on each share at present: its worker is open."""
        return {n: m.name for m in self.members.values() for n, at in m.opens.items() if at <= self.now}

    def join(self) -> Move:
        """One labeler more."""
        before = self.working()
        self._add()
        return self._settle(before)

    def leave(self) -> Move:
        """One labeler ends, as on SIGTERM."""
        before = self.working()
        self.members.pop(self.rng.choice(sorted(self.members))).leave(self.now)
        return self._settle(before)

    def kill(self) -> Move:
        """One labeler dies, at any moment between two renewals."""
        self._run(self.now + self.rng.uniform(0, LEASE_SECONDS / RENEWALS))
        before = self.working()
        del self.members[self.rng.choice(sorted(self.members))]
        return self._settle(before)

    def _run(self, until: float) -> None:
        """Go on until a moment."""
        while (member := min(self.members.values(), key=lambda m: m.looks)).looks <= until:
            self.now = member.looks
            member.look(self.now)

    def _settle(self, before: dict[int, str]) -> Move:
        """Go on until every share has a worker and all parts are fair; see what moved."""
        began, stood = self.now, dict.fromkeys(self.table.shares, 0.0)
        while not self._calm():
            at, idle = self.now, self.table.shares - self.working().keys()
            self._run(at + STEP_SECONDS)
            self.now = at + STEP_SECONDS
            for share in idle:
                stood[share] += STEP_SECONDS
        after = self.working()
        moved = [n for n in after if before.get(n) != after[n]]
        return Move(len(moved), [stood[n] for n in moved], self.now - began)

    def _calm(self) -> bool:
        parts = [len(m.opens) for m in self.members.values()]
        living = set(self.table.members) == set(self.members)
        return living and len(self.working()) == len(self.table.shares) and max(parts) - min(parts) <= 1


def partition_loads(partitions: int, keys: int, skew: float, seed: int) -> list[float]:
    """Each partition's part of the traffic: key ``n`` of ``keys`` has a part like ``n ** -skew`` (Zipf), hashed."""
    weights = [n**-skew for n in range(1, keys + 1)]
    total, found = sum(weights), [0.0] * partitions
    for n, weight in enumerate(weights):
        found[zlib.crc32(b"%d %d" % (seed, n)) % partitions] += weight / total
    return found


def share_loads(loads: Sequence[float], shares: int = SHARES) -> list[float]:
    """Each share's part: partition ``p`` belongs to share ``p % shares``."""
    return [sum(loads[n::shares]) for n in range(shares)]


def greedy(loads: Sequence[float], labelers: int) -> float:
    """The fullest labeler's part when the largest loads are given out first, always to the emptiest (LPT)."""
    heap = [0.0] * labelers
    for load in sorted(loads, reverse=True):
        heapq.heapreplace(heap, heap[0] + load)
    return max(heap)
