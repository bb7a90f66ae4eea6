"""What the student saves: answers, calls of the teacher made and avoided, what both cost, and how fast both are.

What was never counted is unknown, and nothing is computed from it.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Executable, func, select
from sqlalchemy.orm import Session

from components.control.store import ControlStore
from components.control.tables import AlarmRow, LedgerRow, ReviewRow, SpendingRow, TrafficRow
from components.query.budget import BILLION

PROMOTIONS = ("rollout promote", "rollout promote-full", "first champion")
"""The ledger's words for a student that began to serve."""

CHANGES = ("drift", "entropy", "change", "teacher")
"""The kinds of alarms that tell of a change."""


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """Declared prices, in one currency; None of what nobody declared. A call of the teacher labels one input."""

    call: float | None = None
    core_hour: float | None = None


class Savings(msgspec.Struct, frozen=True, kw_only=True):
    """One workload in one period; None is unknown.

    ``teacher_calls`` are those that the budget counted, or else the labels that were made, each of which took a call at
    most. ``teacher_cost``: of the calls made; ``avoided_cost``: of those avoided; ``student_cost``: processor time of
    the students' answers. ``student_ms`` per answer and ``teacher_ms`` per call, which is for a batch.
    ``changes``: seconds from each alarm of a change to the next student that began to serve.
    """

    workload: str
    answers: int | None
    deferred: int | None
    teacher_calls: int | None
    teacher_cost: float | None
    student_seconds: float | None
    student_ms: float | None
    teacher_ms: float | None
    people_asked: int
    changes: tuple[float, ...]
    prices: Prices

    @property
    def avoided(self) -> int | None:
        """Calls of the teacher that would have been made had it answered everything."""
        return None if self.answers is None or self.teacher_calls is None else max(0, self.answers - self.teacher_calls)

    @property
    def avoided_cost(self) -> float | None:
        """What the avoided calls would have cost."""
        return None if self.avoided is None or self.prices.call is None else self.avoided * self.prices.call

    @property
    def student_cost(self) -> float | None:
        """What the students' processor time cost."""
        if self.student_seconds is None or self.prices.core_hour is None:
            return None
        return self.student_seconds / 3_600.0 * self.prices.core_hour

    @property
    def saved(self) -> float | None:
        """What was avoided, less what the students cost; without a core hour's price, what was avoided is unknown."""
        if self.avoided_cost is None or self.student_cost is None:
            return None
        return self.avoided_cost - self.student_cost

    @property
    def people_avoided(self) -> int | None:
        """Answers that no person was asked about."""
        return None if self.answers is None else max(0, self.answers - self.people_asked)

    @property
    def change_seconds(self) -> float | None:
        """The median time from a change to the student that was made for it."""
        return statistics.median(self.changes) if self.changes else None


SUMS = (
    "answers", "deferred", "student_answers", "student_seconds", "labels", "teacher_calls", "teacher_seconds",
)  # fmt: skip


def savings(store: ControlStore, prices: Mapping[str, Prices], start: float, end: float) -> list[Savings]:
    """What is known of the hours from ``start`` until ``end`` (Unix seconds), of each workload that has ``prices``."""
    names = list(prices)
    with store.session() as s:
        sums = select(TrafficRow.workload, *(func.sum(getattr(TrafficRow, c)) for c in SUMS)).where(
            TrafficRow.workload.in_(names), TrafficRow.hour >= start, TrafficRow.hour < end
        )
        counted = {
            w: dict(zip(SUMS, values, strict=True)) for w, *values in s.execute(sums.group_by(TrafficRow.workload))
        }
        calls = select(SpendingRow.workload, func.sum(SpendingRow.calls), func.sum(SpendingRow.money)).where(
            SpendingRow.workload.in_(names), SpendingRow.period == "hour", SpendingRow.start >= start,
            SpendingRow.start < end,
        )  # fmt: skip
        spent = {w: (int(n), float(money) / BILLION) for w, n, money in s.execute(calls.group_by(SpendingRow.workload))}
        questions = select(ReviewRow.workload, func.count()).where(
            ReviewRow.workload.in_(names), ReviewRow.asked_at >= start, ReviewRow.asked_at < end
        )
        asked = {w: n for w, n in s.execute(questions.group_by(ReviewRow.workload))}
        alarms = _times(s, select(AlarmRow.workload, AlarmRow.at).where(
            AlarmRow.workload.in_(names), AlarmRow.kind.in_(CHANGES), AlarmRow.at >= start, AlarmRow.at < end
        ).order_by(AlarmRow.at))  # fmt: skip
        first = min((times[0] for times in alarms.values()), default=end)
        promoted = _times(s, select(LedgerRow.workload, LedgerRow.at).where(
            LedgerRow.workload.in_(alarms), LedgerRow.action.in_(PROMOTIONS), LedgerRow.at >= first
        ).order_by(LedgerRow.at)) if alarms else {}  # fmt: skip
    return [
        _savings(name, prices[name], counted.get(name, {}), spent.get(name), asked.get(name, 0),
                 _changes(alarms.get(name, ()), promoted.get(name, ())))
        for name in names
    ]  # fmt: skip


def _times(s: Session, query: Executable) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for workload, at in s.execute(query):
        found.setdefault(workload, []).append(at)
    return found


def _savings(
    workload: str,
    prices: Prices,
    counted: Mapping[str, Any],
    spent: tuple[int, float] | None,
    asked: int,
    changes: tuple[float, ...],
) -> Savings:
    calls = spent[0] if spent is not None else counted.get("labels")
    cost = spent[1] if spent is not None and spent[1] else None
    if cost is None and calls is not None and prices.call is not None:
        cost = calls * prices.call
    return Savings(
        workload=workload,
        answers=counted.get("answers"),
        deferred=counted.get("deferred"),
        teacher_calls=calls,
        teacher_cost=cost,
        student_seconds=counted.get("student_seconds"),
        student_ms=_mean_ms(counted.get("student_seconds"), counted.get("student_answers")),
        teacher_ms=_mean_ms(counted.get("teacher_seconds"), counted.get("teacher_calls")),
        people_asked=asked,
        changes=changes,
        prices=prices,
    )


def _mean_ms(seconds: float | None, n: float | None) -> float | None:
    return 1_000.0 * seconds / n if seconds is not None and n else None


def _changes(alarms: Sequence[float], promoted: Sequence[float]) -> tuple[float, ...]:
    """From each change to the next promotion; further alarms about the same change count with its first."""
    found: list[float] = []
    answered = float("-inf")
    for alarm in alarms:
        then = next((at for at in promoted if at >= alarm), None)
        if then is not None and then != answered:
            found.append(then - alarm)
            answered = then
    return tuple(found)


COLUMNS = (
    "workload", "answers", "deferred", "teacher_calls", "avoided", "teacher_cost", "avoided_cost", "student_cost",
    "saved", "student_ms", "teacher_ms", "people_asked", "people_avoided", "change_seconds",
)  # fmt: skip
"""The columns of the CSV file."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a text for a formula."""


def as_csv(rows: Iterable[Savings]) -> str:
    """The rows as CSV, with a header; what is unknown is empty."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(getattr(row, name)) for name in COLUMNS])
    return out.getvalue()


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
