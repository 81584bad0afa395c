"""How due dates are found: by elapsed time, or by the wall clock of a zone (SPEC 2.3, 2.4).

Both kinds are pure functions of the rule and the zone data (HOLE jj): asked again with newer data they answer anew.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate, islice, repeat
from operator import add
from typing import Final, Protocol

from tidegate.domain.day_pattern import DayPattern, EveryNthDay
from tidegate.domain.instant import DAY_SECONDS, EPOCH, instant_of, whole_seconds
from tidegate.domain.zone import FAR, Zone
from tidegate.domain.zone_data import HORIZON

END: Final = instant_of(HORIZON)
"""Where the calendar ends: no due date is there or after it."""
LAST: Final = instant_of(HORIZON - 1)


class DueDates(Protocol):
    """An ascending row of instants, all after ``start`` and before the calendar's horizon."""

    @property
    def start(self) -> datetime:
        """Return the start instant, which is not itself a due date (SPEC 2.6)."""
        ...

    def next(self, after: datetime) -> datetime | None:
        """Return the first one strictly after ``after``, None beyond the horizon."""
        ...

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """Return the last one in ``(after, until]``, found without stepping through those before it."""
        ...

    def batch(self, after: datetime, count: int) -> list[datetime]:
        """Return the first ``count`` ones strictly after ``after``, fewer at the horizon."""
        ...


@dataclass(frozen=True, slots=True)
class ElapsedDueDates:
    """``start + interval``, ``start + 2 * interval``, and so on."""

    start: datetime
    interval: timedelta

    def next(self, after: datetime) -> datetime | None:
        """Return the first one strictly after both ``after`` and the start, None beyond the horizon; no clock change moves it
        (SPEC 2.3).
        """
        steps = max(0, (after - self.start) // self.interval) + 1
        return self._step(steps)

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """Return the last one in ``(after, until]``, None if there is none; one division, however many have passed."""
        steps = (min(until, LAST) - self.start) // self.interval
        due_at = self._step(steps) if steps > 0 else None
        return due_at if due_at is not None and due_at > after else None

    def batch(self, after: datetime, count: int) -> list[datetime]:
        """Return the first ``count`` ones after both ``after`` and the start, ``interval`` apart; fewer at the horizon."""
        first = self.next(after)
        if first is None:
            return []
        room = (LAST - first) // self.interval + 1
        return list(islice(_row(first, self.interval), min(count, room)))

    def _step(self, steps: int) -> datetime | None:
        elapsed = steps * self.interval
        return self.start + elapsed if elapsed < END - self.start else None


@dataclass(frozen=True, slots=True)
class WallDueDates:
    """The instants at which the clocks of ``zone`` show one of ``times`` (seconds of the day) on one of ``days``.

    Within a stretch of constant offset instants rise with wall times. Only after a gap do two rows interleave: the
    times that the gap moved forward, and the regular ones of the stretch that follows; the earlier of the two is next.
    """

    start: datetime
    zone: Zone
    days: DayPattern
    times: tuple[int, ...]
    _start: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_start", whole_seconds(self.start))

    def next(self, after: datetime) -> datetime | None:
        """Return the first one strictly after both ``after`` and the start, None beyond the horizon; a wall time that does
        not exist is moved forward by the gap, of one that occurs twice the first counts (SPEC 2.4).
        """
        found = self._first_from(max(whole_seconds(after), self._start) + 1)
        return None if found is None else instant_of(found)

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """Return the last one in ``(after, until]`` after the start, None if there is none; found from ``until`` backwards,
        however many have passed.
        """
        low = max(after, self.start)
        if until <= low:
            return None
        found = self._last_to(min(whole_seconds(until), HORIZON - 1))
        return instant_of(found) if found > whole_seconds(low) else None

    def batch(self, after: datetime, count: int) -> list[datetime]:
        """Return what `next` would give ``count`` times in a row, strictly increasing; fewer at the horizon."""
        found: list[datetime] = []
        seconds = max(whole_seconds(after), self._start)
        while len(found) < count and (following := self._first_from(seconds + 1)) is not None:
            found.append(instant_of(following))
            found += self._run_on(following, count - len(found))
            seconds = whole_seconds(found[-1])
        return found

    def _first_from(self, low: int) -> int | None:
        """Return the first due instant at or after ``low``."""
        zone = self.zone
        stretch = bisect_right(zone.ends, low)
        wall = -FAR
        while stretch < len(zone.offsets):
            wall = self._wall_from(max(wall, zone.starts[stretch], low + zone.offsets[stretch]))
            if wall < zone.starts[stretch + 1]:
                instant = wall - zone.offsets[stretch]
                if instant < zone.begins[stretch + 1]:
                    return instant
                return self._earlier_of(instant, stretch + 1, low)
            stretch = zone.stretch_of_wall(wall)
        return None

    def _earlier_of(self, moved: int, stretch: int, low: int) -> int:
        """Return ``moved``, or a regular time of the ``stretch`` it was moved into that comes before it."""
        zone = self.zone
        regular = self._wall_from(max(zone.starts[stretch], low + zone.offsets[stretch])) - zone.offsets[stretch]
        return min(moved, regular)

    def _last_to(self, high: int) -> int:
        """Return the last due instant at or before ``high``; far in the past if there is none."""
        zone = self.zone
        stretch = bisect_right(zone.begins, high) - 1
        wall = FAR
        while stretch >= 0:
            wall = self._wall_to(min(wall, zone.starts[stretch + 1] - 1, high + zone.offsets[stretch]))
            if wall >= zone.starts[stretch]:
                instant = wall - zone.offsets[stretch]
                if stretch and instant < zone.ends[stretch - 1]:
                    return self._later_of(instant, stretch - 1, high)
                return instant
            stretch = zone.stretch_of_wall(wall)
        return -FAR

    def _later_of(self, regular: int, stretch: int, high: int) -> int:
        """Return ``regular``, or a time moved here by the gap that ends ``stretch`` which comes after it."""
        zone = self.zone
        wall = self._wall_to(min(zone.starts[stretch + 1] - 1, high + zone.offsets[stretch]))
        return max(regular, wall - zone.offsets[stretch])

    def _wall_from(self, wall: int) -> int:
        """Return the first matching wall time at or after ``wall``."""
        day, second = divmod(wall, DAY_SECONDS)
        index = bisect_left(self.times, second)
        found = self.days.on_or_after(day if index < len(self.times) else day + 1)
        while found in self.zone.missing_days:
            found = self.days.on_or_after(found + 1)
        return found * DAY_SECONDS + self.times[index if found == day else 0]

    def _wall_to(self, wall: int) -> int:
        """Return the last matching wall time at or before ``wall``."""
        day, second = divmod(wall, DAY_SECONDS)
        index = bisect_right(self.times, second) - 1
        found = self.days.on_or_before(day if index >= 0 else day - 1)
        while found in self.zone.missing_days:
            found = self.days.on_or_before(found - 1)
        return found * DAY_SECONDS + self.times[index if found == day else -1]

    def _run_on(self, seconds: int, count: int) -> list[datetime]:
        """Return up to ``count`` due dates after the due instant ``seconds`` while nothing but regular times follow."""
        zone = self.zone
        stretch = bisect_right(zone.begins, seconds) - 1
        if stretch and seconds < zone.ends[stretch - 1]:
            return []
        offset = zone.offsets[stretch]
        wall = seconds + offset
        end = min(zone.begins[stretch + 1], zone.ends[stretch]) + offset
        if isinstance(self.days, EveryNthDay) and len(self.times) == 1:
            step = self.days.step * DAY_SECONDS
            row = _row(instant_of(seconds), timedelta(0, step))
            return list(islice(row, 1, min(count, (end - 1 - wall) // step) + 1))
        return self._day_by_day(wall, end, offset, count)

    def _day_by_day(self, wall: int, end: int, offset: int, count: int) -> list[datetime]:
        """Return up to ``count`` due dates of the wall times in ``(wall, end)`` under one offset."""
        found: list[datetime] = []
        whole_day: list[timedelta] = []
        (first, from_second), (last, to_second) = divmod(wall, DAY_SECONDS), divmod(end, DAY_SECONDS)
        for day in self.days.between(first, last):
            midnight = EPOCH + timedelta(day, -offset)
            begin = bisect_right(self.times, from_second) if day == first else 0
            stop = bisect_left(self.times, to_second) if day == last else len(self.times)
            stop = min(stop, begin + count - len(found))
            if stop - begin == len(self.times):
                whole_day = whole_day or [timedelta(0, time) for time in self.times]
                found += [midnight + step for step in whole_day]
            else:
                found += [midnight + timedelta(0, time) for time in self.times[begin:stop]]
            if len(found) >= count:
                break
        return found


def _row(first: datetime, step: timedelta) -> Iterator[datetime]:
    """Yield ``first``, ``first + step``, and so on; adding is the cheapest way to make an instant."""
    return accumulate(repeat(step), add, initial=first)
