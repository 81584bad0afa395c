"""Proves the calendar: every IANA zone, 1970 to 2040, every sync hour, against the standard library (SPEC 2.3 to 2.5).

Run it with ``make prove-calendar`` (`python -m tests.domain.prove_calendar [ZONE …]`). Zones with the same data are
proved once. For each zone it compares, as whole rows of instants,

- daily, at each of 24 hours: one due date per existing civil day, strictly increasing;
- weekly for every weekday and monthly for every anchor day, their hours rotating so that each zone has each hour;
- `next_due` and `latest_due` at every due date near a clock change;
- seven cron rules for a day around every clock change, minute by minute (`oracle.watched`).

What is proved is kept in `.cache/prove-calendar`: a run that was broken off goes on where it was, until code or zone
data change. Exit code 1 and the first difference of each zone if anything differs.
"""

from __future__ import annotations

import calendar
import hashlib
import itertools
import json
import operator
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import metadata
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.progress import track

from tests.domain.calendar import oracle
from tests.domain.calendar.examples import cron
from tests.domain.calendar.test_against_oracle import CRONS, NAMES
from tidegate.domain.schedule import Schedule, due_dates, latest_due, next_due
from tidegate.domain.schedule_document import parse_schedule
from tidegate.domain.zone_data import zone_names

FIRST, LAST = date(1970, 1, 2), date(2040, 12, 31)
DAY = timedelta(days=1)
TESTS = Path(__file__).parent
DOMAIN = TESTS.parents[1] / "src" / "tidegate" / "domain"
CACHE = TESTS.parents[1] / ".cache" / "prove-calendar"
CALENDAR = (
    "instant",
    "zone_data",
    "zone",
    "day_pattern",
    "recurrence",
    "duration",
    "due_dates",
    "schedule",
    "schedule_document",
)
DAYS = [FIRST + number * DAY for number in range((LAST - FIRST).days + 1)]
WALLS = [[datetime(day.year, day.month, day.day, hour, tzinfo=UTC) for day in DAYS] for hour in range(24)]
"""Wall times of every day, by hour, written as if they were UTC: what is left is to take a zone's offset off."""


class Difference(Exception):
    """The calendar and the oracle do not agree."""


def prove_zone(name: str, counts: Counter[str]) -> None:
    """Compare everything for one zone, adding to ``counts``. Raises Difference."""
    zone = oracle.zone_info(name)
    missing = {number for number, midnight in enumerate(WALLS[0]) if not _exists(midnight.replace(tzinfo=None), zone)}
    counts["civil days that do not exist"] += len(missing)
    changes = oracle.transitions(zone, datetime(1970, 1, 3, tzinfo=UTC), datetime(2040, 12, 30, tzinfo=UTC))
    counts["clock changes"] += len(changes)
    offset: Callable[[datetime], timedelta] = zone.utcoffset  # type: ignore[assignment]  # never None for a ZoneInfo
    for hour, walls in enumerate(WALLS):
        instants = [wall - offset(wall) for wall in walls]
        _prove_frequencies(name, hour, instants, missing, counts)
        existing = [at for number, at in enumerate(instants) if number not in missing] if missing else instants
        _prove_steps(_schedule(name, hour, "daily", FIRST), existing, changes, counts)
    for change in changes:
        _prove_crons(name, zone, change, counts)


def _exists(midnight: datetime, zone: ZoneInfo) -> bool:
    instant = oracle.first_instant(midnight, zone)
    return instant.astimezone(zone).replace(tzinfo=None) == midnight or oracle.day_exists(midnight.date(), zone)


def _schedule(name: str, hour: int, frequency: str, anchor: date) -> Schedule:
    return parse_schedule({frequency: True, "time_zone": name, "sync_hour": hour, "start_date": anchor.isoformat()})


def _prove_frequencies(name: str, hour: int, row: list[datetime], missing: set[int], counts: Counter[str]) -> None:
    """Compare daily, weekly and monthly due dates with those days' instants in ``row``, one for each of DAYS."""
    weekday = hour % 7
    _same(_schedule(name, hour, "daily", DAYS[0]), _chosen(row, range(1, len(row)), missing), counts)
    _same(
        _schedule(name, hour, "weekly", DAYS[weekday]),
        _chosen(row, range(weekday + 7, len(row), 7), missing),
        counts,
    )
    for number in range(1 + hour, 32, 24):
        anchor, *following = _monthly(number)
        _same(_schedule(name, hour, "monthly", DAYS[anchor]), _chosen(row, following, missing), counts)


def _chosen(row: list[datetime], numbers: Sequence[int], missing: set[int]) -> list[datetime]:
    """Return the instants of the days with these numbers, checking that they strictly increase."""
    if missing:
        numbers = [number for number in numbers if number not in missing]
    chosen = list(map(row.__getitem__, numbers))
    if any(map(operator.ge, chosen, chosen[1:])):
        raise Difference("the oracle's instants do not strictly increase")
    return chosen


@cache
def _monthly(number: int) -> list[int]:
    """Return which of DAYS are the day ``number`` of their month, or its last, from one that has that number."""
    found = [
        index for index, day in enumerate(DAYS) if day.day == min(number, calendar.monthrange(day.year, day.month)[1])
    ]
    return found[1:] if DAYS[found[0]].day != number else found


def _same(schedule: Schedule, expected: list[datetime], counts: Counter[str]) -> None:
    found = due_dates(schedule, datetime(1970, 1, 1, tzinfo=UTC), len(expected))
    if found != expected:
        pairs = itertools.zip_longest(found, expected)
        raise Difference(f"{schedule}: {next(f'{ours} is not {theirs}' for ours, theirs in pairs if ours != theirs)}")
    counts[f"{schedule.recurrence} due dates"] += len(found)


def _prove_steps(schedule: Schedule, row: list[datetime], changes: list[datetime], counts: Counter[str]) -> None:
    """Compare `next_due` and `latest_due` between the due dates within two days of each clock change."""
    near: set[int] = set()
    for change in changes:
        index = (change - row[0]) // DAY
        near.update(range(max(0, index - 2), min(len(row) - 1, index + 3)))
    for index in near:
        earlier, later = row[index], row[index + 1]
        just_before = later - timedelta(microseconds=1)
        answers = (next_due(schedule, earlier), next_due(schedule, just_before), latest_due(schedule, earlier, later))
        if answers != (later, later, later) or latest_due(schedule, earlier, just_before) is not None:
            raise Difference(f"{schedule}: stepping from {earlier} to {later} gives {answers}")
    counts["single steps"] += 4 * len(near)


def _prove_crons(name: str, zone: ZoneInfo, change: datetime, counts: Counter[str]) -> None:
    first, last = change - DAY / 2, change + DAY / 2
    walls = oracle.watched(zone, first, last)
    for expression, rule in CRONS:
        schedule = cron(expression, name)
        expected = sorted({instant for wall, instant in walls if rule(wall)})
        found = due_dates(schedule, first - timedelta(microseconds=1), len(expected) + 1)
        if found[: len(expected)] != expected or (len(found) > len(expected) and found[-1] <= last):
            raise Difference(f"{schedule} around {change}")
        if expected and latest_due(schedule, first - DAY, last) != expected[-1]:
            raise Difference(f"{schedule}: the latest until {last}")
        counts["cron due dates"] += len(expected)


class Proved:
    """What has been proved of this very code with these very zone data: a file, so that a run can be resumed."""

    def __init__(self) -> None:
        code = b"".join(
            path.read_bytes()
            for path in [
                *(DOMAIN / f"{name}.py" for name in CALENDAR),
                *sorted(TESTS.glob("calendar/*.py")),
                Path(__file__),
            ]
        )
        fingerprint = hashlib.sha256(code + metadata.version("tzdata").encode()).hexdigest()[:16]
        self._path = CACHE / f"{fingerprint}.jsonl"
        self.counts: dict[str, Counter[str]] = {}
        if self._path.exists():
            lines = map(json.loads, self._path.read_text().splitlines())
            self.counts = {line["zone"]: Counter(line["counts"]) for line in lines}

    def add(self, name: str, counts: Counter[str]) -> None:
        """Remember that a zone is proved, and what was compared for it."""
        self.counts[name] = counts
        CACHE.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"zone": name, "counts": counts}) + "\n")


def main(wanted: list[str]) -> int:
    """Prove the zones named in ``wanted``, or all that are not proved yet. Return the exit code."""
    console = Console()
    proved = Proved()
    names = wanted or [name for name in NAMES if name not in proved.counts]
    resumed = f", {len(NAMES) - len(names)} proved before" if not wanted and len(names) < len(NAMES) else ""
    console.print(f"{len(zone_names())} zones, {len(NAMES)} different{resumed}")
    began = time.process_time()
    differences = 0
    for name in track(names, "proving", console=console):
        counts: Counter[str] = Counter()
        try:
            prove_zone(name, counts)
        except Difference as difference:
            differences += 1
            console.print(f"[red]{difference}[/red]")
        else:
            proved.add(name, counts)
    chosen = [counts for name, counts in proved.counts.items() if name in (wanted or NAMES)]
    for what, count in sum(chosen, Counter[str]()).items():
        console.print(f"{count:>15,}  {what}")
    minutes = (time.process_time() - began) / 60
    console.print(
        f"{differences} differences; {len(chosen)} zones proved, {len(names)} of them now, {minutes:.1f} minutes of CPU"
    )
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
