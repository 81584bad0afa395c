"""Reads a schedule as people and programs write it: the native form, or the seed's JSON (SPEC 2).

    >>> parse_schedule({"selectedFrequency": "Daily", "startDate": "2022-06-15", "timeZone": None}).as_json()["start_date"]
    '2022-06-15'

In both forms null says the same as leaving the key out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final

from tidegate.domain.duration import parse_duration
from tidegate.domain.errors import InvalidInput
from tidegate.domain.recurrence import Cron, Every, Frequency, Recurrence
from tidegate.domain.schedule import CatchUp, Schedule, check_hour, check_year
from tidegate.domain.zone import find_zone

RECURRENCES: Final = ("every", "daily", "weekly", "monthly", "cron")
FIELDS: Final = (
    *RECURRENCES, "sync_hour", "time_zone", "start_date", "start_at", "settle", "spread", "catch_up", "max_period",
)  # fmt: skip
SEED_FIELDS: Final = ("selectedFrequency", "frequencyOptions", "startDate", "syncHour", "syncHourUtc", "timeZone")
_SEED_RECURRENCES: Final[Mapping[str, Recurrence]] = {
    "daily": Frequency.DAILY,
    "monthly": Frequency.MONTHLY,
    "weekly": Frequency.WEEKLY,
    "hourly": Every(timedelta(hours=1)),
}
_SEED: Final = frozenset(SEED_FIELDS)
_RECURRENCE: Final = frozenset(RECURRENCES)
_CATCH_UPS: Final[Mapping[object, CatchUp]] = {each.value: each for each in CatchUp}
_NONE: Final = timedelta(0)
_DATE: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:T00:00(?::00(?:\.0{1,9})?)?(?:Z|\+00:00)?)?")


def parse_schedule(document: object) -> Schedule:
    """Return the schedule that ``document``, a mapping, describes in the native or in the seed's form.

    Raises InvalidInput naming field, value and remedy; unknown keys are refused too, naming the nearest known one.
    """
    if not isinstance(document, Mapping):
        raise InvalidInput("schedule", document, "is not an object", 'Write one such as {"daily": true}.')
    given = {str(key): value for key, value in document.items() if value is not None}
    if not _SEED.isdisjoint(document) and _RECURRENCE.isdisjoint(given):
        _check_keys(document, SEED_FIELDS, FIELDS)
        return _seed(given)
    _check_keys(document, FIELDS, SEED_FIELDS)
    return _native(given)


def _check_keys(document: Mapping[object, object], known: tuple[str, ...], others: tuple[str, ...]) -> None:
    for key, value in document.items():
        name = str(key)
        if name in known:
            continue
        if name in others:
            problem = "belongs to the other way of writing a schedule"
            raise InvalidInput(name, value, problem, f"Use only {', '.join(known)}.")
        near = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(name, others, n=1)
        remedy = f'Did you mean "{near[0]}"?' if near else f"Known are {', '.join(known)}."
        raise InvalidInput(name, value, "is not a field of a schedule", remedy)


def _native(given: Mapping[str, object]) -> Schedule:
    start_date, start_at = given.get("start_date"), given.get("start_at")
    return Schedule(
        _recurrence(given),
        time_zone=find_zone(given.get("time_zone", "Etc/UTC")).name,
        sync_hour=check_hour(given.get("sync_hour", 0), "sync_hour"),
        start_on=None if start_date is None else _date(start_date, "start_date"),
        start_at=None if start_at is None else parse_instant(start_at, "start_at"),
        settle=parse_duration(given["settle"], "settle") if "settle" in given else _NONE,
        spread_window=parse_duration(given["spread"], "spread") if "spread" in given else _NONE,
        catch_up=_catch_up(given["catch_up"]) if "catch_up" in given else CatchUp.COALESCE,
        max_period=parse_duration(given["max_period"], "max_period") if "max_period" in given else None,
    )


def _recurrence(given: Mapping[str, object]) -> Recurrence:
    chosen = [name for name in RECURRENCES if name in given]
    if len(chosen) != 1:
        problem = "names more than one recurrence" if chosen else "names no recurrence"
        remedy = f'Give one of {", ".join(RECURRENCES)}, such as "daily": true or "every": "15m".'
        raise InvalidInput("schedule", chosen, problem, remedy)
    name = chosen[0]
    value = given[name]
    if name == "every":
        return Every(parse_duration(value, name))
    if name == "cron":
        if not isinstance(value, str):
            raise InvalidInput(name, value, "is not text", 'Write it in quotes, such as "30 6 * * MON-FRI".')
        return Cron(value)
    if value is not True:
        raise InvalidInput(name, value, "is not true", f'Write "{name}": true, and sync_hour beside it.')
    return Frequency(name)


def _catch_up(value: object) -> CatchUp:
    found = _CATCH_UPS.get(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidInput("catch_up", value, "is not a way to catch up", 'Use "coalesce", the default, or "each".')
    return found


def _seed(given: Mapping[str, object]) -> Schedule:
    if "startDate" not in given:
        raise InvalidInput("startDate", None, "is missing", 'Write a date such as "2022-06-15".')
    return Schedule(
        _seed_recurrence(given),
        time_zone=find_zone(given.get("timeZone", "Etc/UTC"), "timeZone").name,
        sync_hour=_seed_hour(given),
        start_on=_date(given["startDate"], "startDate"),
    )


def _seed_recurrence(given: Mapping[str, object]) -> Recurrence:
    selected = given.get("selectedFrequency")
    if not isinstance(selected, str) or selected.casefold() not in _SEED_RECURRENCES:
        raise InvalidInput("selectedFrequency", selected, "is not a frequency", "Use Daily, Weekly, Monthly or Hourly.")
    options = given.get("frequencyOptions", [selected])
    if isinstance(options, str):  # HOLE mm: the seed documents a string and shows an array
        options = [options]
    if not isinstance(options, list | tuple) or not all(isinstance(option, str) for option in options):
        raise InvalidInput("frequencyOptions", options, "is not a list of frequencies", 'Write ["Daily", "Monthly"].')
    if selected.casefold() not in {option.casefold() for option in options}:
        problem = f"is not among the frequencyOptions {list(options)}"
        raise InvalidInput("selectedFrequency", selected, problem, "Select one of them, or add it to them.")
    return _SEED_RECURRENCES[selected.casefold()]


def _seed_hour(given: Mapping[str, object]) -> int:
    hours = {name: check_hour(given[name], name) for name in ("syncHour", "syncHourUtc") if name in given}
    if len(set(hours.values())) > 1:
        problem = f"contradicts syncHourUtc: {hours['syncHourUtc']}"
        raise InvalidInput("syncHour", hours["syncHour"], problem, "Give one; both mean the local hour.")
    return next(iter(hours.values()), 0)


def _date(value: object, field: str) -> date:
    """Return the date as written; the midnight that clients append is not part of it (SPEC 2.2, HOLE z)."""
    day = value if isinstance(value, date) and not isinstance(value, datetime) else _date_in(value)
    if day is None:
        remedy = 'Write the date alone, such as "2022-06-15": it begins at the sync hour in the time zone.'
        if field == "start_date":
            remedy += " An instant goes into start_at."
        raise InvalidInput(field, _shown(value), "is not a date", remedy)
    check_year(day, field)
    return day


def _date_in(value: object) -> date | None:
    written = _DATE.fullmatch(value) if isinstance(value, str) else None
    if written is None:
        return None
    try:
        return date.fromisoformat(written.group(1))
    except ValueError:
        return None


def parse_instant(value: object, field: str) -> datetime:
    """Return a date and time with its offset as an instant in UTC. Raises InvalidInput naming ``field``."""
    instant = value
    if isinstance(value, str) and len(value) > len("2022-06-15"):
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            instant = None
    if not isinstance(instant, datetime) or instant.tzinfo is None:
        remedy = 'Write date, time and offset, such as "2022-06-15T06:00:00Z".'
        if field == "start_at":
            remedy += " A date alone goes into start_date."
        raise InvalidInput(field, _shown(value), "is not an instant", remedy)
    if not 1 < instant.year < 9999:  # near the ends of datetime's range the change to UTC would overflow
        raise InvalidInput(field, _shown(value), "is not within the calendar", "Write a year such as 2022.")
    instant = instant.astimezone(UTC)
    check_year(instant, field)
    return instant


def _shown(value: object) -> object:
    """Return ``value`` as JSON can show it."""
    return value.isoformat() if isinstance(value, date) else value
