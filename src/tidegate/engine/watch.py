"""Watch: raises alerts, and resolves them when their cause is gone (SPEC 5, "Failures").

The table `alerts` is the record; whoever passes alerts on reads what one look has changed. Today that is the log.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from tidegate.engine.parts import Parts
from tidegate.store import alerts
from tidegate.store.alerts import Changed
from tidegate.store.database import WATCH_LOCK, try_lock

log = structlog.get_logger()


async def watch(parts: Parts, now: datetime) -> Changed:
    """Compare what is the case with what is open, in one transaction; return what it changed.

    One process at a time; the others find the lock taken and change nothing.
    """
    async with parts.pool.acquire() as connection, connection.transaction():
        if not await try_lock(connection, WATCH_LOCK):
            return Changed((), ())
        settings = parts.settings
        changed = await alerts.watch(
            connection, now, failing_after=settings.alert_failing_after, starved_after=settings.starved_after
        )
    for each in await alerts.by_id(parts.pool, changed.raised + changed.resolved):
        tell = log.warning if each.resolved_at is None else log.info
        tell(
            "alert raised" if each.resolved_at is None else "alert resolved",
            alert_id=each.id, kind=each.kind, tenant_id=each.tenant_id, note=each.message, remedy=each.remedy,
        )  # fmt: skip
    if changed.raised:
        parts.signal("alerts.raised")
    return changed
