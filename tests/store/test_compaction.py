"""Compaction: old neighbours of one kind become one row, and the chain is whole at every instant (SPEC 5)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg

from tests.engine.world import World, in_world
from tidegate.domain.coverage import breaks
from tidegate.engine.commands import backfilling
from tidegate.engine.sweeper import sweep
from tidegate.store import chains, compaction, reports
from tidegate.store.compaction import Compacted

BEGIN = datetime(2026, 7, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def ledger(world: World, chain: int, hours: int, waived: tuple[int, int] = (0, 0)) -> int:
    """Fill a chain with hours, some of them waived, each with its run."""
    await world.pool.execute(
        """with made as (
               insert into runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_end,
                                 not_before_at)
               select c.id, c.tenant_id, c.account_id, 'live', 'schedule', 'succeeded', t, t, t, t
                 from chains c, generate_series(1, $2) as n, lateral (select $3::timestamptz + n * interval '1 hour' as t) t
                where c.id = $1 returning id, period_end)
           insert into coverage (chain_id, period_start, period_end, previous_end, kind, run_id, reason, records, committed_at)
           select $1, period_end - interval '1 hour', period_end,
                  case when period_end > $3 + interval '1 hour' then period_end - interval '1 hour' end,
                  case when w then 'waived' else 'covered' end, case when not w then id end,
                  case when w then 'by hand' else '' end, case when w then 0 else 1 end, period_end
             from made, lateral (select period_end > $4 and period_end <= $5 as w) w""",
        chain, hours, BEGIN, BEGIN + waived[0] * HOUR, BEGIN + waived[1] * HOUR,
    )  # fmt: skip
    return hours


async def rows(world: World, chain: int) -> list[asyncpg.Record]:
    return await world.pool.fetch("select * from coverage where chain_id = $1 order by period_end", chain)


def test_old_neighbours_of_one_kind_become_one_row(database_url: str) -> None:
    """SPEC 5: counts are summed, a waiver stays one, the newest run is kept, what is younger is left alone."""

    async def story(world: World) -> None:
        chain = await world.install(rule={"every": "1h", "start_at": "2026-07-01T00:00:00Z"})
        await ledger(world, chain, 100, waived=(40, 50))
        before = await rows(world, chain)
        stretches = await reports.stretches(world.pool, [chain])
        assert await compaction.compact(world.pool, BEGIN + 180 * HOUR, 100 * HOUR) == Compacted(1, 80 - 3)
        after = await rows(world, chain)
        told = [(row["kind"], row["period_end"] - row["period_start"], row["records"], row["periods"]) for row in after]
        assert told[:3] == [
            ("covered", 40 * HOUR, 40, 40),
            ("waived", 10 * HOUR, 0, 10),
            ("covered", 30 * HOUR, 30, 30),
        ]
        assert after[3:] == before[80:]
        assert [row["run_id"] for row in after[:3]] == [before[39]["run_id"], None, before[79]["run_id"]]
        assert after[0]["previous_end"] is None
        assert await reports.stretches(world.pool, [chain]) == stretches, "what is shown does not change"
        assert await world.pool.fetchval("select count(*) from runs") == 100

    in_world(database_url, story)


def test_compaction_goes_on_in_small_batches_and_then_rests_for_a_day(database_url: str) -> None:
    """SPEC 5: by the sweeper, a few hundred rows of a chain at a time."""

    async def story(world: World) -> None:
        world.with_settings(compact_after=DAY)
        chain = await world.install(rule={"every": "1h", "start_at": "2026-07-01T00:00:00Z"})
        await ledger(world, chain, 1200)
        world.clock.set(BEGIN + 1200 * HOUR)
        counts = []
        for _ in range(5):
            await sweep(world.parts, world.clock.now())
            counts.append(len(await rows(world, chain)))
        assert counts == [701, 202, 25, 25, 25]
        world.clock.advance(hours=23)
        await sweep(world.parts, world.clock.now())
        assert len(await rows(world, chain)) == 25
        world.clock.advance(hours=2)
        await sweep(world.parts, world.clock.now())
        assert len(await rows(world, chain)) == 1

    in_world(database_url, story)


def test_every_reader_sees_a_whole_chain_while_it_is_compacted_extended_and_appended(database_url: str) -> None:
    """SPEC 5: compaction, a backfill in front and live runs at once, by several sweepers; nobody ever sees a gap."""

    async def story(world: World) -> None:
        chain = await world.install(rule={"every": "1h", "start_at": "2026-07-01T00:00:00Z"})
        await ledger(world, chain, 310)
        world.clock.set(BEGIN + 311 * HOUR)
        done = asyncio.Event()

        async def read() -> int:
            looks = 0
            while not done.is_set():
                links = await chains.links(world.pool, chain)
                assert breaks(links) == []
                assert links[0].period.start <= BEGIN
                assert links[-1].period.end >= BEGIN + 310 * HOUR
                looks += 1
            return looks

        async def compact() -> int:
            merged = 0
            for hours in range(300, 0, -10):
                await world.pool.execute("update chains set compact_at = '-infinity'")
                merged += (await compaction.compact(world.pool, world.clock.now(), hours * HOUR)).rows
            return merged

        async def work() -> None:
            for _ in range(8):
                first = await chains.head(world.pool, chain)
                assert first is not None
                await backfilling.request_backfill(world.parts, "acme", "sync", "orders", first - DAY, first)
                world.clock.advance(hours=1)
                await world.tick()
            done.set()

        looks, first, second, _ = await asyncio.gather(read(), compact(), compact(), work())
        assert looks > 10
        links = await chains.links(world.pool, chain)
        assert (links[0].period.start, links[-1].period.end) == (BEGIN - 8 * DAY, BEGIN + 319 * HOUR)
        assert first + second > 250
        assert sum(link.records for link in links) == 310

    in_world(database_url, story)
