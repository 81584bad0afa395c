"""Dispatcher: decides the run date, and hands the run's id to the queue with its state change (SPEC 3)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from tidegate.engine.parts import Parts
from tidegate.store import queue, runs
from tidegate.store.database import DISPATCH_LOCK, find_by_index, try_lock


async def dispatch_ready(
    parts: Parts, now: datetime, if_taken: Callable[[], None] = lambda: None, *, least: int = 1
) -> int:
    """Queue the runs whose planned run date has come, as capacity and fairness allow; return how many.

    None while the queue has room for fewer than ``least``: to rank all that waits costs the same for one as for many.
    One dispatcher works at a time, whichever process it lives in, so that limits hold across processes; the others
    find the lock taken, call ``if_taken`` and return 0.
    """
    async with parts.pool.acquire() as connection, connection.transaction():
        if not await try_lock(connection, DISPATCH_LOCK):
            if_taken()
            return 0
        await find_by_index(connection, "sort", "incremental_sort", plan_once=True)
        room = parts.settings.queue_depth - await runs.count_queued(connection)
        if room < least:
            return 0
        chosen = await runs.dispatch(connection, now, room)
        await queue.enqueue(connection, chosen)
    if chosen:
        parts.signal("runs.queued")
    return len(chosen)
