"""Planning costs what is due, not what exists (issue figure 6; `python -m benchmarks.fleet` measures a million)."""

from __future__ import annotations

import json
from datetime import timedelta

from tests.engine.world import World, in_world
from tidegate.engine.planner import plan_due
from tidegate.store import schedules

MANY = 20_000
COPIES = """
with made as (
    insert into installations (tenant_id, name, connection_id, destination_id)
    select i.tenant_id, 'i' || g, i.connection_id, i.destination_id from installations i, generate_series(1, $1) g
    returning id
),
linked as (
    insert into chains (tenant_id, installation_id, workflow, stream, account_id, start_at)
    select c.tenant_id, made.id, c.workflow, c.stream, c.account_id, c.start_at from chains c, made returning id
)
insert into schedules (chain_id, rule, received_at, planned_until, next_due_at)
select linked.id, s.rule, s.received_at, s.planned_until, s.next_due_at from schedules s, linked
"""


async def pages_touched(world: World, statement: str) -> int:
    """Return how many pages the server looks at for a statement under the plan that it keeps for any instant."""
    async with world.pool.acquire() as connection, connection.transaction():
        await connection.execute("set local plan_cache_mode = force_generic_plan")
        await connection.execute(f"prepare asked (timestamptz) as {statement}")
        plan = await connection.fetchval("explain (analyze, buffers, format json) execute asked ('2026-07-13T16:00Z')")
        await connection.execute("deallocate asked")
    root = json.loads(plan)[0]["Plan"]
    return int(root["Shared Hit Blocks"] + root["Shared Read Blocks"])


def test_an_idle_tick_looks_at_a_few_pages_however_many_schedules_there_are(database_url: str) -> None:
    """SPEC 7: the same code at every scale."""

    async def story(world: World) -> None:
        await world.install()
        await world.pool.execute(COPIES, MANY)
        await world.pool.execute("vacuum analyze schedules")
        assert await world.pool.fetchval("select count(*) from schedules") == MANY + 1
        assert await world.pool.fetchval("select pg_relation_size('schedules') / 8192") > 200
        assert await pages_touched(world, schedules.LOOK_AT) < 10
        assert await pages_touched(world, "select exists (select from schedules where next_due_at <= $1)") > 200
        assert await plan_due(world.parts, world.clock.now()) == 0

    in_world(database_url, story)


def test_batches_side_by_side_plan_every_due_schedule_once(database_url: str) -> None:
    """Each batch takes what no other holds; none is planned twice, none is left."""

    async def story(world: World) -> None:
        await world.install()
        await world.pool.execute(COPIES, 54)
        world.with_settings(plan_batch=10)
        world.clock.advance(days=1)
        assert await plan_due(world.parts, world.clock.now()) == 55
        runs = await world.runs()
        assert len({run["chain_id"] for run in runs}) == len(runs) == 55
        left = "select count(*) from schedules where next_due_at <= $1"
        assert await world.pool.fetchval(left, world.clock.now() + timedelta(hours=1)) == 0
        assert await plan_due(world.parts, world.clock.now()) == 0

    in_world(database_url, story)
