"""Due dates against two other ways of finding them, on a sample; `prove_calendar` does the whole (SPEC 2.3 to 2.5)."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain.calendar import oracle
from tests.domain.calendar.examples import cron
from tidegate.domain.schedule import Schedule, due_dates, latest_due, next_due, start_instant
from tidegate.domain.schedule_document import parse_schedule

DAY = timedelta(days=1)
NAMES = sorted({oracle.zone_content(name): name for name in sorted(oracle.all_zone_names(), reverse=True)}.values())
HARD = ["Africa/Casablanca", "Africa/Monrovia", "America/Nuuk", "Asia/Beirut", "Asia/Gaza", "Atlantic/Azores",
        "Australia/Lord_Howe", "Europe/Dublin", "Pacific/Apia", "Pacific/Kwajalein"]  # fmt: skip

CRONS: list[tuple[str, oracle.Rule]] = [
    ("*/15 * * * *", lambda wall: wall.minute % 15 == 0),
    ("*/25 * * * *", lambda wall: wall.minute in {0, 25, 50}),
    ("30 2 * * *", lambda wall: (wall.hour, wall.minute) == (2, 30)),
    ("0 0 * * *", lambda wall: (wall.hour, wall.minute) == (0, 0)),
    ("7,45 0-3,23 * * SAT,SUN", lambda wall: wall.minute in {7, 45} and wall.hour in {0, 1, 2, 3, 23} and wall.weekday() >= 5),
    ("0 */6 1-7 * MON", lambda wall: wall.minute == 0 and wall.hour % 6 == 0 and (wall.day <= 7 or wall.weekday() == 0)),
    ("15 1 L * *", lambda wall: (wall.hour, wall.minute) == (1, 15) and (wall + DAY).day == 1),
]  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_around_clock_changes_a_watched_clock_agrees(name: str) -> None:
    """SPEC 2.4: three changes of each zone, every cron rule, forwards, backwards and in one batch."""
    zone = oracle.zone_info(name)
    changes = oracle.transitions(zone, datetime(1970, 1, 3, tzinfo=UTC), datetime(2039, 12, 1, tzinfo=UTC))
    assert changes
    for change in {changes[0], changes[len(changes) // 2], changes[-1]}:
        first, last = change - 2 * DAY, change + 2 * DAY
        walls = oracle.watched(zone, first, last)
        for expression, rule in CRONS:
            expected = sorted({instant for wall, instant in walls if rule(wall)})
            _check_row(cron(expression, name), expected, first, last)


def _check_row(schedule: Schedule, expected: list[datetime], first: datetime, last: datetime) -> None:
    """Check that `due_dates`, `next_due` and `latest_due` all give exactly ``expected`` within ``[first, last]``."""
    before = first - timedelta(microseconds=1)
    found = due_dates(schedule, before, len(expected) + 1)
    assert found[: len(expected)] == expected, schedule
    assert len(found) == len(expected) or found[-1] > last
    assert latest_due(schedule, before, last) == (expected[-1] if expected else None)
    for earlier, later in pairwise(expected):
        assert next_due(schedule, earlier) == later
        assert latest_due(schedule, before, later) == later
        assert latest_due(schedule, before, later - timedelta(microseconds=1)) == earlier


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), hour=st.integers(0, 23), year=st.integers(1970, 2036))
def test_daily_has_one_due_date_per_existing_day(name: str, hour: int, year: int) -> None:
    """SPEC 2.4: over four years of any zone and hour; strictly increasing, so that no period is empty."""
    zone = oracle.zone_info(name)
    first, last = date(year, 1, 1), date(year + 4, 12, 31)
    by_day = oracle.daily(zone, hour, first, last)
    schedule = parse_schedule(
        {"daily": True, "time_zone": name, "sync_hour": hour, "start_date": first.isoformat()},
    )
    start, *expected = by_day.values()
    assert start_instant(schedule) == start
    assert all(earlier < later for earlier, later in pairwise(by_day.values()))
    assert due_dates(schedule, start, len(expected)) == expected
    for earlier, later in list(pairwise(expected))[::37]:
        assert next_due(schedule, earlier) == later
        assert latest_due(schedule, start, later) == later
        assert latest_due(schedule, start, later - timedelta(seconds=1)) == earlier


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    hour=st.integers(0, 23),
    anchor=st.dates(date(1970, 1, 1), date(2030, 12, 31)),
    frequency=st.sampled_from(["weekly", "monthly"]),
)
def test_weekly_and_monthly_fall_on_the_anchors_days(name: str, hour: int, anchor: date, frequency: str) -> None:
    """SPEC 2.5: the weekday, or the day of the month clamped to its last, of every month for six years."""
    by_day = oracle.daily(oracle.zone_info(name), hour, anchor, anchor + 6 * 365 * DAY)

    def falls_on(day: date) -> bool:
        if frequency == "weekly":
            return day.weekday() == anchor.weekday()
        return day.day == min(anchor.day, calendar.monthrange(day.year, day.month)[1])

    expected = [instant for day, instant in by_day.items() if day > anchor and falls_on(day)]
    schedule = parse_schedule(
        {frequency: True, "time_zone": name, "sync_hour": hour, "start_date": anchor.isoformat()},
    )
    assert due_dates(schedule, start_instant(schedule), len(expected)) == expected
    assert latest_due(schedule, expected[0], expected[-1]) == expected[-1]
    assert [next_due(schedule, each) for each in expected[:-1]] == expected[1:]


@given(
    name=st.sampled_from(NAMES),
    start=st.datetimes(datetime(1970, 1, 2), datetime(2039, 1, 1)),
    minutes=st.integers(1, 100_000),
    later=st.integers(0, 10**9),
)
def test_every_is_arithmetic_on_instants(name: str, start: datetime, minutes: int, later: int) -> None:
    """SPEC 2.3: to the microsecond of the start, in any zone."""
    start = start.replace(tzinfo=UTC)
    interval = timedelta(minutes=minutes)
    schedule = parse_schedule({"every": f"{minutes}m", "time_zone": name, "start_at": start.isoformat()})
    after = start + timedelta(seconds=later)
    due_at = next_due(schedule, after)
    assert due_at is not None
    assert (due_at - start) % interval == timedelta(0)
    assert due_at - interval <= after < due_at
    assert latest_due(schedule, start, due_at) == due_at
    assert latest_due(schedule, start, after) == (due_at - interval if due_at - interval > start else None)
    assert due_dates(schedule, after, 3) == [due_at, due_at + interval, due_at + 2 * interval]
