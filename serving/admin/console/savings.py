"""What the student saves: answers, calls of the teacher made and avoided, what both cost, and how fast both are.

What was never counted is unknown, and nothing is computed from it.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Executable, func, select, true
from sqlalchemy.orm import Session

from components.contracts.spec import Spec
from components.control.alarm_kinds import MONITORED
from components.control.learning import GAUGE, evaluated
from components.control.store import ControlStore
from components.control.tables import AlarmRow, GaugeRow, LedgerRow, ReviewRow, SpendingRow, TrafficRow
from components.query.budget import BILLION

N = TypeVar("N", int, float)

DAYS = 7
"""The period that is shown where none is named."""

PROMOTIONS = ("rollout promote", "rollout promote-full", "first champion")
"""The ledger's words for a student that began to serve."""

CHANGES = (*MONITORED, "teacher")
"""The kinds of alarms that tell of a change."""


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """Declared prices, in one currency; None of what nobody declared. A call of the teacher labels one input.

    ``token``: of a million of the teacher's tokens; where it and the tokens of a call are known, they make the price of
    a call.
    """

    call: float | None = None
    token: float | None = None
    core_hour: float | None = None

    @classmethod
    def of(cls, spec: Spec) -> Prices:
        """What a spec declares."""
        budget = spec.label.budget
        return cls(call=budget.cost, token=budget.token_cost, core_hour=spec.limits.core_hour_price)


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """What labelers that run now have reported since their starts: inputs labelled, tokens, and money by the teacher.

    ``tokens`` and ``money`` are None where their teacher does not count them.
    """

    labelled: int
    tokens: int | None
    money: float | None


class Savings(msgspec.Struct, frozen=True, kw_only=True):
    """One workload in one period; None is unknown.

    ``teacher_calls`` are those that the budget counted, or else the labels that were made, each of which took a call at
    most. ``call_tokens``: tokens of a label, the mean of what labelers that run now report. ``call_price``: of the
    tokens where their price and number are known; or as declared; or what the teacher itself reckons.
    ``teacher_cost``: of the calls made; ``avoided_cost``: of those avoided; ``student_cost``: processor time of the
    students' answers. ``student_ms`` per answer and ``teacher_ms`` per call, which is for a batch.
    ``changes``: seconds from each alarm of a change to the next student that began to serve. ``student_answers``: of
    ``student_seconds``. ``hours``: those in which anything was counted. ``time_to_value``: seconds from the workload's
    first entry in the ledger to its first champion, whenever that was. ``stale_share``: by how much the champion
    disagreed with the teacher more often than the student that was made to follow it, on the rows that the last such
    evaluation of the period held out, in [-1, 1].
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
    call_tokens: float | None = None
    call_price: float | None = None
    student_answers: int | None = None
    hours: int = 0
    time_to_value: float | None = None
    stale_share: float | None = None

    @property
    def student_per_1000(self) -> float | None:
        """What 1,000 answers of a student cost: its processor time."""
        if self.student_cost is None or not self.student_answers:
            return None
        return 1_000.0 * self.student_cost / self.student_answers

    @property
    def teacher_per_1000(self) -> float | None:
        """What 1,000 answers of the teacher cost."""
        return None if self.call_price is None else 1_000.0 * self.call_price

    @property
    def deferral_per_1000(self) -> float | None:
        """What 1,000 deferred answers cost: the student was asked first, and then the teacher."""
        if self.student_per_1000 is None or self.teacher_per_1000 is None:
            return None
        return self.student_per_1000 + self.teacher_per_1000

    @property
    def stale_answers(self) -> float | None:
        """Answers in an hour of the period's mean traffic that a stale student gets wrong and its update would not."""
        if self.stale_share is None or self.answers is None or not self.hours:
            return None
        return max(0.0, self.stale_share) * self.answers / self.hours

    @property
    def stale_hour(self) -> float | None:
        """What such an hour costs, at what the teacher would have taken for those answers."""
        return None if self.stale_answers is None or self.call_price is None else self.stale_answers * self.call_price

    @property
    def avoided(self) -> int | None:
        """Calls of the teacher that would have been made had it answered everything."""
        return None if self.answers is None or self.teacher_calls is None else max(0, self.answers - self.teacher_calls)

    @property
    def avoided_cost(self) -> float | None:
        """What the avoided calls would have cost."""
        return None if self.avoided is None or self.call_price is None else self.avoided * self.call_price

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
        used = _used(s, names)
        seen = select(TrafficRow.workload, func.count()).where(
            TrafficRow.workload.in_(names), TrafficRow.hour >= start, TrafficRow.hour < end
        )
        hours = {w: n for w, n in s.execute(seen.group_by(TrafficRow.workload))}
        begun = _firsts(s, names, true())
        valued = _firsts(s, names, LedgerRow.action.in_(PROMOTIONS))
        gauges = select(GaugeRow.workload, GaugeRow.value).where(GaugeRow.workload.in_(names), GaugeRow.name == GAUGE)
        learnt: dict[str, Mapping[str, Any]] = {workload: value for workload, value in s.execute(gauges)}
    return [
        msgspec.structs.replace(
            _savings(name, prices[name], used.get(name), counted.get(name, {}), spent.get(name), asked.get(name, 0),
                     _changes(alarms.get(name, ()), promoted.get(name, ()))),
            hours=hours.get(name, 0),
            time_to_value=valued[name] - begun[name] if name in valued else None,
            stale_share=_stale_share(store, name, learnt.get(name, {}), start, end),
        )
        for name in names
    ]  # fmt: skip


def midnight(day: date) -> float:
    """When a day begins in UTC, in Unix seconds."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _firsts(s: Session, names: Sequence[str], which: ColumnElement[bool]) -> dict[str, float]:
    """When the ledger first had such an entry, by workload."""
    query = select(LedgerRow.workload, func.min(LedgerRow.at)).where(LedgerRow.workload.in_(names), which)
    return {workload: at for workload, at in s.execute(query.group_by(LedgerRow.workload))}


def _stale_share(
    store: ControlStore, workload: str, learnt: Mapping[str, Any], start: float, end: float
) -> float | None:
    """Of the newest evaluation beside a champion on a window of the period; None where there was none."""
    shares = [
        (e.window, (e.champion_wrong - e.wrong) / e.rows)
        for e in reversed(evaluated({GAUGE: learnt}))
        if e.champion_wrong is not None and e.rows > 0
    ]
    frozen = {d: w.created_at for w in store.windows(workload) for d in w.digests} if shares else {}
    return next((share for window, share in shares if start <= frozen.get(window, -1.0) < end), None)


def _used(s: Session, names: Sequence[str]) -> dict[str, Used]:
    """What the labelers' last reports say, by workload."""
    query = select(GaugeRow.workload, GaugeRow.value).where(
        GaugeRow.workload.in_(names), GaugeRow.name.startswith("labeler")
    )
    found: dict[str, Used] = {}
    for workload, value in s.execute(query):
        teacher = value.get("teacher") or {}
        before = found.get(workload, Used(labelled=0, tokens=None, money=None))
        tokens = [teacher[n] for n in ("prompt_tokens_total", "answer_tokens_total") if n in teacher]
        found[workload] = Used(
            # Without what was answered through the gateway, which no labeler paid for.
            labelled=before.labelled + int(value.get("labelled", 0)) - int(value.get("chosen_answered", 0)),
            tokens=_sum(before.tokens, sum(tokens) if tokens else None),
            money=_sum(before.money, teacher.get("spent_total") or None),
        )
    return found


def _sum(known: N | None, more: N | None) -> N | None:
    return more if known is None else known if more is None else known + more


def _times(s: Session, query: Executable) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for workload, at in s.execute(query):
        found.setdefault(workload, []).append(at)
    return found


def _savings(
    workload: str,
    prices: Prices,
    used: Used | None,
    counted: Mapping[str, Any],
    spent: tuple[int, float] | None,
    asked: int,
    changes: tuple[float, ...],
) -> Savings:
    calls = spent[0] if spent is not None else counted.get("labels")
    tokens = used.tokens / used.labelled if used is not None and used.tokens is not None and used.labelled else None
    price = _price(prices, used, tokens)
    cost = spent[1] if spent is not None and spent[1] and prices.token is None else None
    if cost is None and calls is not None and price is not None:
        cost = calls * price
    return Savings(
        workload=workload,
        answers=counted.get("answers"),
        deferred=counted.get("deferred"),
        teacher_calls=calls,
        teacher_cost=cost,
        student_seconds=counted.get("student_seconds"),
        student_answers=counted.get("student_answers"),
        student_ms=_mean_ms(counted.get("student_seconds"), counted.get("student_answers")),
        teacher_ms=_mean_ms(counted.get("teacher_seconds"), counted.get("teacher_calls")),
        people_asked=asked,
        changes=changes,
        prices=prices,
        call_tokens=tokens,
        call_price=price,
    )


def _price(prices: Prices, used: Used | None, tokens: float | None) -> float | None:
    """What a call costs."""
    if prices.token is not None and tokens is not None:
        return prices.token * tokens / 1e6
    if prices.call is not None or prices.token is not None:
        return prices.call
    return used.money / used.labelled if used is not None and used.money is not None and used.labelled else None


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
    "saved", "student_ms", "teacher_ms", "people_asked", "people_avoided", "change_seconds", "call_tokens",
    "call_price", "student_per_1000", "deferral_per_1000", "teacher_per_1000", "time_to_value", "stale_answers",
    "stale_hour",
)  # fmt: skip
"""The columns of the CSV file, and of the report of the command line."""

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
