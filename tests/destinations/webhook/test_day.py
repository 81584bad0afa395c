"""A receiver's bad day in short; `python -m tests.destinations.prove_webhook` replays a whole one."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from tests.destinations.webhook.day import Day, replay_day


def test_a_receivers_bad_day_loses_nothing_and_keeps_the_order(database_url: str) -> None:
    """SPEC 5, issue 3 "Webhooks": away, then slow, then 429 with Retry-After: all delivered, in order, each id verified."""
    hour = timedelta(hours=1)
    day = Day(up=hour / 2, away=4 * hour, slow=hour / 2, patience=hour, every=hour / 4)
    report = asyncio.run(replay_day(database_url, day))
    assert (report.lost, report.out_of_order, report.uncovered, report.repeated) == (0, 0, 0, 0)
    assert report.records_made == day_minutes(day)
    phases = {phase for phase, _ in report.requests}
    assert phases == {"up", "away", "slow", "patience", "up again"}
    assert {status for phase, status in report.requests if phase == "away"} == {0, 503}
    assert report.requests["patience", 429] > 0
    assert report.recovered_after is not None
    assert report.recovered_after <= timedelta(minutes=15)


def day_minutes(day: Day) -> int:
    return int((2 * day.up + day.away + day.slow + day.patience) / timedelta(minutes=1))
