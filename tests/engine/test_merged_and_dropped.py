"""What becomes of runs that wait: planned ones merge, a pause drops them; what a person asked for stays (SPEC 2.8, 2.11)."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.engine.world import World, in_world
from tidegate.engine.commands import installations
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due


def utc(day: int) -> datetime:
    return datetime(2026, 7, day, tzinfo=UTC)


async def planned(world: World, day: int) -> None:
    world.clock.set(utc(day))
    await plan_due(world.parts, world.clock.now())


async def those_that_wait(world: World) -> list[tuple[str, int]]:
    return [(run["trigger"], run["period_end"].day) for run in await world.runs() if run["state"] == "waiting"]


def test_a_manual_run_that_waits_is_not_merged_away(database_url: str) -> None:
    """SPEC 2.8, 2.11: the planner merges what it has planned itself."""

    async def story(world: World) -> None:
        await world.install()
        (asked,) = await installations.request_runs(world.parts, "acme", "sync")
        await planned(world, 14)
        await planned(world, 15)
        assert await those_that_wait(world) == [("manual", 13), ("schedule", 15)]
        assert await world.pool.fetchval("select id from runs where trigger = 'manual'") == asked

    in_world(database_url, story)


def test_a_run_that_was_begun_once_is_not_merged_away(database_url: str) -> None:
    """SPEC 2.8: with its row would go the epoch that fences what its first worker may still commit (SPEC 5)."""

    async def story(world: World) -> None:
        await world.install()
        await planned(world, 14)
        await world.pool.execute("update runs set epoch = 1")
        await planned(world, 15)
        await planned(world, 16)
        assert await those_that_wait(world) == [("schedule", 14), ("schedule", 16)]

    in_world(database_url, story)


def test_a_pause_drops_what_is_handed_to_the_queue_too(database_url: str) -> None:
    """SPEC 2.11: what no worker has begun has not started; a worker that takes its job later finds nothing to do."""

    async def story(world: World) -> None:
        await world.install()
        await planned(world, 14)
        assert await dispatch_ready(world.parts, world.clock.now()) == 1
        (run,) = await world.runs()
        assert await installations.pause(world.parts, "acme", "sync") == 1
        assert [each["state"] for each in await world.runs()] == ["dropped"]
        await world.work()
        assert (await world.runs())[0]["state"] == "dropped"
        assert (world.shop.asked, run["state"]) == ([], "queued")

    in_world(database_url, story)
