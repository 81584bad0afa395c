"""Reads the IANA time zone data of the pinned `tzdata` package (RFC 9636, "TZif"): constant data, nothing else.

The system's own zone files are never consulted, so that one installation of Tidegate gives one answer everywhere
(docs/decisions/0002-calendar.md). Rules that a zone follows for ever (the file's footer) are written out up to `HORIZON`.
"""

from __future__ import annotations

import re
import struct
from datetime import UTC, date, datetime
from functools import lru_cache
from importlib import resources
from importlib.abc import Traversable
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from tidegate.domain.instant import DAY_SECONDS, EPOCH, whole_seconds

HORIZON_YEAR: Final = 2400
HORIZON: Final = whole_seconds(datetime(HORIZON_YEAR, 1, 1, tzinfo=UTC))
"""The calendar ends here, in seconds since the epoch: no due date is at or after it."""


class Transition(NamedTuple):
    """From the instant ``at`` (seconds since the epoch) a zone's clocks are ``offset`` seconds ahead of UTC."""

    at: int
    offset: int


class ZoneData(NamedTuple):
    """What a zone's file says: the offset before the first transition, and the transitions in order."""

    first_offset: int
    transitions: tuple[Transition, ...]


@lru_cache(maxsize=1)
def zone_names() -> tuple[str, ...]:
    """Return every zone name of the pinned data, links included."""
    return tuple((resources.files("tzdata") / "zones").read_text(encoding="ascii").split())


def read_zone(name: str) -> ZoneData:
    """Return the data of a zone named in `zone_names()`, in order and with no transition that changes nothing."""
    content = _file(name).read_bytes()
    _, block = _block(content, 0, time_bytes=4)
    data, end = _block(content, block, time_bytes=8)
    footer = content[end:].strip(b"\n").decode("ascii")
    last = data.transitions[-1] if data.transitions else Transition(0, data.first_offset)
    forever = [later for later in _written_out(footer, EPOCH.year + last.at // 31_556_952 - 1) if later.at > last.at]
    return ZoneData(data.first_offset, _changes_only(data.first_offset, (*data.transitions, *forever)))


@lru_cache(maxsize=1024)
def zone_info(name: str) -> ZoneInfo:
    """Return the standard library's reading of a zone named in `zone_names()`: the same data as due dates have.

    ``ZoneInfo(name)`` would go by the system's files, which may have other rules, here and not on the next machine.
    """
    with _file(name).open("rb") as content:
        return ZoneInfo.from_file(content, key=name)


def _file(name: str) -> Traversable:
    return resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))


def _block(content: bytes, at: int, *, time_bytes: int) -> tuple[ZoneData, int]:
    """Return one data block of a TZif file and where it ends (RFC 9636, 3.1 and 3.2)."""
    magic, *counts = struct.unpack_from(">4s16x6l", content, at)
    if magic != b"TZif":
        raise ValueError("not a TZif file")
    utc_flags, standard_flags, leaps, times, types, letters = counts
    instants_at = at + 44
    kinds_at = instants_at + times * time_bytes
    types_at = kinds_at + times
    end = types_at + types * 6 + letters + leaps * (time_bytes + 4) + standard_flags + utc_flags
    offsets = [struct.unpack_from(">l", content, types_at + 6 * kind)[0] for kind in range(types)]
    instants = struct.unpack_from(f">{times}{'q' if time_bytes == 8 else 'l'}", content, instants_at)
    kinds = content[kinds_at:types_at]
    found = tuple(Transition(instant, offsets[kind]) for instant, kind in zip(instants, kinds, strict=True))
    return ZoneData(offsets[0] if offsets else 0, found), end


def _changes_only(offset: int, transitions: tuple[Transition, ...]) -> tuple[Transition, ...]:
    kept = []
    for transition in transitions:
        if transition.offset != offset:
            kept.append(transition)
            offset = transition.offset
    return tuple(kept)


_NAME = r"(?:<[^>]+>|[A-Za-z]+)"
_TIME = r"[+-]?\d+(?::\d+)*"
_RULE = rf"M\d+\.\d\.\d(?:/{_TIME})?"
_FOOTER = re.compile(rf"{_NAME}({_TIME})(?:{_NAME}({_TIME})?,({_RULE}),({_RULE}))?")


def _written_out(footer: str, first_year: int) -> list[Transition]:
    """Return the transitions of a POSIX TZ rule from ``first_year`` up to the horizon, in order.

    Raises ValueError for the day-number rules (``Jn``, ``n``), which the data does not use.
    """
    parts = _FOOTER.fullmatch(footer)
    if parts is None:
        raise ValueError(f"unknown kind of time zone rule: {footer!r}")
    standard_text, summer_text, summer_rule, standard_rule = parts.groups()
    if summer_rule is None:
        return []
    standard = -_seconds(standard_text)
    summer = -_seconds(summer_text) if summer_text else standard + 3600
    found = []
    for year in range(first_year, HORIZON_YEAR):
        found.append(Transition(_rule_wall(summer_rule, year) - standard, summer))
        found.append(Transition(_rule_wall(standard_rule, year) - summer, standard))
    return sorted(found)


def _seconds(text: str) -> int:
    """Return ``[+-]hh[:mm[:ss]]`` in seconds."""
    hours, minutes, seconds = (*(abs(int(part)) for part in text.split(":")), 0, 0)[:3]
    return (-1 if text.startswith("-") else 1) * (hours * 3600 + minutes * 60 + seconds)


@lru_cache(maxsize=256)
def _rule_parts(rule: str) -> tuple[int, int, int, int]:
    day, _, time = rule.removeprefix("M").partition("/")
    month, week, weekday = (int(part) for part in day.split("."))
    return month, week, weekday, _seconds(time or "2")


def _rule_wall(rule: str, year: int) -> int:
    """Return the wall time of ``Mm.w.d/time`` in ``year``: the w-th (5: last) weekday d (0: Sunday) of month m."""
    month, week, weekday, time = _rule_parts(rule)
    first = date(year, month, 1).toordinal() - EPOCH.toordinal()
    day = first + (weekday - first - 4) % 7 + 7 * (week - 1)
    next_month = date(year + month // 12, month % 12 + 1, 1).toordinal() - EPOCH.toordinal()
    return (day if day < next_month else day - 7) * DAY_SECONDS + time
