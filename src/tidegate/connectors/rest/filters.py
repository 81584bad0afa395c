"""Bounds as request parameters that never lose a record: more may be shown than asked for, less never (HOLE j).

A source compares the parameter with a value that it may show, or hold, at another grain than ours, inclusively or
exclusively, in UTC or in wall time. So a lower bound is rounded down, to the cursor's grain and to the parameter's,
and an upper one up; an exclusive lower parameter is set one grain further back; an upper one needs no step, for
``<=`` only shows more than ``<``.
Wall time goes back when clocks do: near such a change the smaller offset is used below and the larger above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from tidegate.connectors.rest.declaration import BoundParam, Meaning, StreamDeclaration
from tidegate.domain.cursor import EPOCH, CursorField, CursorFormat
from tidegate.domain.fetch import FetchRequest
from tidegate.domain.zone_data import zone_info

DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is sent, and what it is known to show: every record from ``lower`` on and before ``upper``."""

    params: Mapping[str, str]
    lower: datetime | None
    upper: datetime | None


def bounds(request: FetchRequest, stream: StreamDeclaration, oldest: datetime | None) -> Bounds:
    """Return the parameters for ``request``. ``oldest``: the source serves nothing older (HOLE w), None if it does."""
    params: dict[str, str] = {}
    cursor = stream.stream.cursor
    shown_from, shown_to = oldest, None
    if cursor is not None and stream.lower is not None and request.lower is not None:
        since = request.lower if oldest is None else max(request.lower, oldest)
        written, shown_from = render_lower(stream.lower, cursor, since)
        params[stream.lower.param] = stream.lower.around(written)
        shown_from = shown_from if oldest is None else max(shown_from, oldest)
    if cursor is not None and stream.upper is not None and request.upper is not None:
        params[stream.upper.param] = stream.upper.around(render_upper(stream.upper, cursor, request.upper))
        shown_to = request.upper
    return Bounds(params, shown_from, shown_to)


def render_lower(bound: BoundParam, cursor: CursorField, instant: datetime) -> tuple[str, datetime]:
    """Return how the bound that shows every change at or after ``instant`` is written, and the cursor value from where it does.

    What is sent is `BoundParam.around` that text.
    """
    shown_from = cursor.floor(instant)
    steps_back = 1 if bound.meaning is Meaning.EXCLUSIVE else 0
    if bound.format is CursorFormat.DATE:
        zone = zone_info(bound.time_zone)
        return (shown_from.astimezone(zone).date() - steps_back * DAY).isoformat(), shown_from
    wall = shown_from
    if bound.format is CursorFormat.LOCAL:
        wall += _offset(zone_info(bound.time_zone), shown_from) - shown_again(bound, shown_from)
    written = EPOCH + ((wall - EPOCH) // bound.grain - steps_back) * bound.grain
    return _write(bound, written), shown_from


def shown_again(bound: BoundParam, instant: datetime) -> timedelta:
    """Return how far before ``instant`` its lower bound reaches because clocks go back within a day."""
    if bound.format is not CursorFormat.LOCAL:
        return timedelta(0)
    zone = zone_info(bound.time_zone)
    return max(timedelta(0), _offset(zone, instant) - _offset(zone, instant + DAY))


def overshoot(bound: BoundParam | None) -> timedelta | None:
    """Return how far below the cursor's `floor` of an instant `render_lower` may reach at most; None without a bound."""
    if bound is None:
        return None
    steps = 2 if bound.meaning is Meaning.EXCLUSIVE else 1
    grain = DAY if bound.format is CursorFormat.DATE else bound.grain
    clock_changes = DAY if bound.format in (CursorFormat.DATE, CursorFormat.LOCAL) else timedelta(0)
    return steps * grain + clock_changes


def render_upper(bound: BoundParam, cursor: CursorField, instant: datetime) -> str:
    """Return how the bound that shows every record with a cursor value before ``instant`` is written."""
    reached = cursor.ceiling(instant)
    zone = zone_info(bound.time_zone)
    if bound.format is CursorFormat.DATE:
        return ((reached - TICK).astimezone(zone).date() + DAY).isoformat()
    if bound.format is CursorFormat.LOCAL:
        reached += max(_offset(zone, reached), _offset(zone, reached - DAY))
    else:
        reached = cursor.latest_before(instant)
    return _write(bound, EPOCH - (EPOCH - reached) // bound.grain * bound.grain)


def _offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def _write(bound: BoundParam, written: datetime) -> str:
    """``written``: the instant, or for wall time the wall's reading as if it were UTC."""
    match bound.format:
        case CursorFormat.EPOCH_SECONDS:
            return str((written - EPOCH) // timedelta(seconds=1))
        case CursorFormat.EPOCH_MILLISECONDS:
            return str((written - EPOCH) // timedelta(milliseconds=1))
        case CursorFormat.LOCAL:
            return written.replace(tzinfo=None).isoformat(timespec=_timespec(bound.grain))
        case _:
            return written.isoformat(timespec=_timespec(bound.grain)).replace("+00:00", "Z")


@cache
def _timespec(grain: timedelta) -> str:
    if grain % timedelta(seconds=1) == timedelta(0):
        return "seconds"
    return "milliseconds" if grain % timedelta(milliseconds=1) == timedelta(0) else "microseconds"
