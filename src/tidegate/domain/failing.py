"""What pauses an installation, and how long a stream has been failing (SPEC 5, "Failures")."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum


class PausedBy(StrEnum):
    """Who or what has paused an installation; only what paused it by itself may resume it by itself."""

    PERSON = "person"  # by hand, or in the configuration
    UNAUTHORISED = "unauthorised"  # its connection's source refuses the credentials
    FAILING = "failing"  # one of its streams has failed for too many days


def failing_days(failing_since: datetime, due_at: datetime) -> float:
    """Return the days from the due date of the first failed run since the last success to that of this failed one.

    Due dates and nothing else count: neither the time that retries took nor an outage of Tidegate itself is a failure.

    >>> from datetime import UTC
    >>> failing_days(datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 8, 1, 12, tzinfo=UTC))
    31.5
    """
    return (due_at - failing_since) / timedelta(days=1)
