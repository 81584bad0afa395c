"""This machine's own clock, where no database is there to agree with, or to be compared with it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime


class HostClock:
    """Tells the host's time. The engine never goes by it (tidegate.bootstrap.AnchoredClock)."""

    def now(self) -> datetime:
        """Return the host's present as an aware UTC instant."""
        return datetime.now(UTC)  # noqa: TID251 (the process begins here)

    async def sleep(self, seconds: float) -> None:
        """Wait in real time."""
        await asyncio.sleep(seconds)
