"""A period: the half-open stretch of time that one run accounts for (SPEC 1)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """``[start, end)`` between two aware UTC instants, never empty.

    Raises ValueError for a naive instant or ``start >= end`` (SPEC 2.4: no period is ever empty).
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("a period is bounded by aware instants")
        if self.start >= self.end:
            raise ValueError(f"a period starts before it ends: {self.start} .. {self.end}")

    @property
    def duration(self) -> timedelta:
        """Return the elapsed time between the two instants."""
        return self.end - self.start

    def contains(self, instant: datetime) -> bool:
        """Return whether ``start <= instant < end`` (HOLE j: the end is outside)."""
        return self.start <= instant < self.end
