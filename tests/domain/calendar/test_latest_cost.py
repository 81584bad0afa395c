"""What catching up costs (SPEC 2.8): counted in questions put to the day pattern, or instants made; not in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from tests.domain.calendar.examples import at
from tidegate.domain import due_dates
from tidegate.domain.catch_up import pieces
from tidegate.domain.due_dates import WallDueDates
from tidegate.domain.schedule_document import parse_schedule
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


EACH_MINUTE = {
    "cron": "* * * * *", "start_at": "2026-07-01T00:00:00Z", "catch_up": "each", "time_zone": "Europe/London",
}  # fmt: skip


def counted_spans(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list that grows by each span of time that is made to find due dates."""
    made: list[float] = []

    def counted(days: float = 0, seconds: float = 0) -> timedelta:
        made.append(seconds)
        return timedelta(days, seconds)

    monkeypatch.setattr(due_dates, "timedelta", counted)
    return made


def test_a_row_of_whole_days_makes_the_times_of_a_day_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 2.4: a preview of minutes is a sum for each due date, nothing more."""
    schedule = parse_schedule(EACH_MINUTE)
    made = counted_spans(monkeypatch)
    found: list[datetime] = schedule.due_dates.batch(at("2026-07-02 00:00"), 30 * 1440)
    assert [one - before for before, one in pairwise(found)] == [timedelta(minutes=1)] * (30 * 1440 - 1)
    assert len(made) < 3 * 1440


def test_a_piece_costs_its_own_due_date_not_the_rest_of_its_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 2.8: `each` of a hundred missed minutes makes an instant or two, not all 1,440 of the day each time."""
    schedule = parse_schedule(EACH_MINUTE)
    made = counted_spans(monkeypatch)
    now = at("2026-07-15 00:00")
    after = now - timedelta(days=1)
    found = pieces(schedule, after, after, now, 100)
    assert [piece.due_at - before.due_at for before, piece in pairwise(found)] == [timedelta(minutes=1)] * 99
    assert len(made) <= 200
    made.clear()
    batch: list[datetime] = schedule.due_dates.batch(after, 3)
    assert batch == [piece.due_at for piece in found[:3]]
    assert len(made) <= 6
