"""Cursor values: how a source writes the instant that orders its changes (SPEC 4).

A connector states format, precision and zone; inside Tidegate a cursor value is an aware UTC instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import TypeAlias
from zoneinfo import ZoneInfo

from tidegate.domain.zone_data import zone_info

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NONE = timedelta(0)
_MICROSECOND = timedelta(microseconds=1)

Path: TypeAlias = tuple[str, ...]
"""Where a value stands in a JSON document: member names from the root; empty is the root itself."""


class CursorFormat(StrEnum):
    """How a source writes a cursor value."""

    ISO = "iso"  # 2026-03-29T01:30:00Z, offset required
    EPOCH_SECONDS = "epoch_seconds"
    EPOCH_MILLISECONDS = "epoch_milliseconds"
    LOCAL = "local"  # 2026-03-29 01:30:00, wall time in `time_zone`
    DATE = "date"  # 2026-03-29, midnight in `time_zone`


@dataclass(frozen=True)
class CursorField:
    """The record field that orders a stream's changes.

    ``path``: where it stands in a record. ``precision``: the grain of the source's values; an instant inside a
    grain may be shown as the grain's beginning. ``changes``: False if it never changes after creation, so that a
    bounded fetch is safe (SPEC 4). ``ascending``: the source lists in this field's order, oldest first.
    """

    path: Path
    format: CursorFormat = CursorFormat.ISO
    time_zone: str = "Etc/UTC"
    precision: timedelta = timedelta(microseconds=1)
    changes: bool = True
    ascending: bool = False

    @cached_property
    def _zone(self) -> ZoneInfo:
        return zone_info(self.time_zone)

    def parse(self, value: object) -> datetime:
        """Return ``value`` as an aware UTC instant, to the microsecond.

        Wall times that occur twice all mean the instant at which the first of them begins: earlier is safe, later could
        lose; and an edit in the second hour, at an earlier wall time than the one before, is not taken for an older one.
        Raises ValueError saying what is wrong with ``value``.
        """
        try:
            return self._parse(value)
        except (TypeError, OverflowError) as error:
            raise ValueError(f"{value!r} is not a {self.format} cursor value") from error

    def _parse(self, value: object) -> datetime:
        if isinstance(value, bool) or value is None:
            raise ValueError(f"{value!r} is not a {self.format} cursor value")
        match self.format:
            case CursorFormat.EPOCH_SECONDS:
                return EPOCH + timedelta(seconds=_number(value))
            case CursorFormat.EPOCH_MILLISECONDS:
                return EPOCH + timedelta(milliseconds=_number(value))
            case CursorFormat.DATE:
                return self._midnight(date.fromisoformat(_text(value)))
            case CursorFormat.LOCAL:
                local = datetime.fromisoformat(_text(value))
                return local.astimezone(UTC) if local.tzinfo is not None else self._wall(local)
            case CursorFormat.ISO:
                instant = datetime.fromisoformat(_text(value))
                if instant.tzinfo is None:
                    raise ValueError(f"{value!r} has no offset; declare the format 'local' with a time zone")
                return instant.astimezone(UTC)

    def _midnight(self, day: date) -> datetime:
        return datetime(day.year, day.month, day.day, tzinfo=self._zone).astimezone(UTC)

    def _wall(self, local: datetime) -> datetime:
        """Return a wall time as an instant, all of a repeated stretch as the stretch's first beginning."""
        first = local.replace(tzinfo=self._zone, fold=0)
        back = self._repeated(local)
        if back <= _NONE:
            return first.astimezone(UTC)
        # The stretch begins after low, and at high or before it.
        low, high = first.astimezone(UTC) - back, first.astimezone(UTC)
        while high - low > _MICROSECOND:
            middle = low + (high - low) / 2
            wall = middle.astimezone(self._zone).replace(tzinfo=None, fold=0)
            again = wall.replace(tzinfo=self._zone, fold=1).astimezone(UTC)
            low, high = (low, middle) if again > middle else (middle, high)
        return high

    def _repeated(self, local: datetime) -> timedelta:
        """Return by how much the clocks go back over a wall time, if it occurs twice; otherwise nothing, or less."""
        passes = [local.replace(tzinfo=self._zone, fold=fold).utcoffset() or _NONE for fold in (0, 1)]
        return passes[0] - passes[1]

    def floor(self, instant: datetime) -> datetime:
        """Return the cursor value that a change at ``instant`` may be shown with: the beginning of its grain, in UTC.

        Every lower bound has to start there, or a change in the same grain is lost (HOLE j). In wall time grains
        are counted on the wall, and in the repeated hour the value is the first of the two, as `parse` reads it.
        """
        if self.format is CursorFormat.DATE:
            return self._midnight(instant.astimezone(self._zone).date())
        if self.format is CursorFormat.LOCAL:
            wall = _down(instant.astimezone(self._zone).replace(tzinfo=UTC, fold=0), self.precision)
            return min(instant.astimezone(UTC), self._wall(wall.replace(tzinfo=None)))
        return _down(instant.astimezone(UTC), self.precision)

    def ceiling(self, instant: datetime) -> datetime:
        """Return an instant at or after ``instant`` that ends a grain, in UTC: what an upper bound has to reach."""
        if self.format is CursorFormat.DATE:
            midnight = self.floor(instant)
            next_day = instant.astimezone(self._zone).date() + timedelta(days=1)
            return midnight if midnight == instant else self._midnight(next_day)
        return _up(instant.astimezone(UTC), self.precision)

    def latest_before(self, instant: datetime) -> datetime:
        """Return the `ceiling` of every true instant whose cursor value is before ``instant``.

        The two differ in wall time only: a repeated stretch has one value, its first beginning, up to its second end.
        """
        if self.format is CursorFormat.LOCAL:
            wall = instant.astimezone(self._zone).replace(tzinfo=None, fold=0)
            begin = self._wall(wall)
            if begin < instant and (back := self._repeated(wall)) > _NONE:
                return _up(begin + 2 * back, self.precision)
        return self.ceiling(instant)

    def render(self, instant: datetime) -> str | int:
        """Return ``instant`` as the source writes it, rounded down to the format's own grain."""
        utc = instant.astimezone(UTC)
        match self.format:
            case CursorFormat.EPOCH_SECONDS:
                return (utc - EPOCH) // timedelta(seconds=1)
            case CursorFormat.EPOCH_MILLISECONDS:
                return (utc - EPOCH) // timedelta(milliseconds=1)
            case CursorFormat.DATE:
                return utc.astimezone(self._zone).date().isoformat()
            case CursorFormat.LOCAL:
                return utc.astimezone(self._zone).replace(tzinfo=None).isoformat(timespec=self._timespec)
            case CursorFormat.ISO:
                return utc.isoformat(timespec=self._timespec).replace("+00:00", "Z")

    @property
    def _timespec(self) -> str:
        if self.precision >= timedelta(seconds=1):
            return "seconds"
        return "milliseconds" if self.precision >= timedelta(milliseconds=1) else "microseconds"


def _down(instant: datetime, grain: timedelta) -> datetime:
    return EPOCH + (instant - EPOCH) // grain * grain


def _up(instant: datetime, grain: timedelta) -> datetime:
    return EPOCH - (EPOCH - instant) // grain * grain


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


def _number(value: object) -> int | float:
    if isinstance(value, int | float):
        return value
    text = str(value)
    return int(text) if text.lstrip("-").isdigit() else float(text)
