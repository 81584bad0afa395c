"""Two people, or a person and a deployment, ask for something at the same moment: each is done whole, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.engine.world import World, in_world
from tidegate.domain.errors import Unauthorised
from tidegate.engine.commands import installations
from tidegate.engine.sweeper import sweep
from tidegate.store import database

ASKED: dict[str, Callable[[World], Awaitable[object]]] = {
    "pause": lambda world: installations.pause(world.parts, "acme", "sync"),
    "resume": lambda world: installations.resume(world.parts, "acme", "sync"),
}


async def until_it_waits(world: World, asked: asyncio.Task[object]) -> None:
    while not await world.pool.fetchval("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"):
        assert not asked.done(), "it did not wait"


@pytest.mark.parametrize("command", ASKED)
def test_a_command_waits_for_a_configuration_that_is_being_applied(command: str, database_url: str) -> None:
    """SPEC 2.10, 2.11: applying goes from schedules to the installation, pausing the other way; that was a deadlock."""

    async def story(world: World) -> None:
        await world.install()
        if command == "resume":
            await installations.pause(world.parts, "acme", "sync")
        async with world.pool.acquire() as applying, applying.transaction():
            await database.lock(applying, database.APPLY_LOCK)
            await applying.execute("select 1 from schedules for update")
            asked = asyncio.ensure_future(ASKED[command](world))
            await until_it_waits(world, asked)
            await applying.execute("select 1 from connections for update")
            await applying.execute("select 1 from installations for update")
        await asked
        paused = command == "pause"
        assert await world.pool.fetchval("select paused_at is not null from installations") is paused
        assert await world.pool.fetchval("select paused_at is not null from schedules") is paused

    in_world(database_url, story)


def test_who_pauses_while_another_resumes_has_paused_it_whole(database_url: str) -> None:
    """SPEC 2.11: that it is paused already, which the other is about to end, must not make a pause be forgotten."""

    async def story(world: World) -> None:
        await world.install()
        await installations.pause(world.parts, "acme", "sync")
        async with world.pool.acquire() as resuming, resuming.transaction():
            await installations.resume_in(resuming, "acme", "sync", world.clock.now())
            asked = asyncio.ensure_future(installations.pause(world.parts, "acme", "sync", "stocktaking"))
            await until_it_waits(world, asked)
        await asked
        assert await world.pool.fetchval("select paused_reason from installations") == "stocktaking"
        assert await world.pool.fetchval("select paused_at is not null from schedules")

    in_world(database_url, story)


def test_the_sweeper_waits_for_no_configuration_that_is_being_applied(database_url: str) -> None:
    """SPEC 5: what it resumes can wait for its next look; the runs of dead workers cannot."""

    async def story(world: World) -> None:
        await world.install()
        world.shop.on_page = lambda _number: Unauthorised("revoked")
        world.clock.advance(days=1)
        await world.tick()
        await world.pool.execute("update connections set unauthorised_at = null")
        async with world.pool.acquire() as applying, applying.transaction():
            await database.lock(applying, database.APPLY_LOCK)
            await asyncio.wait_for(sweep(world.parts, world.clock.now()), 10)
            assert await world.pool.fetchval("select paused_by from installations") == "unauthorised"
        await sweep(world.parts, world.clock.now())
        assert await world.pool.fetchval("select paused_by from installations") == ""

    in_world(database_url, story)
