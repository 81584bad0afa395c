"""Each contestant answers one question: the daily due dates at a local hour, one after the other, from an instant on.

Their own libraries are imported at the point of use: they are installed in the peers' environment only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

Rows: TypeAlias = Callable[[str, int, datetime], Iterator[datetime]]
"""(zone, hour, after) -> instants in any zone, without end, each found from the one before."""


def tidegate(zone: str, hour: int, after: datetime) -> Iterator[datetime]:
    """`next_due`, asked again with its own answer, as the planner asks."""
    from tidegate.domain.schedule import next_due
    from tidegate.domain.schedule_document import parse_schedule

    schedule = parse_schedule({"daily": True, "sync_hour": hour, "time_zone": zone, "start_date": "1980-01-01"})
    due_at: datetime | None = after
    while due_at is not None:
        due_at = next_due(schedule, due_at)
        if due_at is not None:
            yield due_at


def tidegate_cron(zone: str, hour: int, after: datetime) -> Iterator[datetime]:
    """The same for the cron expression that the others are given."""
    from tidegate.domain.schedule import next_due
    from tidegate.domain.schedule_document import parse_schedule

    schedule = parse_schedule({"cron": f"0 {hour} * * *", "time_zone": zone, "start_at": "1980-01-01T00:00:00Z"})
    due_at: datetime | None = after
    while due_at is not None:
        due_at = next_due(schedule, due_at)
        if due_at is not None:
            yield due_at


def floor(zone: str, hour: int, after: datetime) -> Iterator[datetime]:
    """The least that can be written by hand with the standard library: tomorrow, in the zone, in UTC.

    It knows only one rule, never looks back, and gets the days that do not exist wrong.
    """
    info = ZoneInfo(zone)
    local = after.astimezone(info).replace(hour=hour, minute=0, second=0, microsecond=0, tzinfo=None)
    if local.replace(tzinfo=info).astimezone(UTC) <= after:
        local += timedelta(days=1)
    day = timedelta(days=1)
    while True:
        yield local.replace(tzinfo=info).astimezone(UTC)
        local += day


def whenever(zone: str, hour: int, after: datetime) -> Iterator[datetime]:
    """The same floor on whenever's types, which convert faster; instants are made datetimes at the end."""
    from whenever import Instant, Time  # type: ignore[import-not-found, unused-ignore]

    day = Instant.from_timestamp(after.timestamp()).to_tz(zone).date()
    at = Time(hour)
    for _ in count():
        instant = day.at(at).assume_tz(zone).to_instant().to_stdlib()
        if instant > after:
            yield instant
        day = day.add(days=1)


def cronsim(zone: str, hour: int, after: datetime) -> Iterator[datetime]:
    """cronsim's own iteration, which follows Debian's cron."""
    from cronsim import CronSim

    return iter(CronSim(f"0 {hour} * * *", after.astimezone(ZoneInfo(zone))))


def croniter(zone: str, hour: int, after: datetime) -> Iterator[datetime]:
    """croniter's iteration."""
    from croniter import croniter as make  # type: ignore[import-untyped, unused-ignore]

    row: Any = make(f"0 {hour} * * *", after.astimezone(ZoneInfo(zone)), ret_type=datetime)
    while True:
        yield row.get_next(datetime)


def apscheduler(zone: str, hour: int, after: datetime) -> Iterator[datetime]:
    """APScheduler 3's CronTrigger, asked as its scheduler does: for what follows the last fire time."""
    from apscheduler.triggers.cron import CronTrigger  # type: ignore[import-not-found, unused-ignore]

    trigger: Any = CronTrigger.from_crontab(f"0 {hour} * * *", timezone=ZoneInfo(zone))
    previous, now = None, after + timedelta(microseconds=1)
    while (due_at := trigger.get_next_fire_time(previous, now)) is not None:
        yield due_at
        previous = now = due_at


def dagster(zone: str, hour: int, after: datetime) -> Iterator[datetime]:
    """What Dagster's schedule daemon iterates."""
    from dagster._utils.schedules import (  # type: ignore[import-not-found, unused-ignore]
        schedule_execution_time_iterator,
    )

    row: Iterator[datetime] = schedule_execution_time_iterator(after.timestamp(), f"0 {hour} * * *", zone)
    return (due_at for due_at in row if due_at > after)


def dateutil(zone: str, hour: int, after: datetime) -> Iterator[datetime]:
    """dateutil's rrule with its own zones, as its documentation shows it."""
    from dateutil.rrule import DAILY, rrule  # type: ignore[import-untyped, unused-ignore]
    from dateutil.zoneinfo import get_zonefile_instance  # type: ignore[import-untyped, unused-ignore]

    info = get_zonefile_instance().get(zone)
    begin = after.astimezone(info).replace(hour=hour, minute=0, second=0, microsecond=0)
    row: Iterator[datetime] = iter(rrule(DAILY, dtstart=begin))
    return (due_at for due_at in row if due_at > after)


PEERS: dict[str, Rows] = {
    "cronsim": cronsim,
    "croniter": croniter,
    "APScheduler": apscheduler,
    "Dagster": dagster,
    "dateutil": dateutil,
}
