"""An outage at every-minute cadence, and what becomes of the due dates missed in it (issue 3, figure 2)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.engine.world import World
from tidegate.domain.coverage import breaks
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.store import chains

MINUTE = timedelta(minutes=1)
TENANTS, LIMIT = 3, 2


@dataclass(frozen=True)
class Figures:
    """``runs`` of all tenants; ``most_rows``: of `runs` that waited at once for one stream; ``most_active``: of the account."""

    runs: int
    most_rows: int
    most_active: int
    periods: list[timedelta]
    in_order: bool
    open_ended: int
    uncovered: int


async def play(world: World, catch_up: str, outage: timedelta, streams: int = TENANTS) -> Figures:
    """Sync once, be away for ``outage``, come back, and catch up; all streams share an account of two runs at a time."""
    rule = {"every": "1m", "start_at": "2026-07-13T15:59:00Z", "catch_up": catch_up}
    ids = [await world.install(f"t{n}", rule, account="shared.example", limit=LIMIT) for n in range(streams)]
    world.clock.advance(minutes=1)
    await world.tick()
    before = len(await world.runs())
    world.shop.asked.clear()
    world.clock.set(world.clock.now() + outage)
    most_rows = most_active = 0
    while await plan_due(world.parts, world.clock.now()) + await dispatch_ready(world.parts, world.clock.now()):
        most_rows = max(most_rows, await _most(world, "state = 'waiting'", "chain_id"))
        most_active = max(most_active, await _most(world, "state in ('queued', 'running')", "account_id"))
        await world.work()
    links = [await chains.links(world.pool, chain) for chain in ids]
    assert [breaks(each) for each in links] == [[]] * streams
    assert {each[-1].period.end for each in links} == {world.clock.now()}
    return Figures(
        runs=len(await world.runs()) - before,
        most_rows=most_rows,
        most_active=most_active,
        periods=[link.period.duration for each in links for link in each[1:]],
        in_order=all([await _in_order(world, chain) for chain in ids]),
        open_ended=sum(request.upper is None for request in world.shop.asked),
        uncovered=len(await chains.uncovered(world.pool, world.clock.now())),
    )


async def _most(world: World, where: str, of: str) -> int:
    most: int | None = await world.pool.fetchval(
        f"select max(n) from (select count(*) as n from runs where {where} group by {of}) counted"
    )
    return most or 0


async def _in_order(world: World, chain: int) -> bool:
    """Return whether the runs were leased one after the other: the chain's own writes have the order of its periods."""
    rows = await world.pool.fetch(
        "select period_end, xmin::text::bigint as written from coverage where chain_id = $1 order by period_end", chain
    )
    written = [row["written"] for row in rows]
    ends: list[datetime] = [row["period_end"] for row in rows]
    return written == sorted(written) and len(set(ends)) == len(ends)
