"""Failures that last: what they pause, and what resumes by itself (SPEC 5, "Failures"; decision 0008)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from tidegate.domain.failing import PausedBy, failing_days
from tidegate.domain.instant import render_instant
from tidegate.engine.commands import installations
from tidegate.engine.parts import Parts
from tidegate.store import database, directory, failures
from tidegate.store.failures import Failing

if TYPE_CHECKING:
    from tidegate.store.database import Connection

log = structlog.get_logger()


async def note_failed(parts: Parts, connection: Connection, run_ids: Sequence[int], now: datetime) -> None:
    """Note which of these runs failed, in the transaction that failed them, and pause what has failed for too many days."""
    if not run_ids:
        return
    for each in await failures.note(connection, run_ids):
        most = each.pause_after_failing_days or parts.settings.pause_after_failing_days
        if failing_days(each.failing_since, each.due_at) < most:
            continue
        reason = _reason(each)
        await installations.pause_in(connection, each.tenant_id, each.installation, reason, now, PausedBy.FAILING)
        log.warning("paused by failures", tenant_id=each.tenant_id, installation=each.installation, reason=reason)


def _reason(each: Failing) -> str:
    days = int(failing_days(each.failing_since, each.due_at))
    return f"{each.stream} has been failing for {days} days, since {render_instant(each.failing_since)}: {each.message}"


async def resume_authorised(parts: Parts, now: datetime) -> int:
    """Resume the installations that a refusal had paused and whose connection is not refused any more; return how many.

    A person who resumes one of a connection's installations lets all of them try again; each in a transaction of its own.
    While a configuration is applied they are left for the next look: nobody here waits for it.
    """
    resumed = 0
    for tenant_id, name in await directory.authorised_again(parts.pool):
        async with parts.pool.acquire() as connection, connection.transaction():
            if not await database.try_lock(connection, database.APPLY_LOCK, shared=True):
                break
            await installations.resume_in(connection, tenant_id, name, now, paused_by=PausedBy.UNAUTHORISED)
        log.info("resumed", tenant_id=tenant_id, installation=name, reason="authorised again")
        resumed += 1
    return resumed
