"""Other ways to the same answers: the standard library's zoneinfo, and plain enumeration of UTC time.

Nothing here uses Tidegate's calendar. Zone data come from the same pinned `tzdata` package, never from the system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)
LEAD = timedelta(hours=12)  # since 1970 no clock has gone back by more
Rule = Callable[[datetime], bool]


@cache
def zone_info(name: str) -> ZoneInfo:
    """Return the standard library's reading of one zone of the `tzdata` package."""
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@cache
def zone_content(name: str) -> bytes:
    """Return the bytes of a zone's file: links have the content of their target."""
    return resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()


def all_zone_names() -> list[str]:
    """Return the names listed by the `tzdata` package."""
    return (resources.files("tzdata") / "zones").read_text().split()


def first_instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the first instant with the naive time ``wall``; one in a gap is moved forward by it (PEP 495, fold 0)."""
    return wall.replace(tzinfo=zone).astimezone(UTC)


def day_exists(day: date, zone: ZoneInfo) -> bool:
    """Return whether any quarter of an hour of ``day`` is shown by the zone's clocks."""
    midnight = datetime(day.year, day.month, day.day)
    for quarter in range(96):
        wall = midnight + timedelta(minutes=15 * quarter)
        if first_instant(wall, zone).astimezone(zone).replace(tzinfo=None) == wall:
            return True
    return False


def daily(zone: ZoneInfo, hour: int, first: date, last: date) -> dict[date, datetime]:
    """Return the due date of every existing day from ``first`` to ``last``, by day."""
    found = {}
    wall = datetime(first.year, first.month, first.day, hour)
    for _ in range((last - first).days + 1):
        instant = first_instant(wall, zone)
        if instant.astimezone(zone).replace(tzinfo=None) == wall or day_exists(wall.date(), zone):
            found[wall.date()] = instant
        wall += DAY
    return found


def watched(zone: ZoneInfo, first: datetime, last: datetime) -> list[tuple[datetime, datetime]]:
    """Return (wall time, instant) for every whole minute of wall time that falls in ``[first, last]``.

    Found by watching a clock tick. What it shows again is not counted; what it jumps over is counted at the same
    distance after the jump, unless the jump swallows that whole day. Starts early, to know what was shown already.
    """
    offsets = [instant.astimezone(zone).utcoffset() for instant in (first - LEAD, first, last)]
    whole = all(offset is not None and offset.seconds % 60 == 0 for offset in offsets)
    tick = timedelta(seconds=60 if whole else 30)
    found: list[tuple[datetime, datetime]] = []
    shown: set[datetime] = set()
    instant = (first - LEAD).replace(second=0, microsecond=0)
    before = instant.astimezone(zone).replace(tzinfo=None) - tick
    while instant <= last:
        wall = instant.astimezone(zone).replace(tzinfo=None)
        jumped = [skipped for skipped in _between(before + tick, wall, tick) if day_exists(skipped.date(), zone)]
        found += [(skipped, instant + (skipped - before - tick)) for skipped in jumped]
        if wall not in shown:
            found.append((wall, instant))
        shown.add(wall)
        before = wall
        instant += tick
    return [(wall, instant) for wall, instant in found if not wall.second and first <= instant <= last]


def _between(first: datetime, end: datetime, tick: timedelta) -> Iterator[datetime]:
    while first < end:
        yield first
        first += tick


def transitions(zone: ZoneInfo, first: datetime, last: datetime) -> list[datetime]:
    """Return the instants in ``[first, last]`` at which the zone's offset changes, to the second, by bisection."""
    found = []
    instant = first
    step = timedelta(hours=6)
    while instant < last:
        if instant.astimezone(zone).utcoffset() != (instant + step).astimezone(zone).utcoffset():
            low, high = instant, instant + step
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) // 2
                middle = middle.replace(microsecond=0)
                same = middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset()
                low, high = (middle, high) if same else (low, middle)
            found.append(high)
        instant += step
    return found
