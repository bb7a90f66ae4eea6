"""``cohobate savings``: the console's page of savings for the command line, at the prices that the specs declare."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import Any

from components.contracts.errors import ConfigError, NotFoundError
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.control.store import ControlStore
from components.control.workloads import registered
from serving.admin.console.savings import COLUMNS, DAYS, Prices, midnight, savings

DAY = "must be a day such as 2026-01-31"


def report(since: str, until: str, workloads: list[str]) -> list[dict[str, Any]]:
    """One row a workload, by :data:`~serving.admin.console.savings.COLUMNS`; None is unknown, or has no price.

    Raises:
        ConfigError: a day is none, or the period ends before it begins.
        NotFoundError: there is no such workload.

    """
    settings = Settings()
    with closing(ControlStore.open(settings.control_url)) as store:
        last = _day("--until", until) if until else datetime.fromtimestamp(store.clock(), UTC).date()
        first = _day("--since", since) if since else last - timedelta(days=DAYS - 1)
        if first > last:
            raise ConfigError("--since", since, f"must not be later than the period's end, {last.isoformat()}")
        known = store.workloads()
        if unknown := sorted(set(workloads) - set(known)):
            raise NotFoundError("workload", unknown[0], f"known are {', '.join(known) or 'none yet'}")
        prices = _prices(settings, store, workloads or known)
        found = savings(store, prices, midnight(first), midnight(last + timedelta(days=1)))
    period = {"since": first.isoformat(), "until": last.isoformat()}
    return [{"workload": row.workload, **period} | {name: getattr(row, name) for name in COLUMNS} for row in found]


UNITS = {
    "teacher_calls": "teacher calls made", "avoided": "teacher calls avoided", "student_ms": "student ms per answer",
    "teacher_ms": "teacher ms per call", "change_seconds": "seconds from change to new student",
    "call_tokens": "tokens per call", "call_price": "cost per call", "student_per_1000": "student cost per 1000",
    "deferral_per_1000": "deferral cost per 1000", "teacher_per_1000": "teacher cost per 1000", "saved": "saved cost",
    "time_to_value": "seconds to first champion", "stale_answers": "stale answers per hour",
    "stale_hour": "stale cost per hour",
}  # fmt: skip
"""What people are told in place of a column's name, where that leaves open of what it is, or in which unit."""


def told(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of :func:`report` for people, each number with what it is of; unknown ones are blank."""
    return {
        UNITS.get(name, name.replace("_", " ")): _number(value)
        for name, value in row.items()
        if name not in ("workload", "since", "until")
    }


def _number(value: float | None) -> str:
    """Whole from 1,000 on, and of smaller ones four digits that count."""
    if value is None:
        return ""
    return f"{value:.0f}" if isinstance(value, int) or abs(value) >= 1_000 else f"{value:.4g}"


def _prices(settings: Settings, store: ControlStore, names: list[str]) -> dict[str, Prices]:
    """Of each workload what the version of its spec in force declares; nothing where none is registered."""
    versions = registered(store, names)
    declared = {name: Prices.of(load_spec(version.reference, settings)) for name, version in versions.items()}
    return {name: declared.get(name, Prices()) for name in names}


def _day(option: str, text: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(option, text, DAY) from error
    if not 1970 < found.year < 9999:
        raise ConfigError(option, text, DAY)
    return found
