"""Whose turn it is: live first, and tenants in turn, however much waits (SPEC 3)."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.engine.test_fleet import reading
from tests.engine.world import World, in_world, open_world
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.store import queue, runs

if TYPE_CHECKING:
    from tidegate.store.database import Connection

READY = """
with made as (
    insert into chains (tenant_id, installation_id, workflow, stream, account_id, start_at)
    select tenant_id, installation_id, workflow, $3 || n, account_id, start_at from chains, generate_series(1, $2) n
     where id = $1 returning id, tenant_id, account_id
)
insert into runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_start, period_end,
                  not_before_at)
select id, tenant_id, account_id, $3, 'manual', 'waiting', $4, $4, $4::timestamptz - interval '1 day', $4, $4 from made
"""


async def ready(world: World, tenant: str, lane: str, count: int, since: timedelta) -> None:
    """Let ``count`` streams of a tenant have one run each that is ready since so long."""
    chain = await world.install(tenant, limit=100_000, account="shared.example")
    await world.pool.execute(READY, chain, count, lane, world.clock.now() - since)


async def queued(world: World, by: str) -> dict[str, int]:
    """Let the dispatcher do all it can at once, and return how many are queued by ``lane`` or ``tenant_id``."""
    await dispatch_ready(world.parts, world.clock.now())
    rows = await world.pool.fetch(f"select {by}, count(*) as runs from runs where state = 'queued' group by 1")
    return {row[by]: row["runs"] for row in rows}


HOURS, MINUTES = timedelta(hours=1), timedelta(minutes=1)


def test_live_comes_first_however_many_backfills_are_older(database_url: str) -> None:
    """SPEC 3: "live first" is no matter of how many wait."""

    async def story(world: World) -> None:
        await ready(world, "acme", "backfill", 1100, HOURS)
        await ready(world, "acme", "live", 12, MINUTES)
        assert await queued(world, "lane") == {"live": 10}

    in_world(database_url, story, queue_depth=10)


def test_live_of_one_tenant_comes_before_backfills_of_another(database_url: str) -> None:
    """SPEC 3: live first across tenants, though the other has its first turn, and waits for longer."""

    async def story(world: World) -> None:
        await ready(world, "patient", "backfill", 1, HOURS)
        await ready(world, "busy", "live", 5, MINUTES)
        assert await queued(world, "lane") == {"live": 5}

    in_world(database_url, story, queue_depth=5)


def test_tenants_take_turns_however_many_runs_of_one_are_older(database_url: str) -> None:
    """SPEC 3 fairness: each tenant's share is the same, down to the last place."""

    async def story(world: World) -> None:
        await ready(world, "large", "live", 1100, HOURS)
        await ready(world, "small", "live", 1, MINUTES)
        await ready(world, "middle", "live", 50, MINUTES)
        assert await queued(world, "tenant_id") == {"large": 5, "middle": 4, "small": 1}

    in_world(database_url, story, queue_depth=10)


def test_the_turns_go_round_all_tenants(database_url: str) -> None:
    """SPEC 3 fairness: with more tenants than one look sees, the next look begins where this one has ended."""

    async def story(world: World) -> None:
        await ready(world, "large", "live", 1200, HOURS)
        await ready(world, "zoe", "live", 1, MINUTES)
        await world.pool.execute(
            """with t as (insert into tenants (id, name, created_at)
                          select 'n' || n, '', now() from generate_series(1000, 1999) n returning id),
                    n as (insert into connections (tenant_id, name, connector, account_id, settings, sealed, fingerprint)
                          select t.id, name, connector, account_id, settings, sealed, fingerprint from t, connections
                           where tenant_id = 'zoe' returning *),
                    i as (insert into installations (tenant_id, name, connection_id, destination_id)
                          select n.tenant_id, 'sync', n.id, (select min(id) from destinations) from n returning *),
                    c as (insert into chains (tenant_id, installation_id, workflow, stream, account_id, start_at)
                          select i.tenant_id, i.id, 'sync', 'orders', n.account_id, $1 from i join n using (tenant_id)
                          returning *)
               insert into runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_end,
                                 not_before_at)
               select id, tenant_id, account_id, 'live', 'manual', 'waiting', $1, $1, $1, $1 from c""",
            world.clock.now() - MINUTES,
        )
        looks = 0
        while not await world.pool.fetchval("select count(*) from runs where tenant_id = 'zoe' and state <> 'waiting'"):
            assert sum((await queued(world, "tenant_id")).values()) == 10
            looks += 1
            assert looks <= 101, "more looks than there are tenants to fill"
            await world.pool.execute("update runs set state = 'running', lease_until = now() where state = 'queued'")

    in_world(database_url, story, queue_depth=10)


def test_a_look_costs_what_it_sees_not_what_waits(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 3: behind six thousand older runs the others are found through an index."""

    async def story(world: World) -> None:
        await ready(world, "large", "backfill", 6000, HOURS)
        for number in range(20):
            await ready(world, f"t{number}", "live", 100, MINUTES)
        read = await reading(world, monkeypatch, queue, "enqueue")
        assert await dispatch_ready(world.parts, world.clock.now()) == 10
        (rows,) = read
        assert rows["runs"][0] == 0
        assert rows["runs"][1] < 3000
        assert await world.pool.fetchval("select count(distinct tenant_id) from runs where state = 'queued'") == 10

    in_world(database_url, story, queue_depth=10)


def test_two_dispatchers_at_once_do_not_share_a_limit_out_twice(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 3: while one has chosen and not committed, another process's sees a younger picture and must not choose."""

    async def story(world: World) -> None:
        await ready(world, "first", "live", 1, MINUTES)
        await world.pool.execute("update accounts set concurrency_limit = 1")
        chosen, go_on = asyncio.Event(), asyncio.Event()
        original = runs.dispatch

        async def held(connection: Connection, now: datetime, room: int) -> list[tuple[int, int, bool]]:
            found = await original(connection, now, room)
            if not chosen.is_set():
                chosen.set()
                await go_on.wait()
            return found

        monkeypatch.setattr(runs, "dispatch", held)
        async with open_world(database_url) as other:
            one = asyncio.create_task(dispatch_ready(world.parts, world.clock.now()))
            await chosen.wait()
            await ready(world, "older", "live", 1, HOURS)
            await world.pool.execute("update accounts set concurrency_limit = 1")
            two = await dispatch_ready(other.parts, world.clock.now())
            go_on.set()
            assert (await one, two) == (1, 0)
        assert await dispatch_ready(world.parts, world.clock.now()) == 0

    in_world(database_url, story)
