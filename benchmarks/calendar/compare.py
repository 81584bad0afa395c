"""Runs in the peers' environment: speed, then answers. See `benchmarks.calendar`."""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from benchmarks.calendar import contestants
from tidegate.domain.schedule import Schedule, due_dates, latest_due, preview
from tidegate.domain.schedule_document import parse_schedule

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
CASES = [
    # zone, hour, an instant within the local day before, what happens
    ("America/Santiago", 0, "2026-09-05T12:00", "midnight is missing"),
    ("Asia/Beirut", 0, "2026-03-28T12:00", "midnight is missing"),
    ("Africa/Cairo", 0, "2026-04-23T12:00", "midnight is missing"),
    ("America/Havana", 0, "2026-03-07T12:00", "midnight is missing"),
    ("America/Havana", 0, "2025-11-01T12:00", "midnight occurs twice"),
    ("Asia/Beirut", 23, "2026-10-23T22:00", "23:00 occurs twice"),
    ("Europe/London", 1, "2026-03-28T12:00", "01:00 is missing"),
    ("Europe/London", 1, "2026-10-24T12:00", "01:00 occurs twice"),
    ("Australia/Lord_Howe", 2, "2026-10-03T00:00", "02:00 is missing, by half an hour"),
    ("Europe/Dublin", 1, "2026-10-24T12:00", "01:00 occurs twice, winter time is negative"),
    ("Pacific/Apia", 0, "2011-12-29T12:00", "30 December does not exist"),
]


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calendar")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("speed", "answers"))
    arguments = parser.parse_args()
    if arguments.only != "answers":
        speed(arguments.rounds)
    if arguments.only != "speed":
        answers()


def speed(rounds: int) -> None:
    """Print due dates per second of CPU time: the median of interleaved rounds, and how many times as fast as it Tidegate is."""
    print(
        f"Daily at 00:00 in Europe/London, CPython {platform.python_version()}, CPU time of one core, median of {rounds} rounds\n"
    )
    steps: dict[str, tuple[contestants.Rows, int]] = {
        "Tidegate next_due, daily": (contestants.tidegate, 20_000),
        "Tidegate next_due, cron": (contestants.tidegate_cron, 20_000),
        "hand-written, zoneinfo": (contestants.floor, 20_000),
        "hand-written, whenever": (contestants.whenever, 20_000),
        **{name: (rows, 2_000) for name, rows in contestants.PEERS.items()},
    }
    schedule = parse_schedule({"daily": True, "time_zone": "Europe/London", "start_date": "1980-01-01"})
    minutes = parse_schedule({"cron": "* * * * *", "time_zone": "Europe/London", "start_date": "1980-01-01"})
    whole: dict[str, tuple[Callable[[], object], int]] = {
        "Tidegate due_dates, daily": (lambda: due_dates(schedule, START, 100_000), 100_000),
        "Tidegate due_dates, each minute": (lambda: due_dates(minutes, START, 100_000), 100_000),
        "Tidegate preview, daily": (lambda: preview(schedule, START, 20_000), 20_000),
        "Tidegate latest_due, 30 years of minutes": (lambda: _latest(minutes, 1_000), 1_000),
    }
    rates: dict[str, list[float]] = {name: [] for name in (*steps, *whole)}
    for _ in range(rounds):
        for name, (rows, count) in steps.items():
            rates[name].append(count / _seconds(lambda rows=rows, count=count: _drain(rows, count)))  # type: ignore[misc]
        for name, (work, count) in whole.items():
            rates[name].append(count / _seconds(work))
    ours = statistics.median(rates["Tidegate next_due, daily"])
    print(f"{'':<42}{'per second':>12}  {'Tidegate next_due is':>20}")
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"{name:<42}{rate:>12,.0f}  {f'{ours / rate:.2f} x as fast':>20}")
    print()


DAY = timedelta(days=1)


def _drain(rows: contestants.Rows, count: int) -> None:
    for _ in islice(rows("Europe/London", 0, START), count):
        pass


def _latest(schedule: Schedule, count: int) -> None:
    for _ in range(count):
        latest_due(schedule, START - 11_000 * DAY, START)


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def answers() -> None:
    """Print, as Markdown, the due dates of three days around a clock change: local times, the offset where it says more."""
    everyone = {"Tidegate": contestants.tidegate, **contestants.PEERS}
    print("| daily at | " + " | ".join(everyone) + " |\n|---|" + "---|" * len(everyone))
    for zone, hour, after, what in CASES:
        begin = datetime.fromisoformat(after).replace(tzinfo=UTC)
        found = {name: _answer(rows, zone, hour, begin) for name, rows in everyone.items()}
        cells = [text if text != found["Tidegate"] or name == "Tidegate" else "same" for name, text in found.items()]
        print(f"| {hour:02}:00 {zone}: {what} | " + " | ".join(cells) + " |")


def _answer(rows: contestants.Rows, zone: str, hour: int, after: datetime) -> str:
    """Return the due dates of the two days after ``after``, as instants in UTC."""
    due = [each.astimezone(UTC) for each in islice(rows(zone, hour, after), 6)]
    last = (after.astimezone(ZoneInfo(zone)).replace(hour=hour) + 2 * DAY).astimezone(UTC) + DAY / 4
    return ", ".join(f"{each:%d %H:%M}" for each in due if each <= last) + "Z"


if __name__ == "__main__":
    main()
