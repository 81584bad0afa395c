"""Backfilling: a person's request for a past range, in a lane of its own (SPEC 2.11)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tidegate.domain.coverage import LinkKind
from tidegate.domain.errors import InvalidInput
from tidegate.domain.instant import render_instant
from tidegate.domain.period import Period
from tidegate.engine.commands import installations
from tidegate.engine.parts import Parts
from tidegate.store import chains, database, runs
from tidegate.store.chains import Chain

if TYPE_CHECKING:
    from tidegate.store.database import Connection


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill that was asked for, and what it changes in the ledger when it succeeds: nothing for most.

    ``in_front``: the range by which it extends the coverage to the front. ``waived``: the waived ranges that it covers.
    """

    run_id: int
    period: Period
    in_front: Period | None
    waived: tuple[Period, ...]


async def request_backfill(
    parts: Parts, tenant_id: str, installation: str, stream: str, start: datetime, end: datetime
) -> Backfill:
    """Request that `[start, end)` of a stream be fetched and delivered again, or for the first time (SPEC 2.11).

    Asking again while it is under way gives the same run (HOLE r); afterwards it is done anew. Raises InvalidInput if the
    installation or stream is not there or is paused; if the range is empty, in the future, beyond the watermark (the live
    lane's), or detached in front of what is covered, naming the gap; or if another one with that end is under way.
    """
    now = parts.clock.now()
    if start >= end:
        raise InvalidInput("from", render_instant(start), f"is not before {render_instant(end)}", "Swap the two.")
    if end > now:
        raise InvalidInput("to", render_instant(end), "is in the future", f"Use {render_instant(now)} at the latest.")
    async with parts.pool.acquire() as connection, connection.transaction():
        await database.lock(connection, database.APPLY_LOCK, shared=True)
        await installations.require_not_paused(connection, tenant_id, installation)
        (chain,) = await installations.find_chains(connection, tenant_id, installation, stream)
        head = await _require_touching(connection, chain, Period(start, end))
        found = await runs.request_backfill(connection, chain.id, Period(start, end), now)
        if found.period_start != start:
            problem = f"is the end of run {found.id} already, which begins at {render_instant(found.period_start)}"
            raise InvalidInput("to", render_instant(end), problem, "Wait until it has ended, or choose another end.")
        links = await chains.links(connection, chain.id)
    return Backfill(
        run_id=found.id,
        period=Period(start, end),
        in_front=Period(start, head) if start < head else None,
        waived=tuple(
            Period(max(start, link.period.start), min(end, link.period.end))
            for link in links
            if link.kind is LinkKind.WAIVED and link.period.start < end and start < link.period.end
        ),
    )


async def _require_touching(connection: Connection, chain: Chain, period: Period) -> datetime:
    """Return where the coverage begins. Raises InvalidInput if ``period`` is not inside it or adjoining in front."""
    name = f"{chain.tenant_id}/{chain.installation}"
    head = await chains.head(connection, chain.id)
    if head is None or chain.watermark is None:
        remedy = f"Let it run first: `tidegate run {name}`. An earlier start in its schedule reaches further back."
        raise InvalidInput(
            "from", render_instant(period.start), f"nothing of {name} {chain.stream} is covered yet", remedy
        )
    if period.end > chain.watermark:
        problem = f"is beyond {render_instant(chain.watermark)}, to where {name} {chain.stream} is covered"
        remedy = f"Backfill to there; what comes after is the live lane's: `tidegate run {name}`."
        raise InvalidInput("to", render_instant(period.end), problem, remedy)
    if period.end < head:
        gap = f"{render_instant(period.end)} to {render_instant(head)}"
        problem = f"leaves a gap in front of the coverage of {name} {chain.stream}: {gap}"
        raise InvalidInput("to", render_instant(period.end), problem, f"Backfill up to {render_instant(head)}.")
    return head
