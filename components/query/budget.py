"""What the teacher may cost in an hour and a day: reserved in the control database before a call, settled after it.

1. Reserve: in one writing transaction, see what is left, count what is granted as spent, and note the reservation.
2. Call the teacher, for no more than was granted. A retry is another call: it needs a reservation of its own.
3. Settle: in one transaction, remove the reservation and give back what it did not use.

Calls that are made in any case once they are granted, those for probes, are spent at once (:meth:`Budget.spend`). The
labelers and the teacher behind the gateway (:mod:`serving.teacher`) reserve in one account: a call that answers a
caller and then becomes the input's label is reserved once, before it answers.

Calls are of three kinds, and each may spend up to its own part of a limit: those for audited inputs all of it; those
for inputs whose callers wait, and probes, what is not kept for audits (``label.budget.audits``); ordinary ones what is
not kept for either (``reserve``). What is kept is the last that is spent, by whomever, so that one account is enough.

A labeler that dies after step 1 leaves its reservation spent, whether it called or not: money may be counted that was
not paid, never the other way round. Any number of labelers may share a budget. Every reservation counts for the hour
and the day of UTC in which it was made, in calls and in money, so that a limit that is changed in the spec holds from
the next reservation on, for what was spent before as well. A clock that goes back changes nothing: the newest hour
that was ever spent in stays the present one until the clock has passed it.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, TypeVar

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from components.contracts.errors import ConfigError, UnavailableError
from components.contracts.failpoint import failpoint
from components.contracts.spec import Budget as Limits
from components.control.database import Database
from components.control.store import Clock
from components.control.tables import AccessRow, ReservationRow, SpendingRow
from components.query import pace

log = logging.getLogger(__name__)

T = TypeVar("T")

PERIODS: Mapping[str, int] = {"hour": 3_600, "day": 86_400}
"""Seconds of each period; both divide the day of UTC, which Unix time counts without leap seconds."""

BILLION = 1_000_000_000
"""Money is counted in whole billionths of the currency: sums of binary fractions would drift."""

KEPT_DAYS = 35
"""How long the spending of past periods stays readable."""

DEMAND = "demand"
"""What is kept of the inputs that wanted calls, beside what else all who ask a teacher share."""

ATTEMPTS = 5
"""How often a period's first reservation is tried when other labelers make theirs at the same moment."""

CLOCK_SECONDS = 3_600
"""How far behind the newest spending a clock may be without a warning."""


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that were granted, for ``audits``, ``urgent`` and ``ordinary``; ``id`` is empty where nothing was."""

    id: str
    audits: int = 0
    urgent: int
    ordinary: int

    @property
    def calls(self) -> int:
        """All calls that were granted."""
        return self.audits + self.urgent + self.ordinary


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """One period: what was spent and skipped in it; limit and what is left of it (None: no limit) in the budget's unit.

    ``kept``: how much of what is left is for audits alone. ``seconds_left``: until the next period.
    """

    calls: int
    money: float
    skipped: int
    limit: float | None
    left: float | None
    kept: float
    seconds_left: float


class Budget:
    """The budget of one workload. ``cost``: the most that a call of the teacher costs, in the currency.

    Raises:
        ConfigError: the limits are of money and the teacher's calls cost nothing.

    """

    def __init__(
        self, limits: Limits, workload: str, database: Database, *, cost: float = 0.0, clock: Clock = time.time
    ) -> None:
        if not (math.isfinite(cost) and cost >= 0):
            raise ConfigError("cost per call", cost, "must be a finite number >= 0")
        if limits.unit == "money" and cost == 0:
            raise ConfigError("label.budget.unit", "money", "the teacher's calls cost nothing: limit the calls instead")
        self.limits, self.workload, self._database, self._clock = limits, workload, database, clock
        self._cost = _billionths(cost, ROUND_CEILING)
        self._price = self._cost if limits.unit == "money" else 1
        self._audits_alone = False

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self.limits.limited

    def allowance(self, elapsed: float) -> float:
        """How many ordinary calls may be planned for what came in the last ``elapsed`` seconds; infinite: no limit.

        Paced, it is the part of what is left that ``elapsed`` is of the time that is left; else all of it.
        """
        with self._database.session() as s:
            now = self._now(s)
            rows = self._now_rows(s, now)
        found = math.inf
        for period, row in rows.items():
            room = max(0.0, self._room(period, row, self._reserved))
            left = _start(now, period) + PERIODS[period] - now
            found = min(found, room * min(1.0, elapsed / left) if self.limits.paced and math.isfinite(room) else room)
        return found

    def neediest(self, wanted: Mapping[str, float], least: int = 0) -> list[str]:
        """Which inputs whose callers wait may be asked about now, of needs in [0, 1] by id; the neediest first.

        ``least``: so many of them whatever the pace. All of them where deferrals are not paced, where it reaches for
        all that is expected, and where it is spent, so that nothing can be reserved. Nothing is reserved by it. They
        are counted as wanted, for all who share the budget (:mod:`components.query.pace`).

        Raises:
            UnavailableError: other labelers were in the way each time.

        """
        if not (self.limited and self.limits.pace_deferred and wanted):
            return sorted(wanted, key=lambda i: -wanted[i])

        def found(s: Session) -> list[str]:
            demand, now = self._demand(s, list(wanted.values()))
            if min(self._room(p, row, self.limits.audits) for p, row in self._now_rows(s, now).items()) < 1.0:
                return sorted(wanted, key=lambda i: -wanted[i])
            first = pace.granted(demand, self._affordable(s, demand, now), wanted, self.workload)
            rest = sorted(set(wanted) - set(first), key=lambda i: (-wanted[i], i))
            return [*first, *rest[: max(0, least - len(first))]]

        return self._written(found)

    def promise(self, calls: float) -> None:
        """Count labels that inputs were promised whatever is known of them, asked for or not: room is kept for such."""
        if self.limited and self.limits.pace_deferred and calls > 0.0:
            self._written(lambda s: self._demand(s, promised=calls))

    def pacing(self) -> dict[str, float]:
        """``share`` of the inputs whose callers wait that the budget is expected to reach for, and the ``price``.

        That is the need, in [0, 1], below which none is asked about. Empty where they are not paced, or none of
        them has come yet.
        """
        if not (self.limited and self.limits.pace_deferred):
            return {}
        with self._database.session() as s:
            row, now = s.get(AccessRow, (self.workload, DEMAND)), self._now(s)
            if row is None:
                return {}
            demand = pace.counted(msgspec.convert(row.state, pace.Demand), now, *self._memory)
            share = self._affordable(s, demand, now)
        return {"share": share, "price": pace.price(demand, share)}

    @property
    def _memory(self) -> tuple[float, float]:
        """Seconds of the shortest period that has a limit, and those in which that limit pays for one call."""
        period = min((p for p in PERIODS if self._limit_of(p) is not None), key=PERIODS.__getitem__)
        return PERIODS[period], PERIODS[period] / max(1.0, self._room(period, None))

    def _demand(self, s: Session, needs: Sequence[float] = (), promised: float = 0.0) -> tuple[pace.Demand, float]:
        """The demand with this, written down, and the time."""
        now, key = self._now(s), (self.workload, DEMAND)
        row = s.get(AccessRow, key, with_for_update=True)
        before = None if row is None else msgspec.convert(row.state, pace.Demand)
        found = pace.counted(before, now, *self._memory, needs=needs, promised=promised)
        if row is None:
            s.add(AccessRow(workload=self.workload, name=DEMAND, state=msgspec.to_builtins(found)))
            s.flush()
        else:
            row.state = msgspec.to_builtins(found)
        return found, now

    def _affordable(self, s: Session, demand: pace.Demand, now: float) -> float:
        found = 1.0
        for period, row in self._now_rows(s, now).items():
            left, free = self._room(period, row), self._room(period, row, self.limits.audits)
            kept = left - free if math.isfinite(left) else 0.0
            found = min(found, pace.affordable(demand, left, _start(now, period) + PERIODS[period] - now, kept))
        return found

    def _now_rows(self, s: Session, now: float) -> dict[str, SpendingRow | None]:
        """The present hour and day, to read."""
        return {p: s.get(SpendingRow, (self.workload, p, _start(now, p))) for p in PERIODS}

    def reserve(
        self, urgent: int, ordinary: int, *, audits: int = 0, skipped: int = 0, final: bool = True
    ) -> Reservation:
        """Reserve calls (step 1); as many as there is room for: ``audits`` first, then ``urgent``, then ``ordinary``.

        ``skipped`` inputs that were refused before are counted with those that are refused here. Not ``final``: those
        that are refused are not skipped yet, since somebody else will decide about them again.

        Raises:
            UnavailableError: other labelers were in the way each time.

        """
        granted = self._written(lambda s: self._grant(s, (audits, urgent, ordinary), skipped, final))
        failpoint("budget.2")
        return granted

    def spend(self, calls: int, *, least: int = 1, part: float = 1.0) -> int:
        """Count up to ``calls`` calls that are no inputs' first ones as made, before they are; how many.

        As many as fit into ``part`` (0 to 1) of what is left and not kept for audits, or none where that would be fewer
        than ``least``. They are not settled: they count, whether they are made or not. What is refused is no skipped
        input.

        Raises:
            UnavailableError: other labelers were in the way each time.

        """
        return self._spend(calls, least, part, self.limits.audits)

    def again(self, inputs: int) -> bool:
        """Whether so many inputs may be sent once more; if so, that is spent.

        Of what is kept for audits only while audits alone are asked about (:meth:`asking`).

        Raises:
            UnavailableError: other labelers were in the way each time.

        """
        return self._spend(inputs, inputs, 1.0, 0.0 if self._audits_alone else self.limits.audits) == inputs

    @contextmanager
    def asking(self, reservation: Reservation) -> Iterator[None]:
        """Around the calls of a reservation: what is sent once more is for the same inputs."""
        self._audits_alone = reservation.audits == reservation.calls
        try:
            yield
        finally:
            self._audits_alone = False

    def _spend(self, calls: int, least: int, part: float, kept: float) -> int:
        def granted(s: Session) -> int:
            rows = self._rows(s)
            room = min(self._room(period, row, kept) for period, row in rows.items())
            found = calls if calls <= room * part else max(0, math.floor(room * part))
            found = found if found >= least else 0
            self._count(rows, found)
            return found

        return self._written(granted)

    def _written(self, change: Callable[[Session], T]) -> T:
        """What ``change`` gives, in a transaction of its own."""
        for _ in range(ATTEMPTS):
            try:
                with self._database.transaction() as s:
                    found = change(s)
                    failpoint("budget.1")
            except IntegrityError:  # another labeler made the period's row between our look and our insert
                continue
            return found
        raise UnavailableError("label budget", self.workload, "too many labelers reserve at once: try again")

    def _grant(self, s: Session, wanted: Sequence[int], skipped: int, final: bool) -> Reservation:
        rows, found = self._rows(s), list[int]()
        for calls, kept in zip(wanted, (0.0, self.limits.audits, self._reserved), strict=True):
            before = sum(found)
            found.append(max(0, self._fitting(before + calls, rows, kept) - before))
        granted = Reservation(
            id=uuid.uuid4().hex if sum(found) else "", audits=found[0], urgent=found[1], ordinary=found[2]
        )
        self._count(rows, granted.calls)
        for row in rows.values():
            row.skipped += (sum(wanted) - granted.calls if final else 0) + skipped
        if granted.id:
            s.add(
                ReservationRow(
                    id=granted.id, workload=self.workload, hour=rows["hour"].start, day=rows["day"].start,
                    calls=granted.calls, money=granted.calls * self._cost,
                )
            )  # fmt: skip
        return granted

    def settle(self, reservation: Reservation, made: int) -> None:
        """Say how many of the granted calls were made (step 3); the rest is given back. Again it changes nothing.

        Raises:
            ValueError: more calls were made than were granted.

        """
        if not 0 <= made <= reservation.calls:
            raise ValueError(f"{made} calls made of {reservation.calls} reserved ones")
        if not reservation.id:
            return
        with self._database.transaction() as s:
            row = s.get(ReservationRow, reservation.id, with_for_update=True)
            if row is None:
                return
            for period, start in (("hour", row.hour), ("day", row.day)):
                spent = s.get(SpendingRow, (self.workload, period, start), with_for_update=True)
                if spent is not None:
                    spent.calls -= row.calls - made
                    spent.money -= row.money - made * (row.money // row.calls)
            s.delete(row)
            failpoint("budget.3")
        failpoint("budget.4")

    def spending(self) -> dict[str, Spending]:
        """The present hour and day."""
        with self._database.session() as s:
            now = self._now(s)
            rows = self._now_rows(s, now)
        return {p: self._spending(p, row, _start(now, p) + PERIODS[p] - now) for p, row in rows.items()}

    def _spending(self, period: str, row: SpendingRow | None, seconds_left: float) -> Spending:
        calls, billionths, skipped = (row.calls, row.money, row.skipped) if row else (0, 0, 0)
        limit, money = self._limit_of(period), billionths / BILLION
        spent = money if self.limits.unit == "money" else calls
        left = None if limit is None else max(0.0, limit - spent)
        return Spending(
            calls=calls, money=money, skipped=skipped, limit=limit, left=left,
            kept=min(left or 0.0, (limit or 0.0) * self.limits.audits), seconds_left=seconds_left,
        )  # fmt: skip

    def unsettled(self) -> int:
        """Reservations that are not settled: those at work, and those of labelers that died in the last days."""
        with self._database.session() as s:
            query = select(func.count()).where(ReservationRow.workload == self.workload)
            return int(s.scalar(query) or 0)

    def trust_clock(self) -> None:
        """Forget the spending of hours and days that have not begun: for when a clock that ran ahead was set right."""
        with self._database.transaction() as s:
            for period in PERIODS:
                ahead = SpendingRow.start > _start(self._clock(), period)
                s.execute(
                    delete(SpendingRow).where(
                        SpendingRow.workload == self.workload, SpendingRow.period == period, ahead
                    )
                )

    def _now(self, s: Session) -> float:
        """The clock's time, or the beginning of the newest hour that was spent in, whichever is later."""
        mine = (SpendingRow.workload == self.workload, SpendingRow.period == "hour")
        newest, now = s.scalar(select(func.max(SpendingRow.start)).where(*mine)) or 0, self._clock()
        if newest - now > CLOCK_SECONDS:
            log.warning(
                "%s: the clock is %.0f s behind the newest spending, whose hour stays the present one; if the clock ran"
                " ahead then and is right now, use 'cohobate budget trust-clock'", self.workload, newest - now,
            )  # fmt: skip
        return max(now, float(newest))

    def _rows(self, s: Session) -> dict[str, SpendingRow]:
        """The present hour and day, to write to."""
        now = self._now(s)
        return {period: self._row(s, period, now) for period in PERIODS}

    def _count(self, rows: Mapping[str, SpendingRow], calls: int) -> None:
        for row in rows.values():
            row.calls += calls
            row.money += calls * self._cost

    def _row(self, s: Session, period: str, now: float) -> SpendingRow:
        key = (self.workload, period, _start(now, period))
        row = s.get(SpendingRow, key, with_for_update=True)
        if row is None:
            row = SpendingRow(workload=key[0], period=key[1], start=key[2], calls=0, money=0, skipped=0)
            s.add(row)
            self._forget(s, now)
            s.flush()
        return row

    def _forget(self, s: Session, now: float) -> None:
        """Delete what is past use; the reservations of dead labelers stay counted in their periods."""
        old = now - KEPT_DAYS * PERIODS["day"]
        s.execute(delete(SpendingRow).where(SpendingRow.workload == self.workload, SpendingRow.start < old))
        s.execute(delete(ReservationRow).where(ReservationRow.workload == self.workload, ReservationRow.day < old))

    @property
    def _reserved(self) -> float:
        """The part of every limit that no ordinary call may use."""
        return max(self.limits.reserve, self.limits.audits)

    def _fitting(self, calls: int, rows: Mapping[str, SpendingRow], kept: float) -> int:
        room = min(self._room(period, row, kept) for period, row in rows.items())
        return calls if calls <= room else max(0, math.floor(room))

    def _room(self, period: str, row: SpendingRow | None, kept: float = 0.0) -> float:
        """Calls that fit in a period's limit, but for the part ``kept``, beside what is spent; negative when over."""
        limit = self._limit_of(period)
        if limit is None:
            return math.inf
        whole = _billionths(limit, ROUND_FLOOR) if self.limits.unit == "money" else math.floor(limit)
        spent = 0 if row is None else row.money if self.limits.unit == "money" else row.calls
        return (math.floor(whole * (1 - Decimal(str(kept)))) - spent) // self._price

    def _limit_of(self, period: str) -> float | None:
        return self.limits.per_hour if period == "hour" else self.limits.per_day

    def gauge(self) -> dict[str, Any]:
        """What ``cohobate budget status`` shows of it."""
        found = {p: msgspec.to_builtins(s) for p, s in self.spending().items()} | {"unsettled": self.unsettled()}
        return found | ({"pacing": now} if (now := self.pacing()) else {})


def _start(now: float, period: str) -> int:
    return int(now // PERIODS[period]) * PERIODS[period]


def _billionths(amount: float, rounding: str) -> int:
    return int((Decimal(str(amount)) * BILLION).to_integral_value(rounding))
