"""Instants as whole seconds since 1970-01-01T00:00:00Z, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DAY_SECONDS: Final = 86_400


def whole_seconds(instant: datetime) -> int:
    """Return ``instant`` in seconds since the epoch, rounded down. Raises TypeError for a naive one."""
    elapsed = instant - EPOCH
    return elapsed.days * DAY_SECONDS + elapsed.seconds


def in_utc(instant: datetime) -> datetime:
    """Return an aware instant in UTC. Raises TypeError for a naive one, which would be taken for the host's time."""
    if instant.tzinfo is None:
        raise TypeError(f"a naive time is not an instant: {instant}")
    return instant.astimezone(UTC)


def instant_of(seconds: int) -> datetime:
    """Return the aware UTC instant ``seconds`` after the epoch."""
    return EPOCH + timedelta(0, seconds)


def render_instant(instant: datetime) -> str:
    """Return ``instant`` in UTC as ISO 8601 with the suffix Z; a fraction of a second only if there is one."""
    return in_utc(instant).isoformat().replace("+00:00", "Z")


def render_comparable(instant: datetime) -> str:
    """Return ``instant`` as `render_instant` does, always with six digits: texts are in order as their instants are."""
    return in_utc(instant).isoformat(timespec="microseconds").replace("+00:00", "Z")
