"""Live first: a backfill in hand gives way to a live run, and goes on later (SPEC 2.11, 3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from tests.engine.test_loops import until
from tests.engine.world import World, in_world
from tidegate.domain.run import RunState
from tidegate.engine.commands import backfilling
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.engine.worker import Worker


def utc(day: int, month: int = 7) -> datetime:
    return datetime(2026, month, day, tzinfo=UTC)


async def a_backfill(world: World, tenant: str) -> int:
    """Request a backfill of six records of a tenant, which is covered to July 14, and queue it."""
    for number in range(6):
        world.shop.put(number, utc(2, 5) + timedelta(hours=number))
    asked = await backfilling.request_backfill(world.parts, tenant, "sync", "orders", utc(2, 5), utc(3, 5))
    assert await dispatch_ready(world.parts, world.clock.now()) == 1
    return asked.run_id


@asynccontextmanager
async def at_its_first_page(world: World, worker: Worker, run_id: int) -> AsyncGenerator[asyncio.Task[None]]:
    """Yield the execution of a run whose source has shown a page and does not show another until this ends."""
    gate = world.shop.gate = asyncio.Event()
    gate.set()
    before = world.shop.pages_served

    def shut(_number: int) -> None:
        gate.clear()

    world.shop.on_page = shut
    working = asyncio.create_task(worker.handle(run_id))

    async def shown() -> bool:
        return world.shop.pages_served > before

    await until(shown)
    world.shop.on_page = lambda _number: None
    renewing = asyncio.create_task(worker._renew_leases())
    try:
        yield working
    finally:
        gate.set()
        world.shop.gate = None
        await working
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


async def a_look(world: World, worker: Worker) -> None:
    """Let the worker renew its leases, and look for whom its backfills are in the way."""

    async def asleep() -> bool:
        return bool(world.clock._sleepers)

    await until(asleep)
    world.clock.advance(seconds=4)
    await until(asleep)


async def of(world: World, run_id: int) -> tuple[RunState, int]:
    row = await world.pool.fetchrow("select state, attempt from runs where id = $1", run_id)
    assert row is not None
    return RunState(row["state"]), row["attempt"]


def test_a_backfill_gives_way_to_a_live_run_of_its_account(database_url: str) -> None:
    """SPEC 3: with a limit of one there is no other way; the backfill goes on from its checkpoint, uncounted."""

    async def story(world: World) -> None:
        await world.install("a", account="one.example", limit=1)
        live = await world.install("b", account="one.example", limit=1)
        world.clock.set(utc(14))
        await world.tick()
        backfill = await a_backfill(world, "a")
        worker = Worker(world.parts, on_end=lambda: None)
        async with at_its_first_page(world, worker, backfill):
            await a_look(world, worker)
            assert not any(stop.is_set() for stop in worker._backfills.values())
            world.clock.set(utc(15))
            await plan_due(world.parts, world.clock.now())
            assert await dispatch_ready(world.parts, world.clock.now()) == 0
            await a_look(world, worker)
        assert await of(world, backfill) == (RunState.RETRYING, 0)
        assert await dispatch_ready(world.parts, world.clock.now()) == 1
        queued = await world.pool.fetchval("select lane from runs where state = 'queued'")
        assert queued == "live"
        await world.work()
        await world.tick()
        assert (await of(world, backfill))[0] is RunState.SUCCEEDED
        assert world.shop.asked[-1].resume is not None
        assert (await world.covered(live))[-1][1] == utc(15)

    in_world(database_url, story)


def test_a_backfill_gives_way_where_it_has_a_workers_last_slot(database_url: str) -> None:
    """SPEC 3: a live run of another account that is handed to the queue does not wait for the backfill's end."""

    async def story(world: World) -> None:
        await world.install("a")
        await world.install("b")
        world.clock.set(utc(14))
        await world.tick()
        backfill = await a_backfill(world, "a")
        worker = Worker(world.parts, on_end=lambda: None)
        async with at_its_first_page(world, worker, backfill):
            await world.pool.execute("update schedules set next_due_at = null where chain_id = 1")
            world.clock.set(utc(15))
            await plan_due(world.parts, world.clock.now())
            assert await dispatch_ready(world.parts, world.clock.now()) == 1
            await a_look(world, worker)
        assert await of(world, backfill) == (RunState.RETRYING, 0)

    in_world(database_url, story, slots=1)


def test_a_backfill_goes_on_where_its_end_would_help_no_one(database_url: str) -> None:
    """What keeps the live run back is a pause of its account: there is nothing to give way for."""

    async def story(world: World) -> None:
        await world.install("a", account="one.example", limit=1)
        await world.install("b", account="one.example", limit=1)
        world.clock.set(utc(14))
        await world.tick()
        backfill = await a_backfill(world, "a")
        worker = Worker(world.parts, on_end=lambda: None)
        async with at_its_first_page(world, worker, backfill):
            world.clock.set(utc(15))
            await plan_due(world.parts, world.clock.now())
            await world.pool.execute("update accounts set hold_until = $1", utc(16))
            await a_look(world, worker)
            await world.pool.execute("update accounts set hold_until = null")
        assert (await of(world, backfill))[0] is RunState.SUCCEEDED

    in_world(database_url, story)
