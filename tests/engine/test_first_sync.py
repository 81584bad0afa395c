"""The main job: due dates become runs, runs fetch and deliver, and the ledger says what is covered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.engine.world import World, in_world


def utc(day: int, hour: int = 0, minute: int = 0, month: int = 7) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


def test_the_worked_example_of_the_second_seed(database_url: str) -> None:
    """SPEC 2.13: received July 13 16:00, start May 1, daily at 00:00; run at 03:00, the periods do not change."""

    async def story(world: World) -> None:
        chain = await world.install()
        world.shop.put(1, utc(2, month=5))
        world.shop.put(2, utc(13, 20))
        await world.tick()
        assert await world.runs() == []

        world.clock.set(utc(14, 3))
        await world.tick()
        (first,) = await world.runs()
        assert (first["due_at"], first["started_at"], first["state"]) == (utc(14), utc(14, 3), "succeeded")
        assert await world.covered(chain) == [(utc(1, month=5), utc(14))]
        assert set(await world.delivered()) == {1, 2}

        world.shop.put(3, utc(14, 1))
        world.clock.set(utc(15, 3))
        await world.tick()
        assert await world.covered(chain) == [(utc(1, month=5), utc(14)), (utc(14), utc(15))]
        assert set(await world.delivered()) == {1, 2, 3}

    in_world(database_url, story)


def test_an_edited_stream_is_fetched_open_ended_and_an_immutable_one_to_the_end(database_url: str) -> None:
    """SPEC 4, HOLE e: a record edited between due date and run date is delivered early, not lost."""

    async def story(world: World) -> None:
        await world.install()
        await world.install("belle", stream="events")
        world.shop.put(1, utc(14, 1))
        world.clock.set(utc(14, 3))
        await world.tick()
        asked = {request.stream: request for request in world.shop.asked}
        assert asked["orders"].upper is None
        assert asked["events"].upper == utc(14)
        assert set(await world.delivered("acme")) == {1}
        assert await world.delivered("belle") == {}

    in_world(database_url, story)


def test_an_outage_of_three_days_coalesces_into_one_period(database_url: str) -> None:
    """SPEC 2.8, HOLE ee: one run up to the latest due date passed; both dates are kept."""

    async def story(world: World) -> None:
        chain = await world.install(rule={"every": "1m", "start_at": "2026-07-13T00:00:00Z"})
        world.clock.advance(days=3)
        await world.tick()
        (run,) = await world.runs()
        assert run["first_due_at"] == utc(13, 16, 1)
        assert run["due_at"] == utc(16, 16)
        assert await world.covered(chain) == [(utc(13), utc(16, 16))]

    in_world(database_url, story)


def test_a_failed_period_is_inside_the_next_one(database_url: str) -> None:
    """SPEC 2.7, HOLE d: the next period starts at the last successful due date."""
    from tidegate.domain.errors import ContractBroken

    async def story(world: World) -> None:
        chain = await world.install()
        world.shop.put(1, utc(13, 20))
        world.shop.on_page = lambda _number: ContractBroken("not what was promised")
        world.clock.set(utc(14, 1))
        await world.tick()
        assert [run["state"] for run in await world.runs()] == ["failed"]
        assert await world.covered(chain) == []

        world.shop.on_page = lambda _number: None
        world.clock.set(utc(15, 1))
        await world.tick()
        assert [run["state"] for run in await world.runs()] == ["failed", "succeeded"]
        assert await world.covered(chain) == [(utc(1, month=5), utc(15))]

    in_world(database_url, story)


def test_a_period_is_fetched_only_once_the_sources_clock_has_passed_its_end(database_url: str) -> None:
    """SPEC 3, HOLES k, ff: a source whose clock is behind is waited for; waiting is not a failed attempt."""

    async def story(world: World) -> None:
        chain = await world.install()
        world.shop.clock_behind = timedelta(seconds=90)
        world.clock.set(utc(14))
        await world.tick()
        (run,) = await world.runs()
        assert (run["state"], run["attempt"], run["not_before_at"]) == ("retrying", 0, utc(14) + timedelta(seconds=90))
        assert "says 2026-07-13 23:58:30 UTC and the period ends 1 min 30 s later." in run["error"]
        assert await world.delivered() == {}

        world.shop.put(1, utc(13, 23, 59))
        world.clock.advance(seconds=90)
        await world.tick()
        assert await world.covered(chain) == [(utc(1, month=5), utc(14))]
        assert set(await world.delivered()) == {1}

    in_world(database_url, story)


def test_an_incomplete_listing_is_visibly_unproven_and_covers_nothing(database_url: str) -> None:
    """SPEC 5 "The ledger cannot lie", HOLE w: what came is delivered, but no coverage is claimed."""

    async def story(world: World) -> None:
        chain = await world.install()
        world.shop.put(1, utc(13, 20))
        world.shop.shortfall = "only the last 60 days are shown"
        world.clock.set(utc(14))
        await world.tick()
        assert [run["state"] for run in await world.runs()] == ["unproven"]
        assert set(await world.delivered()) == {1}
        assert await world.covered(chain) == []

    in_world(database_url, story)
