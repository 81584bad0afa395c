"""Sweeper: what falls is picked up here: locks, expired leases, runs that lost their job, installations authorised again."""

from __future__ import annotations

from datetime import datetime

from tidegate.engine import failing
from tidegate.engine.observing import LeasesReclaimed
from tidegate.engine.parts import Parts
from tidegate.store import compaction, database, leases, queue, runs


async def sweep(parts: Parts, now: datetime) -> int:
    """Free what frozen processes have locked for longer than a lease, take back expired leases and hand forgotten runs to
    the queue again; return how many runs were helped. Resume what a refusal had paused and is authorised again. Old
    coverage is compacted by and by.
    """
    await database.end_frozen(parts.pool, parts.settings.lease)
    async with parts.pool.acquire() as connection, connection.transaction():
        reclaimed = await leases.reclaim(connection, now, parts.settings.retry.attempts)
        await failing.note_failed(parts, connection, reclaimed, now)
    await failing.resume_authorised(parts, now)
    async with parts.pool.acquire() as connection, connection.transaction():
        forgotten = await runs.stale_queued(connection, now, parts.settings.requeue_after)
        await queue.enqueue(connection, forgotten)
    await queue.prune(parts.pool)
    await compaction.compact(parts.pool, now, parts.settings.compact_after)
    if reclaimed:
        parts.signal("leases.reclaimed")
        parts.observe(LeasesReclaimed(len(reclaimed)))
    return len(reclaimed) + len(forgotten)
