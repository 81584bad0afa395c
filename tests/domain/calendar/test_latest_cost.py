"""What coalescing costs (SPEC 2.8): counted in questions put to the day pattern, not in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from tests.domain.calendar.examples import at
from tidegate.domain.due_dates import WallDueDates
from tidegate.domain.zone import find_zone


@dataclass
class CountingDays:
    """Every day, counting what it is asked."""

    questions: list[int] = field(default_factory=list)

    def on_or_after(self, day: int) -> int:
        self.questions.append(day)
        return day

    def on_or_before(self, day: int) -> int:
        self.questions.append(day)
        return day

    def between(self, first: int, last: int) -> Iterator[int]:
        return iter(range(first, last + 1))


def test_finding_the_latest_does_not_step_through_an_outage() -> None:
    """SPEC 2.8: an outage of 3 days or 30 years of minutes costs at most two questions."""
    for outage in (timedelta(days=3), timedelta(days=11_000)):
        days = CountingDays()
        minutes = tuple(range(0, 86_400, 60))
        row = WallDueDates(at("1980-01-01 00:00"), find_zone("Europe/London"), days, minutes)
        until = at("2026-11-22 12:00")
        assert row.latest(until - outage, until) == until
        assert 1 <= len(days.questions) <= 2
