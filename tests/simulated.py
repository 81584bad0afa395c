"""A clock that moves only when told: the whole engine runs on it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta


class SimulatedClock:
    """Starts where it is told; `advance` moves it and wakes whoever sleeps until then."""

    def __init__(self, start: datetime = datetime(2026, 7, 13, 16, tzinfo=UTC)) -> None:
        self._now = start
        self._order = itertools.count()
        self._sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + timedelta(seconds=seconds), next(self._order), woken))
        await woken

    def set(self, instant: datetime) -> None:
        """Move to ``instant``, which must not be in the past."""
        assert instant >= self._now, f"{instant} is before {self._now}"
        self._now = instant
        while self._sleepers and self._sleepers[0][0] <= instant:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

    def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """Move on by a duration."""
        self.set(self._now + timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days))
