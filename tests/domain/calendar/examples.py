"""Short ways to write instants and schedules in the tests of the calendar."""

from __future__ import annotations

from datetime import UTC, datetime

from tidegate.domain.schedule import Schedule
from tidegate.domain.schedule_document import parse_schedule


def at(text: str) -> datetime:
    """Return an instant written in UTC, such as ``2026-07-13 16:00``."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def texts(instants: list[datetime]) -> list[str]:
    """Return instants as `at` reads them."""
    return [f"{instant:%Y-%m-%d %H:%M}" for instant in instants]


def daily(time_zone: str, start_date: str = "2000-01-01", sync_hour: int = 0) -> Schedule:
    """Return a daily schedule."""
    return parse_schedule(
        {"daily": True, "time_zone": time_zone, "start_date": start_date, "sync_hour": sync_hour},
    )


def cron(expression: str, time_zone: str, start_at: str = "1970-01-01T00:00:00Z") -> Schedule:
    """Return a cron schedule."""
    return parse_schedule({"cron": expression, "time_zone": time_zone, "start_at": start_at})
