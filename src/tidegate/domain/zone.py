"""A time zone as stretches of constant offset: what wall times mean in it (SPEC 2.4)."""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from tidegate.domain.errors import InvalidInput
from tidegate.domain.instant import DAY_SECONDS, EPOCH, instant_of, whole_seconds
from tidegate.domain.zone_data import HORIZON, read_zone, zone_names

FAR: Final = 10**12
"""Seconds further from the epoch than any date, in either direction."""
_ABBREVIATION: Final = re.compile(r"[A-Z]{1,5}")
_REMEDY: Final = 'Write a name such as "Europe/London" or "Etc/UTC"; offsets and abbreviations are not zones.'


@dataclass(frozen=True, slots=True)
class ClockChange:
    """At the instant ``at`` clocks that showed ``wall_before`` were put to ``wall_after``."""

    at: datetime
    wall_before: datetime
    wall_after: datetime

    @property
    def forward_by(self) -> timedelta:
        """Return by how much clocks went forward; negative if they went back."""
        return self.wall_after - self.wall_before


@dataclass(frozen=True, slots=True, eq=False)
class Zone:
    """Stretches of time in which a zone's offset is constant; all figures in seconds, walls as if they were UTC.

    Stretch ``i`` has ``offsets[i]`` and answers for the wall times ``[starts[i], starts[i + 1])``, which are the
    instants ``[begins[i], ends[i])``. A wall time that occurs twice belongs to the earlier stretch, and so does one that
    does not exist: with the earlier offset it lands after the gap, moved forward by it (SPEC 2.4). Hence after a gap
    ``ends[i]`` is later than ``begins[i + 1]``, by the gap. ``changes[i]`` is the instant between stretches ``i`` and
    ``i + 1``; ``missing_days`` are the civil days (since the epoch) without an instant.
    """

    name: str
    offsets: tuple[int, ...]
    changes: tuple[int, ...]
    starts: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    missing_days: frozenset[int]

    def instant_of_wall(self, wall: int) -> int:
        """Return the first instant with this wall time; one that does not exist is moved forward by the gap."""
        return wall - self.offsets[self.stretch_of_wall(wall)]

    def stretch_of_wall(self, wall: int) -> int:
        """Return which stretch answers for a wall time; ``len(offsets)`` beyond the calendar's horizon."""
        return bisect_right(self.starts, wall) - 1

    def local(self, instant: datetime) -> datetime:
        """Return the naive wall time that the zone's clocks show at ``instant`` (an aware one, before the horizon)."""
        offset = self.offsets[bisect_right(self.changes, whole_seconds(instant))]
        return (instant.astimezone(UTC) + timedelta(seconds=offset)).replace(tzinfo=None)

    def clock_changes(self, start: datetime, end: datetime) -> list[ClockChange]:
        """Return the clock changes in ``[start, end)``, in order."""
        first = bisect_left(self.changes, (start - EPOCH).total_seconds())
        last = bisect_left(self.changes, (end - EPOCH).total_seconds())
        return [self._clock_change(index) for index in range(first, last)]

    def _clock_change(self, index: int) -> ClockChange:
        at = instant_of(self.changes[index])
        before, after = (timedelta(seconds=offset) for offset in self.offsets[index : index + 2])
        wall = at.replace(tzinfo=None)
        return ClockChange(at, wall + before, wall + after)


def find_zone(name: object, field: str = "time_zone") -> Zone:
    """Return the zone of an IANA name written in any case (HOLE mm: ``ETC/Utc``), under its canonical spelling.

    Raises InvalidInput, suggesting the nearest name.
    """
    if isinstance(name, str):
        spelling = _spellings().get(name.casefold())
        if spelling is not None:
            return _zone(spelling)
    raise InvalidInput(field, name, "is not an IANA time zone", _nearest(name) if isinstance(name, str) else _REMEDY)


@lru_cache(maxsize=1)
def _spellings() -> dict[str, str]:
    return {name.casefold(): name for name in zone_names()}


def _nearest(name: str) -> str:
    if _ABBREVIATION.fullmatch(name.strip()):
        return _REMEDY  # IST is three zones and BST two: the nearest spelling would be somewhere else
    wanted = name.strip().casefold().replace(" ", "_")
    places = {spelling.casefold().rpartition("/")[2]: spelling for spelling in zone_names()}
    candidates = _spellings() if "/" in wanted else places
    near = difflib.get_close_matches(wanted, candidates, n=1)
    if near:
        return f'Did you mean "{candidates[near[0]]}"?'
    return _REMEDY


@lru_cache(maxsize=1024)
def _zone(name: str) -> Zone:
    data = read_zone(name)
    offsets = [data.first_offset]
    starts, begins, ends = [-FAR], [-FAR], []
    missing: set[int] = set()
    for at, offset in data.transitions:
        before = offsets[-1]
        start = at + max(before, offset)
        starts.append(start)
        begins.append(start - offset)
        ends.append(start - before)
        offsets.append(offset)
        missing.update(range(-(-(at + before) // DAY_SECONDS), (at + offset) // DAY_SECONDS))
    starts.append(HORIZON + offsets[-1])
    begins.append(HORIZON)
    ends.append(HORIZON)
    changes = tuple(transition.at for transition in data.transitions)
    return Zone(name, tuple(offsets), changes, tuple(starts), tuple(begins), tuple(ends), frozenset(missing))
