"""What clock changes do to due dates (SPEC 2.3, 2.4; HOLE b), by examples worked out by hand."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest

from tests.domain.calendar.examples import at, cron, daily, texts
from tidegate.domain.schedule import Schedule, due_dates, latest_due, next_due, preview
from tidegate.domain.schedule_document import parse_schedule

MISSING = [
    # zone, sync hour, local day before as an instant, due date in UTC of the day whose hour is missing
    ("America/Santiago", 0, "2026-09-05 12:00", "2026-09-06 04:00"),
    ("Asia/Beirut", 0, "2026-03-28 12:00", "2026-03-28 22:00"),
    ("Africa/Cairo", 0, "2026-04-23 12:00", "2026-04-23 22:00"),
    ("America/Havana", 0, "2026-03-07 12:00", "2026-03-08 05:00"),
    ("Europe/London", 1, "2026-03-28 12:00", "2026-03-29 01:00"),
    ("America/New_York", 2, "2026-03-07 12:00", "2026-03-08 07:00"),
    ("Europe/Dublin", 1, "2026-03-28 12:00", "2026-03-29 01:00"),  # negative DST: winter is the exception
    ("America/Nuuk", 23, "2026-03-28 12:00", "2026-03-29 01:00"),  # 23:00 moves into the next day
]

REPEATED = [
    # zone, sync hour, an instant before, the first of the two, the due date after it
    ("Europe/London", 1, "2026-10-24 12:00", "2026-10-25 00:00", "2026-10-26 01:00"),
    ("America/Havana", 0, "2025-11-01 12:00", "2025-11-02 04:00", "2025-11-03 05:00"),  # 2026: see test_zone_data
    ("America/New_York", 1, "2026-10-31 12:00", "2026-11-01 05:00", "2026-11-02 06:00"),
    ("Asia/Beirut", 23, "2026-10-24 12:00", "2026-10-24 20:00", "2026-10-25 21:00"),
    ("Africa/Casablanca", 2, "2026-02-14 12:00", "2026-02-15 01:00", "2026-02-16 02:00"),
]


@pytest.mark.parametrize(("zone", "hour", "before", "due"), MISSING)
def test_an_hour_that_does_not_exist_moves_forward_by_the_gap(zone: str, hour: int, before: str, due: str) -> None:
    """SPEC 2.4, HOLE b: midnight itself is missing in four of these."""
    assert texts(due_dates(daily(zone, sync_hour=hour), at(before), 1)) == [due]


@pytest.mark.parametrize(("zone", "hour", "before", "first", "following"), REPEATED)
def test_an_hour_that_occurs_twice_means_the_first(
    zone: str, hour: int, before: str, first: str, following: str
) -> None:
    """SPEC 2.4, HOLE b: one due date on that day, not two."""
    schedule = daily(zone, sync_hour=hour)
    assert texts(due_dates(schedule, at(before), 2)) == [first, following]
    assert latest_due(schedule, at(before), at(following) - timedelta(seconds=1)) == at(first)


def test_london_days_of_23_and_25_hours_stay_days() -> None:
    """HOLE b: adding 24 h would put the due date at 01:00 until autumn."""
    london = daily("Europe/London")
    spring = preview(london, at("2026-03-28 12:00"), 4)
    assert [each.period.duration.total_seconds() / 3600 for each in spring[1:]] == [23, 24, 24]
    autumn = preview(london, at("2026-10-24 12:00"), 4)
    assert [each.period.duration.total_seconds() / 3600 for each in autumn[1:]] == [25, 24, 24]


def test_lord_howe_has_a_day_of_half_an_hour_more() -> None:
    """HOLE b: its summer time is 30 minutes."""
    shown = preview(daily("Australia/Lord_Howe"), at("2026-04-03 20:00"), 4)
    assert [each.period.duration.total_seconds() / 3600 for each in shown[1:]] == [24.5, 24, 24]
    shown = preview(daily("Australia/Lord_Howe", sync_hour=2), at("2026-10-02 20:00"), 3)
    assert texts([each.due_at for each in shown]) == ["2026-10-03 15:30", "2026-10-04 15:00", "2026-10-05 15:00"]


@pytest.mark.parametrize(
    ("zone", "after", "due"),
    [
        ("Pacific/Apia", "2011-12-28 12:00", ["2011-12-29 10:00", "2011-12-30 10:00", "2011-12-31 10:00"]),
        ("Pacific/Fakaofo", "2011-12-28 12:00", ["2011-12-29 11:00", "2011-12-30 11:00", "2011-12-31 11:00"]),
        ("Pacific/Kwajalein", "1993-08-19 13:00", ["1993-08-20 12:00", "1993-08-21 12:00", "1993-08-22 12:00"]),
        ("Pacific/Kiritimati", "1994-12-29 12:00", ["1994-12-30 10:00", "1994-12-31 10:00", "1995-01-01 10:00"]),
    ],
)
def test_a_civil_day_that_does_not_exist_has_no_due_date(zone: str, after: str, due: list[str]) -> None:
    """SPEC 2.4, HOLE b: and no period is empty; at every hour the day before the skip is followed by the one after."""
    assert texts(due_dates(daily(zone, "1990-01-01"), at(after), 3)) == due
    for hour in range(24):
        schedule = daily(zone, "1990-01-01", sync_hour=hour)
        found = due_dates(schedule, at(after), 4)
        assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(days=1)}


def test_weekly_and_monthly_skip_a_missing_day_too() -> None:
    """SPEC 2.4: Friday 2011-12-30 did not exist in Apia."""
    weekly = parse_schedule({"weekly": True, "time_zone": "Pacific/Apia", "start_date": "2011-12-16"})
    assert texts(due_dates(weekly, at("2011-12-20 00:00"), 2)) == ["2011-12-23 10:00", "2012-01-05 10:00"]
    monthly = parse_schedule({"monthly": True, "time_zone": "Pacific/Apia", "start_date": "2011-10-30"})
    assert texts(due_dates(monthly, at("2011-11-20 00:00"), 2)) == ["2011-11-30 10:00", "2012-01-29 10:00"]


def test_a_start_on_a_missing_day_begins_when_the_clocks_have_jumped() -> None:
    """SPEC 2.2, 2.4: the start is moved forward by the gap like any local time."""
    assert daily("Pacific/Apia", "2011-12-30").due_dates.start == at("2011-12-30 10:00")


def test_an_offset_with_seconds_is_kept() -> None:
    """Monrovia was 44 minutes 30 seconds behind UTC until 1972-01-07."""
    found = due_dates(daily("Africa/Monrovia", "1972-01-01"), at("1972-01-05 12:00"), 3)
    assert [f"{each:%d %H:%M:%S}" for each in found] == ["06 00:44:30", "07 00:44:30", "08 00:00:00"]


def test_every_counts_elapsed_time_whatever_the_clocks_do() -> None:
    """SPEC 2.3: on both clock changes of London the spacing is 90 minutes, to the second."""
    schedule = parse_schedule({"every": "90m", "time_zone": "Europe/London", "start_date": "2026-03-01"})
    for day in ("2026-03-28 12:00", "2026-10-24 12:00"):
        found = due_dates(schedule, at(day), 40)
        assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(minutes=90)}
        assert (found[0] - at("2026-03-01 00:00")) % timedelta(minutes=90) == timedelta(0)


def test_cron_each_quarter_of_an_hour_over_a_gap_merges() -> None:
    """SPEC 2.4: the four quarters that do not exist coincide with those an hour later."""
    found = due_dates(cron("*/15 * * * *", "Europe/London"), at("2026-03-29 00:20"), 6)
    assert texts(found) == [f"2026-03-29 0{clock}" for clock in ("0:30", "0:45", "1:00", "1:15", "1:30", "1:45")]


def test_cron_each_quarter_of_an_hour_over_a_repeated_hour_means_the_first() -> None:
    """SPEC 2.4: nothing falls in the second 01:00 to 02:00; `every` is for those who count time."""
    found = due_dates(cron("*/15 * * * *", "Europe/London"), at("2026-10-25 00:20"), 3)
    assert texts(found) == ["2026-10-25 00:30", "2026-10-25 00:45", "2026-10-25 02:00"]


def test_cron_times_moved_by_a_gap_come_in_the_order_of_instants() -> None:
    """SPEC 2.4: 01:45 becomes 02:45, after the regular 02:30; due dates strictly increase."""
    found = due_dates(cron("45 1 29 3 *", "Europe/London"), at("2026-03-29 00:00"), 1)
    assert texts(found) == ["2026-03-29 01:45"]
    uneven = cron("*/25 * * * *", "Australia/Lord_Howe")  # 02:00 and 02:25 are missing: 02:30 and 02:55
    found = due_dates(uneven, at("2026-10-03 15:15"), 5)
    assert texts(found) == [f"2026-10-03 {clock}" for clock in ("15:20", "15:30", "15:50", "15:55", "16:00")]
    for earlier, later in pairwise(found):
        assert next_due(uneven, earlier) == later
        assert latest_due(uneven, earlier, later) == later


def test_the_latest_of_three_days_of_minutes_is_found_at_once() -> None:
    """SPEC 2.8: over a clock change, and to the minute."""
    schedule = cron("* * * * *", "Europe/London")
    until = at("2026-03-31 12:00")
    assert latest_due(schedule, until - timedelta(days=3), until) == until
    assert latest_due(schedule, until, until) is None
    assert latest_due(schedule, until - timedelta(seconds=1), until) == until


@pytest.mark.parametrize("expression", ["* * * * *", "0 12 * * *", "15 1 * * SUN"])
def test_latest_is_exclusive_below_and_inclusive_above(expression: str) -> None:
    """`(after, until]`: the watermark's own due date never comes again, the one at this instant does."""
    schedule: Schedule = cron(expression, "Asia/Beirut")
    first, second, third = due_dates(schedule, at("2026-03-27 00:00"), 3)
    assert latest_due(schedule, first, third) == third
    assert latest_due(schedule, first, third - timedelta(microseconds=1)) == second
    assert latest_due(schedule, first, second - timedelta(microseconds=1)) is None
