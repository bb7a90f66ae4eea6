"""When a schedule starts its runs: what a person writes, what the server is sent, and when that will be.

Kubeflow's server takes cron with seconds. Five fields it takes too, but reads the first as the second: ``0 3 * * *``
starts a run in every hour. Here five fields mean what they mean in every crontab, and six are sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from components.contracts.errors import ConfigError

FIELDS = ("second", "minute", "hour", "day", "month", "weekday")
SPANS = (60, 60, 24, 31, 12, 7)
"""How many values each field has: a longer step would leave one of them."""

SHORTHANDS = {
    "@yearly": "0 0 0 1 1 *", "@annually": "0 0 0 1 1 *", "@monthly": "0 0 0 1 * *", "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *", "@midnight": "0 0 0 * * *", "@hourly": "0 0 * * * *",
}  # fmt: skip

EVERY = re.compile(r"@every (?P<span>(?:\d+(?:\.\d+)?(?:h|m|s))+)")
PART = re.compile(r"(\d+(?:\.\d+)?)(h|m|s)")
SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}

WRITTEN = re.compile(r"[0-9A-Z*?,/-]+")
NAMES = (
    "SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT",
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
)  # fmt: skip

ALLOWED = (
    "five fields (minute hour day month weekday), six with the second first, @hourly, @daily, @weekly, @monthly, "
    "@yearly, or @every and a time like 1h30m"
)

YEARS = 5
"""The server looks no further ahead for the next time."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """When runs start. ``sent``: as the server is told; ``seconds``: between two of them, 0 where the clock says."""

    sent: str
    seconds: float = 0.0

    def times(self, after: datetime, zone: tzinfo = UTC) -> Iterator[datetime]:
        """The times after a moment, in UTC, without end; ``zone``: in which the server reads the expression.

        Where a zone's clock is put forward, a time of day that is left out starts no run; where it is put back, one
        that comes twice starts two.
        """
        if self.seconds:
            yield from _every(after.astimezone(UTC), timedelta(seconds=self.seconds))
        elif zone in (UTC, ZoneInfo("UTC")):
            yield from CronSim(self.sent.replace("?", "*"), after.astimezone(UTC))
        else:
            yield from _in_zone(self.sent.replace("?", "*"), after.astimezone(UTC), zone)


def _every(moment: datetime, step: timedelta) -> Iterator[datetime]:
    while True:
        moment += step
        yield moment


TURN = timedelta(hours=3)
"""More than any clock is put forward or back at once."""


def _in_zone(expression: str, after: datetime, zone: tzinfo) -> Iterator[datetime]:
    """Times on the wall's clock, each as the moments at which the clock shows it: none, one or two."""
    waiting: list[datetime] = []
    for wall in CronSim(expression, after.astimezone(zone).replace(tzinfo=None) - TURN):
        moments = {wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
        waiting += [m for m in moments if m > after and m.astimezone(zone).replace(tzinfo=None, fold=0) == wall]
        waiting.sort()
        sure = (wall - TURN).replace(tzinfo=zone).astimezone(UTC)
        while waiting and waiting[0] <= sure:
            yield waiting.pop(0)
    yield from waiting


def timing(expression: str, now: datetime, zone: tzinfo = UTC) -> Timing:
    """What a person's expression means.

    Raises:
        ConfigError: it is not one, or never comes, or servers read it in more than one way.

    """
    text = " ".join(expression.split())
    if every := EVERY.fullmatch(text):
        seconds = sum(float(number) * SECONDS[unit] for number, unit in PART.findall(every["span"]))
        if seconds < 1:
            raise ConfigError("cron", expression, "must be a second or more")
        return Timing(sent=text, seconds=float(int(seconds)))
    fields = SHORTHANDS.get(text.lower(), text).upper().split()
    if len(fields) == 5:
        fields.insert(0, "0")
    if len(fields) != 6 or not all(WRITTEN.fullmatch(field) for field in fields):
        raise ConfigError("cron", expression, f"must be {ALLOWED}")
    _check(expression, fields)
    found = Timing(sent=_sendable(expression, fields))
    first = next(found.times(now, zone), None)
    if first is None or first > now + timedelta(days=366 * YEARS):
        raise ConfigError("cron", expression, "never comes: no such day is in the next five years")
    return found


def _check(expression: str, fields: list[str]) -> None:
    for name, span, field in zip(FIELDS, SPANS, fields, strict=True):
        for word in re.findall(r"[A-Z]+", field):
            if word not in NAMES:
                raise ConfigError("cron", expression, f"{name} {field!r} has {word!r}: {ALLOWED}")
        for step in re.findall(r"/(\d+)", field):
            if int(step) >= span:
                raise ConfigError("cron", expression, f"{name} {field!r}: a step of {step} leaves a single value of it")
    day, weekday = (field.replace("?", "*") for field in (fields[3], fields[5]))
    if any(field.startswith("*/") for field in (day, weekday)) and "*" not in (day, weekday):
        raise ConfigError(
            "cron", expression, "day and weekday, one of them in steps of *: list the days, so that it has one meaning"
        )


def _sendable(expression: str, fields: list[str]) -> str:
    """The six fields with weekdays that the server knows: it has Sunday as 0 alone, and no range that ends with it."""
    weekday = re.sub(r"-SUN\b", "-7", fields[5])
    try:
        parsed = CronSim(" ".join([*fields[:5], weekday]).replace("?", "*"), datetime(2026, 1, 1))
    except CronSimError as error:
        never = "never comes: no month has such a day" if str(error) == "Bad day-of-month" else f"{error}: {ALLOWED}"
        raise ConfigError("cron", expression, never) from error
    if re.search(r"7", weekday):
        weekday = ",".join(str(day) for day in sorted({int(day) % 7 for day in parsed.weekdays}))  # type: ignore[arg-type]
    return " ".join([*fields[:5], weekday])


def read_by_server(cron: str) -> Timing | None:
    """When an expression that the server holds starts runs: five fields begin with the second there.

    None where it is not understood here: a server may take what is never sent by this package.
    """
    fields = SHORTHANDS.get(cron, cron).upper().split()
    if every := EVERY.fullmatch(cron):
        return Timing(sent=cron, seconds=sum(float(n) * SECONDS[unit] for n, unit in PART.findall(every["span"])))
    fields += ["*"] * (len(fields) == 5)
    found = Timing(sent=" ".join(fields))
    try:
        next(found.times(datetime.now(UTC)), None)
    except CronSimError:
        return None
    return found


def zone_of(name: str) -> ZoneInfo:
    """The time zone of this name.

    Raises:
        ConfigError: there is none.

    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError("COHOBATE_KFP_TIMEZONE", name, "must be a time zone like UTC or Europe/Berlin") from error


def upcoming(when: Timing, after: datetime, zone: tzinfo, n: int = 3) -> list[datetime]:
    """The next ``n`` times, in UTC."""
    return list(islice(when.times(after, zone), n))


def told(moment: datetime) -> str:
    """A moment in UTC and in local time, for a person."""
    here = moment.astimezone()
    return f"{moment:%a %Y-%m-%d %H:%M:%S} UTC ({here:%a %H:%M:%S} {here:%Z})"
