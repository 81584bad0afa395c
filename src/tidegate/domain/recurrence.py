"""The rules that yield due dates: elapsed time, the calendar's frequencies, and cron (SPEC 2)."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final, TypeAlias

from cronsim import CronSim, CronSimError

from tidegate.domain.day_pattern import DayPattern, DaysOfMonth, EveryNthDay, day_number, monthly_on
from tidegate.domain.duration import check_duration, render_duration
from tidegate.domain.errors import InvalidInput
from tidegate.domain.instant import EPOCH

SHORTEST: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Every:
    """Every ``interval`` of elapsed time from the start instant, whatever clocks do (SPEC 2.3).

    Raises InvalidInput for less than 1 minute, and for a fraction of a second.
    """

    interval: timedelta

    def __post_init__(self) -> None:
        check_duration(self.interval, "every")
        if self.interval < SHORTEST:
            problem = "is shorter than 1 minute"
            raise InvalidInput("every", render_duration(self.interval), problem, 'Write "1m" or more.')


class Frequency(StrEnum):
    """At the sync hour, by the wall clock: every day, on the start date's weekday, or on its day of the month."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"

    def days(self, anchor: date) -> DayPattern:
        """Return the days it falls on, for the start date ``anchor`` (SPEC 2.5)."""
        match self:
            case Frequency.DAILY:
                return EveryNthDay(1)
            case Frequency.WEEKLY:
                return EveryNthDay(7, day_number(anchor) % 7)
            case Frequency.MONTHLY:
                return monthly_on(anchor.day)


@dataclass(frozen=True, slots=True)
class Cron:
    """A five-field cron expression, by the wall clock. Spaces are made single, letters upper case.

    Fields as in Debian's cron: if the day of the month or of the week begins with ``*`` both must match, otherwise
    either; ``L``, ``LW`` and ``MON#2`` are known. Raises InvalidInput if it cannot be read or never falls on any day.
    """

    expression: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "expression", " ".join(self.expression.upper().split()))
        _cron_fields(self.expression)

    @property
    def days(self) -> DayPattern:
        """Return the days it falls on."""
        return _cron_fields(self.expression)[0]

    @property
    def times(self) -> tuple[int, ...]:
        """Return the wall times it falls on, in seconds of the day, ascending."""
        return _cron_fields(self.expression)[1]


Recurrence: TypeAlias = Every | Frequency | Cron

_REMEDY: Final = 'Write "minute hour day month weekday", such as "30 6 * * MON-FRI".'


@lru_cache(maxsize=256)
def _cron_fields(expression: str) -> tuple[DaysOfMonth, tuple[int, ...]]:
    fields = expression.split()
    if len(fields) != 5:
        raise InvalidInput("cron", expression, "does not have five fields", _REMEDY)
    minute, hour, day, month, weekday = fields
    for part in (f"{minute} {hour} {day} * {weekday}", f"{minute} {hour} * {month} {weekday}"):
        _check_readable(part, expression)
    try:
        parsed = CronSim(expression, EPOCH)  # the instant does not matter, only the fields are used
    except CronSimError as error:  # every field can be read, but the months have no such day
        raise _never(expression) from error

    def days_of(year: int, month: int) -> tuple[int, ...]:
        if month not in parsed.months:
            return ()
        last = monthrange(year, month)[1]
        return tuple(number for number in range(1, last + 1) if parsed.match_day(date(year, month, number)))

    days = DaysOfMonth.matching(days_of)
    if days.never:
        raise _never(expression)
    return days, tuple(sorted(hour * 3600 + minute * 60 for hour in parsed.hours for minute in parsed.minutes))


def _check_readable(part: str, expression: str) -> None:
    try:
        CronSim(part, EPOCH)
    except (CronSimError, ValueError, AssertionError) as error:
        problem = f"cannot be read ({error})" if isinstance(error, CronSimError) else "cannot be read"
        raise InvalidInput("cron", expression, problem, _REMEDY) from error


def _never(expression: str) -> InvalidInput:
    return InvalidInput("cron", expression, "never falls on any day", "Give a day that its months have.")
