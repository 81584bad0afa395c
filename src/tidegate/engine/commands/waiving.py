"""Waiving: a person says that a stretch need not be fetched, and why (SPEC 2.10, 5; HOLE cc)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from tidegate.domain.errors import InvalidInput
from tidegate.domain.instant import render_instant
from tidegate.domain.period import Period
from tidegate.domain.schedule import next_due
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.commands import installations
from tidegate.engine.parts import Parts
from tidegate.store import coverage, database, runs, schedules
from tidegate.store.schedules import Move

if TYPE_CHECKING:
    from tidegate.store.chains import Chain
    from tidegate.store.database import Connection


async def waive(parts: Parts, tenant_id: str, installation: str, stream: str, until: datetime, reason: str) -> Period:
    """Waive a stream from where it is covered, or from its start, up to ``until``, and return that period.

    It is appended to the chain; runs that wait and end inside it end as superseded, and the next period starts at
    ``until``. Raises InvalidInput if the installation or stream is not there, ``until`` is covered already or in the
    future, there is no reason, or a run of the stream is active.
    """
    now = parts.clock.now()
    if not reason.strip():
        raise InvalidInput("reason", reason, "is empty", "Say why, such as --reason 'booked by hand'.")
    if until > now:
        remedy = "Waive up to now at the latest; `tidegate pause` keeps it from going on."
        raise InvalidInput("until", render_instant(until), "is in the future", remedy)
    async with parts.pool.acquire() as connection, connection.transaction():
        await database.lock(connection, database.APPLY_LOCK, shared=True)
        await installations.find_installation(connection, tenant_id, installation)
        (chain,) = await installations.find_chains(connection, tenant_id, installation, stream)
        kept = await schedules.rule_of(connection, chain.id, hold=True)
        await _require_idle(connection, chain)
        (chain,) = await installations.find_chains(connection, tenant_id, installation, stream)  # nothing moves it now
        begin = chain.watermark or chain.start_at
        if until <= begin:
            where = "covered to" if chain.watermark else "to start at"
            remedy = "There is nothing to waive before that."
            raise InvalidInput("until", render_instant(until), f"is not after {render_instant(begin)}, {where}", remedy)
        period = Period(begin, until)
        await coverage.waive(connection, chain.id, period, reason.strip(), now)
        # A session keeps its plans, and the planner asks the same of thousands.
        await database.find_by_index(connection, "hashjoin", "mergejoin", "sort")
        await runs.supersede(connection, [chain.id], now)
        if kept is not None:
            after = max(kept.received_at, until)
            await schedules.advance(connection, [Move(chain.id, after, next_due(parse_schedule(kept.rule), after))])
    return period


async def _require_idle(connection: Connection, chain: Chain) -> None:
    await coverage.lock(connection, chain.id)
    if not await runs.hold_waiting(connection, chain.id):
        name = f"{chain.tenant_id}/{chain.installation}"
        remedy = (
            f"Wait until it has ended (`tidegate runs --installation {chain.installation}`); "
            f"`tidegate pause {name}` keeps another from starting meanwhile."
        )
        raise InvalidInput("stream", chain.stream, f"of {name} has an active run", remedy)
