"""Durations as people and files write them: ``1h30m``, ``PT1H30M`` or a whole number of seconds."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache
from typing import Final

from tidegate.domain.errors import InvalidInput

_UNITS: Final = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_NUMBER: Final = "([0-9]{1,6})"
_PLAIN: Final = re.compile(" ?".join(f"(?:{_NUMBER}{unit})?" for unit in _UNITS))
_ISO: Final = re.compile(f"P(?:{_NUMBER}W)?(?:{_NUMBER}D)?(?:T(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?")
LONGEST: Final = timedelta(days=36_525)


def parse_duration(value: object, field: str) -> timedelta:
    """Return elapsed time, in whole seconds: a day is 24 h, a week 168 h. A bare number counts seconds.

    Raises InvalidInput naming ``field`` for anything else, months and years included (their length is not fixed),
    for a negative duration and for one of more than a hundred years.
    """
    seconds = _seconds(value)
    if seconds is None:
        remedy = 'Write it as "90s", "5m", "1h30m", "2d" or ISO 8601 such as "PT5M".'
        raise InvalidInput(field, value, "is not a duration", remedy)
    if not 0 <= seconds <= LONGEST.total_seconds():
        raise InvalidInput(field, value, "is not between 0 and a hundred years", "Write a shorter duration.")
    return timedelta(seconds=seconds)


def check_duration(duration: timedelta, field: str) -> None:
    """Raise InvalidInput naming ``field`` unless `parse_duration` could have given ``duration``."""
    if not timedelta(0) <= duration <= LONGEST or duration.microseconds:
        problem = "is not a whole number of seconds between 0 and a hundred years"
        raise InvalidInput(field, str(duration), problem, "Give another duration.")


def _seconds(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return _written(value) if isinstance(value, str) else None


@lru_cache(maxsize=1024)
def _written(value: str) -> int | None:
    """Return the seconds that a text means; a fleet of schedules is written with a handful of them."""
    found = _PLAIN.fullmatch(value) or _ISO.fullmatch(value)
    if found is None or not any(found.groups()):
        return None
    counts = (int(count or 0) for count in found.groups())
    return sum(count * size for count, size in zip(counts, _UNITS.values(), strict=True))


def render_duration(duration: timedelta) -> str:
    """Return ``duration`` (not negative, whole seconds) in hours, minutes and seconds, as `parse_duration` reads it.

    >>> from datetime import timedelta
    >>> render_duration(timedelta(days=1, minutes=5)), render_duration(timedelta(0))
    ('24h5m', '0s')
    """
    seconds = int(duration.total_seconds())
    counts = (("h", seconds // 3600), ("m", seconds // 60 % 60), ("s", seconds % 60))
    return "".join(f"{count}{unit}" for unit, count in counts if count) or "0s"


def humanised(seconds: float | None) -> str:
    """Return a duration in its two largest units, such as ``3 d 4 h`` or ``42 s``; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 0:
        return f"-{humanised(-seconds)}"
    whole = int(seconds)
    counts = ((whole // 86_400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    first = next((index for index, (count, _) in enumerate(counts) if count), len(counts) - 1)
    shown = counts[first : first + 2]
    return " ".join(f"{count} {unit}" for count, unit in shown if count) or "0 s"
