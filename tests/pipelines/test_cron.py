"""What cron expressions mean: a table of right next times, both readings of five fields, and clocks that change."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from components.contracts.errors import ConfigError
from pipelines.cron import read_by_server, timing, told, upcoming, zone_of
from tests.kubeflow import check_cron, fires

SUNDAY = datetime(2026, 11, 29, 12, 0, 30, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")

TABLE = [
    # a crontab's five fields
    ("0 3 * * *", "0 0 3 * * *", "11-30 03:00:00", "12-01 03:00:00"),
    ("*/15 * * * *", "0 */15 * * * *", "11-29 12:15:00", "11-29 12:30:00"),
    ("5/20 9 * * *", "0 5/20 9 * * *", "11-30 09:05:00", "11-30 09:25:00"),
    ("30 2 1 * *", "0 30 2 1 * *", "12-01 02:30:00", "01-01 02:30:00"),
    ("0 12 * * MON-FRI", "0 0 12 * * MON-FRI", "11-30 12:00:00", "12-01 12:00:00"),
    ("0 0 * * 0", "0 0 0 * * 0", "12-06 00:00:00", "12-13 00:00:00"),
    ("0 0 * * 7", "0 0 0 * * 0", "12-06 00:00:00", "12-13 00:00:00"),
    ("0 0 * * 5-7", "0 0 0 * * 0,5,6", "12-04 00:00:00", "12-05 00:00:00"),
    ("0 0 * * fri-sun", "0 0 0 * * 0,5,6", "12-04 00:00:00", "12-05 00:00:00"),
    ("0 0 13 * FRI", "0 0 0 13 * FRI", "12-04 00:00:00", "12-11 00:00:00"),  # either of the two
    ("0 22 * 2 *", "0 0 22 * 2 *", "02-01 22:00:00", "02-02 22:00:00"),
    ("0 0 ? * 1,3", "0 0 0 ? * 1,3", "11-30 00:00:00", "12-02 00:00:00"),
    # six, with the second first
    ("0 0 3 * * *", "0 0 3 * * *", "11-30 03:00:00", "12-01 03:00:00"),
    ("0 3 * * * *", "0 3 * * * *", "11-29 12:03:00", "11-29 13:03:00"),
    ("*/20 * * * * *", "*/20 * * * * *", "11-29 12:00:40", "11-29 12:01:00"),
    ("15 30 4 * jan-mar sun", "15 30 4 * JAN-MAR SUN", "01-03 04:30:15", "01-10 04:30:15"),
    # shorthands and intervals
    ("@hourly", "0 0 * * * *", "11-29 13:00:00", "11-29 14:00:00"),
    ("@daily", "0 0 0 * * *", "11-30 00:00:00", "12-01 00:00:00"),
    ("@weekly", "0 0 0 * * 0", "12-06 00:00:00", "12-13 00:00:00"),
    ("@Monthly", "0 0 0 1 * *", "12-01 00:00:00", "01-01 00:00:00"),
    ("@every 1h30m", "@every 1h30m", "11-29 13:30:30", "11-29 15:00:30"),
    (" 0  3 * * * ", "0 0 3 * * *", "11-30 03:00:00", "12-01 03:00:00"),
]


def shown(times):
    return [f"{when:%m-%d %H:%M:%S}" for when in times]


@pytest.mark.parametrize(("written", "sent", "first", "second"), TABLE)
def test_an_expression_means_what_it_says_and_the_server_reads_it_so(written, sent, first, second):
    found = timing(written, SUNDAY)
    assert found.sent == sent
    assert shown(upcoming(found, SUNDAY, UTC, 2)) == [first, second]
    check_cron(sent)
    if not sent.startswith("@every"):
        assert shown(fires(sent, SUNDAY, 2)) == [first, second]


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("0 3 31 2 *", "never comes"),
        ("0 0 3 31 2 *", "never comes"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9 *", "never comes"),
        ("*/90 * * * * *", "step of 90"),
        ("*/60 * * * *", "step of 60"),
        ("0 0 */2 * MON", "list the days"),
        ("0 0 L * *", "'L'"),
        ("0 0 * * 5L", "'L'"),
        ("0 0 * * 5#2", "must be five fields"),
        ("0 3 * *", "must be five fields"),
        ("0 0 3 * * * 2027", "must be five fields"),
        ("TZ=UTC 0 3 * * *", "must be five fields"),
        ("soon", "must be five fields"),
        ("", "must be five fields"),
        ("@sometimes", "must be five fields"),
        ("61 3 * * *", "Bad minute"),
        ("0 25 * * *", "Bad hour"),
        ("0 3 * * MON-JAN", "Bad day-of-week"),
        ("@every 500ms", "must be five fields"),
        ("@every 0.5s", "a second or more"),
    ],
)
def test_what_never_comes_or_has_no_sure_meaning_is_refused_and_named(written, why):
    with pytest.raises(ConfigError, match=f"(?s)cron is .*{why}"):
        timing(written, SUNDAY)


def test_five_fields_that_the_server_holds_begin_with_the_second():
    found = read_by_server("0 3 * * *")
    assert shown(upcoming(found, SUNDAY, UTC, 2)) == ["11-29 12:03:00", "11-29 13:03:00"]
    assert shown(upcoming(read_by_server("@daily"), SUNDAY, UTC, 1)) == ["11-30 00:00:00"]
    assert read_by_server("@every 90s").seconds == 90
    assert read_by_server("0 0 3 * * NEVER") is None


def test_a_server_in_utc_knows_no_change_of_clocks():
    eve = datetime(2027, 3, 27, 12, tzinfo=UTC)
    times = upcoming(timing("30 2 * * *", eve), eve, UTC)
    assert shown(times) == ["03-28 02:30:00", "03-29 02:30:00", "03-30 02:30:00"]
    assert shown(t.astimezone(BERLIN) for t in times) == ["03-28 04:30:00", "03-29 04:30:00", "03-30 04:30:00"]
    assert shown(t.astimezone(BERLIN) for t in upcoming(timing("30 0 * * *", eve), eve, UTC, 2)) == [
        "03-28 01:30:00", "03-29 02:30:00",
    ]  # fmt: skip


def test_where_the_servers_clock_is_put_forward_the_time_that_is_left_out_starts_nothing():
    eve = datetime(2027, 3, 27, 12, tzinfo=UTC)
    times = upcoming(timing("30 2 * * *", eve, BERLIN), eve, BERLIN, 2)
    assert shown(times) == ["03-29 00:30:00", "03-30 00:30:00"]
    assert shown(t.astimezone(BERLIN) for t in times) == ["03-29 02:30:00", "03-30 02:30:00"]


def test_where_it_is_put_back_the_time_that_comes_twice_starts_two():
    eve = datetime(2026, 10, 24, 12, tzinfo=UTC)
    times = upcoming(timing("30 2 * * *", eve, BERLIN), eve, BERLIN)
    assert shown(times) == ["10-25 00:30:00", "10-25 01:30:00", "10-26 01:30:00"]
    quarters = upcoming(timing("*/30 1-3 * * *", eve, BERLIN), eve, BERLIN, 8)
    assert shown(quarters) == [f"10-2{4 + (h < 20)} {h:02}:{m:02}:00" for h in (23, 0, 1, 2) for m in (0, 30)]


def test_a_moment_is_told_in_utc_and_in_local_time(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert told(datetime(2026, 11, 30, 3, tzinfo=UTC)) == "Mon 2026-11-30 03:00:00 UTC (Mon 12:00:00 JST)"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_time_zone_that_does_not_exist_is_named():
    assert zone_of("Europe/Berlin") == BERLIN
    with pytest.raises(ConfigError, match="COHOBATE_KFP_TIMEZONE is 'Mars/Base'"):
        zone_of("Mars/Base")
