"""On which civil days a recurrence falls; days are counted from 1970-01-01."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Final, Protocol

from tidegate.domain.zone_data import HORIZON_YEAR

_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
NO_DAY: Final = 20_000_000
"""A day after the calendar's end; with a minus sign, one before its beginning."""


def day_number(day: date) -> int:
    """Return the days from 1970-01-01 to ``day``."""
    return day.toordinal() - _EPOCH_ORDINAL


class DayPattern(Protocol):
    """An endless set of civil days."""

    def on_or_after(self, day: int) -> int:
        """Return the first matching day from ``day`` on, or NO_DAY beyond the calendar's horizon."""
        ...

    def on_or_before(self, day: int) -> int:
        """Return the last matching day up to ``day``, or -NO_DAY before the year 1."""
        ...

    def between(self, first: int, last: int) -> Iterator[int]:
        """Yield the matching days from ``first`` to ``last``, both included."""
        ...


@dataclass(frozen=True, slots=True)
class EveryNthDay:
    """Every ``step``-th day, ``anchor`` being one of them: 1 is daily, 7 is weekly."""

    step: int
    anchor: int = 0

    def on_or_after(self, day: int) -> int:
        """Return the first matching day from ``day`` on; there always is one, at most ``step - 1`` days later."""
        return day + (self.anchor - day) % self.step

    def on_or_before(self, day: int) -> int:
        """Return the last matching day up to ``day``; there always is one, at most ``step - 1`` days earlier."""
        return day - (day - self.anchor) % self.step

    def between(self, first: int, last: int) -> Iterator[int]:
        """Yield every matching day from ``first`` to ``last``, both included, ascending."""
        return iter(range(self.on_or_after(first), last + 1, self.step))


@dataclass(frozen=True, slots=True)
class DaysOfMonth:
    """Days that depend on the month alone: its number, its length and the weekday it begins on.

    ``shapes`` holds the days of every kind of month there is, under `_shape`; so whether a pattern ever matches is
    known without searching.
    """

    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def matching(cls, choose: Callable[[int, int], tuple[int, ...]]) -> DaysOfMonth:
        """Return the pattern whose days of a month are ``choose(year, month)``, ascending.

        The years 2000 to 2027 contain every kind of month.
        """
        shapes: dict[int, tuple[int, ...]] = {}
        for year in range(2000, 2028):
            for month in range(1, 13):
                first = date(year, month, 1)
                shape = _shape(month, first.weekday(), _is_leap(year))
                if shape not in shapes:
                    shapes[shape] = choose(year, month)
        return cls(tuple(shapes[shape] for shape in range(12 * 7 * 2)))

    @property
    def never(self) -> bool:
        """Return whether no day of any month matches."""
        return not any(self.shapes)

    def on_or_after(self, day: int) -> int:
        """Return the first matching day from ``day`` on, NO_DAY if none comes by the calendar's horizon; a pattern that never
        matches ends there too.
        """
        year, month, first = _month_of(day)
        while year < HORIZON_YEAR + 1:
            days = self._days(year, month, first)
            index = bisect_left(days, day - first + 1)
            if index < len(days):
                return first - 1 + days[index]
            first += _length(year, month)
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        return NO_DAY

    def on_or_before(self, day: int) -> int:
        """Return the last matching day up to ``day``, -NO_DAY if there is none after the year 1."""
        year, month, first = _month_of(day)
        while year > 1:
            days = self._days(year, month, first)
            index = bisect_right(days, day - first + 1)
            if index:
                return first - 1 + days[index - 1]
            year, month = (year, month - 1) if month > 1 else (year - 1, 12)
            first -= _length(year, month)
        return -NO_DAY

    def between(self, first: int, last: int) -> Iterator[int]:
        """Yield every matching day from ``first`` to ``last``, both included, ascending."""
        year, month, beginning = _month_of(first)
        while beginning <= last:
            for number in self._days(year, month, beginning):
                if first <= beginning - 1 + number <= last:
                    yield beginning - 1 + number
            beginning += _length(year, month)
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)

    def _days(self, year: int, month: int, first: int) -> tuple[int, ...]:
        return self.shapes[_shape(month, (first + 3) % 7, _is_leap(year))]


@lru_cache(maxsize=31)
def monthly_on(number: int) -> DaysOfMonth:
    """Return the day ``number`` of each month, or its last day where the month is shorter (SPEC 2.5, HOLE dd)."""
    return DaysOfMonth.matching(lambda year, month: (min(number, _length(year, month)),))


def _shape(month: int, first_weekday: int, leap: bool) -> int:
    return ((month - 1) * 7 + first_weekday) * 2 + leap


_LENGTHS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _length(year: int, month: int) -> int:
    return 29 if month == 2 and _is_leap(year) else _LENGTHS[month - 1]


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _month_of(day: int) -> tuple[int, int, int]:
    """Return the year and month of ``day``, and the day that month begins on."""
    civil = date.fromordinal(day + _EPOCH_ORDINAL)
    return civil.year, civil.month, day - civil.day + 1
