"""Thousands due at one midnight: the plan spreads them evenly, and is the same for the same seed (SPEC 3, HOLE kk)."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from tidegate.domain.capacity import not_before

MIDNIGHT = datetime(2026, 7, 14, tzinfo=UTC)
TENANTS = 100_000


def plan(window: timedelta, next_due_at: datetime | None, settle: timedelta = timedelta(0)) -> list[datetime]:
    return [
        not_before(MIDNIGHT, next_due_at, settle=settle, spread_window=window, seed=f"{installation}/orders")
        for installation in range(TENANTS)
    ]


@pytest.mark.parametrize(("hours", "bucket_seconds"), [(1, 60), (1, 10), (4, 60)])
def test_a_hundred_thousand_due_at_one_midnight_start_evenly(hours: int, bucket_seconds: int) -> None:
    """Issue 2 figure 4: per minute, and finer, the peak is at most 1.5 times the mean of the window."""
    window = timedelta(hours=hours)
    dates = plan(window, MIDNIGHT + timedelta(days=1))
    buckets = Counter(int((date - MIDNIGHT).total_seconds()) // bucket_seconds for date in dates)
    mean = TENANTS / (window.total_seconds() / bucket_seconds)
    assert len(buckets) == window.total_seconds() / bucket_seconds, "no bucket is empty"
    assert max(buckets.values()) <= 1.5 * mean
    assert min(buckets.values()) >= mean / 1.5
    assert dates == plan(window, MIDNIGHT + timedelta(days=1)), "the same seed gives the same plan"


def test_no_spread_goes_past_the_next_due_date() -> None:
    """SPEC 3: a window longer than the interval is cut to it, with what settling takes."""
    following = MIDNIGHT + timedelta(minutes=30)
    settle = timedelta(minutes=10)
    dates = plan(timedelta(hours=6), following, settle)
    assert all(MIDNIGHT + settle <= date < following for date in dates)
    buckets = Counter(int((date - MIDNIGHT).total_seconds()) // 60 for date in dates)
    assert max(buckets.values()) <= 1.5 * TENANTS / 20, "and what is left of it is used evenly"
