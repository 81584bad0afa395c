"""The losing scenarios of the seeds, as they would happen: real engine, connector and destination, simulated days."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from tests.engine.world import World as EngineWorld
from tests.engine.world import in_world
from tests.loss import evidence, tap
from tests.loss.harness import Stage, staged
from tests.loss.history import Version
from tests.loss.story import Story
from tidegate.store import chains

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def tell(dsn: str, story: Story, plot: Callable[[Stage], Awaitable[None]]) -> None:
    """Play ``plot`` with a source to which nothing happens by itself, and compare everything in the end."""

    async def run() -> None:
        async with staged(dsn, story) as stage:
            stage.source.history.versions.clear()
            await plot(stage)
            await stage.settle()
            await stage.end()
            assert stage.violations == []

    asyncio.run(run())


async def delivered(stage: Stage) -> dict[int, int]:
    """Return the revision of each record in the destination."""
    there = await evidence.found(stage.world.pool, stage.schema)
    return {number: row["revision"] for number, row in there.rows.items()}


def test_nothing_created_during_a_listing_is_lost(stage_url: str) -> None:
    """HOLE a: a run every 5 minutes, each listing takes 45 seconds, a record every 2 seconds, for an hour; no lookback.

    With the clock read after the listing as watermark, 14 % of them would be lost; here none.
    """

    async def plot(stage: Stage) -> None:
        source, begun = stage.source, stage.now
        made = 0

        def catch_up(_request: int = 0) -> None:
            nonlocal made
            while begun + made * 2 * SECOND <= stage.now:
                source.history.create(begun + made * 2 * SECOND)
                made += 1

        def slow(request: int) -> None:
            stage.world.clock.advance(seconds=15)
            catch_up(request)

        source.before_reply = slow
        while stage.now < begun + HOUR:
            stage.world.clock.set(max(stage.now, begun + (stage.now - begun) // (5 * MINUTE) * 5 * MINUTE + 5 * MINUTE))
            catch_up()
            await stage.tick()
        source.before_reply = lambda _request: None
        assert made > 1795

    tell(stage_url, Story(0, "keyset_prompt", "every minute", slowest=0.0, page_size=100), plot)


def test_records_edited_every_day_between_due_date_and_run_date_are_delivered_every_day(stage_url: str) -> None:
    """HOLE e: due at midnight, run at three, 60 records edited at one o'clock each night. Bounded, all 60 would be missed."""

    async def plot(stage: Stage) -> None:
        history = stage.source.history
        numbers = [history.create(stage.now).id for _ in range(60)]
        midnight = datetime(2026, 7, 14, tzinfo=UTC)
        for night in range(5):
            for number in numbers:
                history.edit(number, midnight + night * DAY + HOUR)
            stage.world.clock.set(midnight + night * DAY + 3 * HOUR)
            await stage.tick()
            assert set((await delivered(stage)).values()) == {night + 2}

    tell(stage_url, Story(0, "keyset", "daily in London", slowest=0.0, page_size=25), plot)


def test_one_poison_record_does_not_stop_a_tenant(stage_url: str) -> None:
    """HOLE d: a poison record each day for 31 days; each day is covered on that day, and the periods do not grow."""

    async def plot(stage: Stage) -> None:
        history, first = stage.source.history, stage.now
        for day in range(31):
            history.create(first + day * DAY)
            history.create(first + day * DAY, flaw=("null_cursor", "bad_cursor", "no_key", "not_object")[day % 4])
            stage.world.clock.set(first + day * DAY + 12 * HOUR)
            await stage.tick()
        links = await chains.links(stage.world.pool, stage.chain_id)
        assert [link.period.duration for link in links[1:]] == [DAY] * 30
        runs = await stage.world.pool.fetch("select state, quarantined_count, inserted_count from runs order by id")
        assert {row["state"] for row in runs} == {"succeeded"}
        assert sum(row["quarantined_count"] for row in runs) == 31
        assert [row["inserted_count"] for row in runs] == [1] * 31

    tell(stage_url, Story(0, "keyset", "daily in London", slowest=0.0), plot)


def test_orders_between_midnight_and_the_run_are_delivered_once(stage_url: str) -> None:
    """HOLE h: with a window from yesterday's midnight they come today and tomorrow, and a missed run loses a whole day."""

    async def plot(stage: Stage) -> None:
        history, midnight = stage.source.history, datetime(2026, 7, 13, 23, tzinfo=UTC)
        made: list[Version] = []
        for night in range(6):
            made += [history.create(midnight + night * DAY + hour * HOUR) for hour in (0, 1, 2, 12)]
            stage.world.clock.set(midnight + night * DAY + 13 * HOUR)
            if night != 3:  # an outage
                await stage.tick()
        written = await tap.writes(stage.world.pool, stage.schema)
        assert written == {version.id: [1] for version in made}

    tell(stage_url, Story(0, "keyset", "daily in London", slowest=0.0), plot)


def test_two_streams_of_one_tenant_do_not_share_a_watermark(database_url: str) -> None:
    """HOLE v: orders fail while events succeed; the events' watermark moves on and the orders' does not."""

    async def plot(world: EngineWorld) -> None:
        orders = await world.install(stream="orders")
        events = await world.install(stream="events")
        world.clock.set(datetime(2026, 7, 14, tzinfo=UTC))
        world.shop.on_page = lambda _number: (
            ValueError("orders are down") if world.shop.asked[-1].stream == "orders" else None
        )
        await world.tick()
        assert await chains.watermark(world.pool, events) == datetime(2026, 7, 14, tzinfo=UTC)
        assert await chains.watermark(world.pool, orders) is None

    in_world(database_url, plot)
