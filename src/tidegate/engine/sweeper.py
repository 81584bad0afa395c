"""Sweeper: what falls when processes die is picked up here: expired leases, and runs that lost their job."""

from __future__ import annotations

from datetime import datetime

from tidegate.engine.parts import Parts
from tidegate.store import queue, runs


async def sweep(parts: Parts, now: datetime) -> int:
    """Take back expired leases and hand forgotten runs to the queue again; return how many runs were helped."""
    reclaimed = await runs.reclaim(parts.pool, now)
    async with parts.pool.acquire() as connection, connection.transaction():
        forgotten = await runs.stale_queued(connection, now, parts.settings.requeue_after)
        await queue.enqueue(connection, forgotten)
    await queue.prune(parts.pool)
    if reclaimed:
        parts.signal("leases.reclaimed")
    return len(reclaimed) + len(forgotten)
