"""A schedule: the rule that yields due dates, where it starts, and its policies (SPEC 2).

    >>> from datetime import UTC, date, datetime
    >>> daily = Schedule(Frequency.DAILY, time_zone="Europe/London", start_on=date(2022, 6, 15))
    >>> start_instant(daily).isoformat()
    '2022-06-14T23:00:00+00:00'
    >>> next_due(daily, after=datetime(2022, 6, 20, 16, tzinfo=UTC)).isoformat()
    '2022-06-20T23:00:00+00:00'

Everything here is a pure function of the schedule and the zone data.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from tidegate.domain.day_pattern import day_number
from tidegate.domain.due_dates import DueDates, ElapsedDueDates, WallDueDates
from tidegate.domain.duration import check_duration, render_duration
from tidegate.domain.errors import InvalidInput
from tidegate.domain.instant import DAY_SECONDS, in_utc, instant_of, render_instant
from tidegate.domain.period import Period
from tidegate.domain.recurrence import SHORTEST, Cron, Every, Frequency, Recurrence
from tidegate.domain.zone import Zone, find_zone
from tidegate.domain.zone_data import HORIZON_YEAR

FIRST_YEAR: Final = 1900


class CatchUp(StrEnum):
    """What becomes of due dates missed in an outage (SPEC 2.8)."""

    COALESCE = "coalesce"  # one period up to the latest of them
    EACH = "each"  # a period for each of them, in order


@dataclass(frozen=True, slots=True)
class Schedule:
    """A recurrence, its zone, its start and its policies; one that exists is valid.

    ``sync_hour``: local to ``time_zone`` (SPEC 2.1), at which frequencies fall and a start date begins. ``start_on``: a
    civil date as written, at the sync hour (SPEC 2.2); ``start_at``: an instant. With neither, the schedule starts when
    it is received: it has no due dates until `started` has pinned that. ``settle``: how long after the due date a run
    waits. ``spread_window``: the longest further wait that the operator allows (SPEC 3); neither moves a due date.
    ``max_period``: a longer period is cut into consecutive runs (SPEC 2.8); None for no limit.

    Raises InvalidInput naming the native field, TypeError for a naive ``start_at``. ``time_zone`` is put into its
    canonical spelling, ``start_at`` into UTC.
    """

    recurrence: Recurrence
    time_zone: str = "Etc/UTC"
    sync_hour: int = 0
    start_on: date | None = None
    start_at: datetime | None = None
    settle: timedelta = timedelta(0)
    spread_window: timedelta = timedelta(0)
    catch_up: CatchUp = CatchUp.COALESCE
    max_period: timedelta | None = None
    _due_dates: DueDates | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        zone = find_zone(self.time_zone)
        object.__setattr__(self, "time_zone", zone.name)
        check_hour(self.sync_hour, "sync_hour")
        check_duration(self.settle, "settle")
        check_duration(self.spread_window, "spread")
        self._check_max_period()
        self._check_start()
        object.__setattr__(self, "_due_dates", self._compile(zone))

    def _check_max_period(self) -> None:
        if self.max_period is None:
            return
        check_duration(self.max_period, "max_period")
        if self.max_period < SHORTEST:
            problem = "is shorter than 1 minute"
            raise InvalidInput("max_period", render_duration(self.max_period), problem, 'Write "1m" or more.')

    def _check_start(self) -> None:
        if self.start_on is not None and self.start_at is not None:
            problem = "is given together with start_date"
            raise InvalidInput("start_at", render_instant(self.start_at), problem, "Keep one of the two.")
        if self.start_on is not None:
            check_year(self.start_on, "start_date")
        if self.start_at is not None:
            object.__setattr__(self, "start_at", in_utc(self.start_at))
            check_year(self.start_at, "start_at")
        if self.sync_hour and self.start_on is None and not isinstance(self.recurrence, Frequency):
            problem = "has no effect on `every` and `cron` without a start_date"
            raise InvalidInput("sync_hour", self.sync_hour, problem, "Remove it, or give a start_date.")

    def _compile(self, zone: Zone) -> DueDates | None:
        if self.start_on is not None:
            wall = day_number(self.start_on) * DAY_SECONDS + self.sync_hour * 3600
            start = instant_of(zone.instant_of_wall(wall))
        elif self.start_at is not None:
            start = self.start_at
        else:
            return None
        match self.recurrence:
            case Every(interval):
                return ElapsedDueDates(start, interval)
            case Cron() as cron:
                return WallDueDates(start, zone, cron.days, cron.times)
            case Frequency() as frequency:
                anchor = self.start_on or zone.local(start).date()
                return WallDueDates(start, zone, frequency.days(anchor), (self.sync_hour * 3600,))

    @property
    def due_dates(self) -> DueDates:
        """Return the row of due dates. Raises ValueError if the schedule has no start yet (see `started`)."""
        if self._due_dates is None:
            raise ValueError("a schedule without a start has no due dates: pin one with Schedule.started(received_at)")
        return self._due_dates

    def started(self, received_at: datetime) -> Schedule:
        """Return the schedule itself if it has a start, otherwise one that starts at ``received_at``, to the second.

        What keeps a schedule must call this once, on receipt, and keep the result: otherwise its start would move.
        """
        if self._due_dates is not None:
            return self
        return replace(self, start_at=in_utc(received_at).replace(microsecond=0))

    def as_json(self) -> dict[str, object]:
        """Return the native form with JSON-ready values; `parse_schedule` gives back an equal schedule."""
        document: dict[str, object] = {}
        match self.recurrence:
            case Every(interval):
                document["every"] = render_duration(interval)
            case Cron(expression):
                document["cron"] = expression
            case Frequency() as frequency:
                document[frequency.value] = True
        if isinstance(self.recurrence, Frequency) or self.start_on is not None:
            document["sync_hour"] = self.sync_hour
        document["time_zone"] = self.time_zone
        if self.start_on is not None:
            document["start_date"] = self.start_on.isoformat()
        if self.start_at is not None:
            document["start_at"] = render_instant(self.start_at)
        document["settle"] = render_duration(self.settle)
        document["spread"] = render_duration(self.spread_window)
        document["catch_up"] = self.catch_up.value
        if self.max_period is not None:
            document["max_period"] = render_duration(self.max_period)
        return document


class Preview(NamedTuple):
    """One due date to come, and where the period that its run would account for starts; it ends at the due date."""

    period_start: datetime
    due_at: datetime

    @property
    def period(self) -> Period:
        """Return the period."""
        return Period(self.period_start, self.due_at)


def start_instant(schedule: Schedule) -> datetime:
    """Return where the first period starts, in UTC (SPEC 2.2). Raises ValueError if the schedule has no start yet."""
    return schedule.due_dates.start


def next_due(schedule: Schedule, after: datetime) -> datetime | None:
    """Return the first due date strictly after both ``after`` and the start, in UTC (SPEC 2.6).

    With the instant of receipt it is the first due date; with the later of edit and watermark, the next one after an
    edit (SPEC 2.10, HOLE x). None if the calendar ends before (year 2400). Raises ValueError if the schedule has no
    start yet, TypeError for a naive instant.
    """
    return schedule.due_dates.next(after)


def due_dates(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """Return the first ``count`` due dates strictly after both ``after`` and the start, as `next_due` would one by one."""
    return schedule.due_dates.batch(after, count)


def latest_due(schedule: Schedule, after: datetime, until: datetime) -> datetime | None:
    """Return the last due date in ``(after, until]``, None if there is none; what ``coalesce`` asks (SPEC 2.8).

    Its cost does not depend on how many due dates passed. Raises as `next_due` does.
    """
    return schedule.due_dates.latest(after, until)


def same_due_dates(one: Schedule, other: Schedule) -> bool:
    """Return whether two schedules have the same due dates behind both starts; policies may differ, and starts."""
    match one.due_dates, other.due_dates:
        case ElapsedDueDates(start, interval), ElapsedDueDates(begin, same) if interval == same:
            return (start - begin) % interval == timedelta(0)
        case WallDueDates() as wall, WallDueDates() as also:
            return (wall.zone.name, wall.days, wall.times) == (also.zone.name, also.days, also.times)
    return False


def preview(schedule: Schedule, received_at: datetime, count: int) -> list[Preview]:
    """Return the first ``count`` due dates after receipt, each period as if the one before had succeeded (SPEC 2.7).

    The first period starts at the schedule's start, which is ``received_at`` if it has none.
    """
    started = schedule.started(received_at)
    ends = due_dates(started, received_at, count)
    starts = [start_instant(started), *ends[:-1]]
    return list(map(Preview._make, zip(starts, ends, strict=False)))


def check_hour(value: object, field: str) -> int:
    """Return ``value`` if it is an hour of the day, 0 to 23. Raises InvalidInput naming ``field``."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 23:
        return value
    raise InvalidInput(field, value, "is not an hour", "Write a whole number from 0 to 23.")


def check_year(day: date, field: str) -> None:
    """Raise InvalidInput naming ``field`` unless ``day`` is within the calendar, the years 1900 to 2399."""
    if not FIRST_YEAR <= day.year < HORIZON_YEAR:
        problem = f"is outside the years {FIRST_YEAR} to {HORIZON_YEAR - 1}"
        raise InvalidInput(field, day.isoformat(), problem, "Write the date from which records are wanted.")
