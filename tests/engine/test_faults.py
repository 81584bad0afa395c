"""Failures, lost leases and stops: nothing is lost and nothing is written twice (SPEC 5)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.engine.world import World, in_world
from tidegate.domain.errors import ContractBroken, RateLimited, SourceUnavailable, Unauthorised
from tidegate.domain.retry import RetryPolicy
from tidegate.engine.sweeper import sweep
from tidegate.engine.worker import Worker
from tidegate.store import runs


def utc(day: int, hour: int = 0, minute: int = 0, month: int = 7) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


async def prepare(world: World, records: int = 6) -> int:
    chain = await world.install()
    for number in range(1, records + 1):
        world.shop.put(number, utc(13, 16, number))
    world.clock.set(utc(14))
    return chain


def test_a_failed_page_is_retried_from_the_checkpoint(database_url: str) -> None:
    """SPEC 4 "Pages": what came before the failure is committed, and the next attempt goes on after it."""

    async def story(world: World) -> None:
        chain = await prepare(world)
        world.shop.on_page = lambda number: SourceUnavailable("reset") if number == 3 else None
        await world.tick()
        (run,) = await world.runs()
        assert (run["state"], run["read_count"]) == ("retrying", 4)
        assert set(await world.delivered()) == {1, 2, 3, 4}
        world.clock.advance(minutes=1)
        await world.tick()
        assert world.shop.asked[-1].resume is not None
        assert world.shop.asked[-1].stop_after == world.shop.asked[0].stop_after
        (run,) = await world.runs()
        assert (run["state"], run["read_count"], run["inserted_count"]) == ("succeeded", 6, 6)
        assert await world.covered(chain) == [(utc(1, month=5), utc(14))]

    in_world(database_url, story)


def test_retry_after_is_honoured_and_attempts_are_bounded(database_url: str) -> None:
    """SPEC 5 "Failures": backoff with jitter, Retry-After as a minimum, then the run fails."""

    async def story(world: World) -> None:
        await prepare(world)
        world.with_settings(retry=RetryPolicy(attempts=3, base=timedelta(seconds=2)))
        world.shop.on_page = lambda _number: RateLimited("slow down", retry_after_seconds=100)
        await world.tick()
        (run,) = await world.runs()
        assert run["not_before_at"] == utc(14) + timedelta(seconds=100)
        world.shop.on_page = lambda _number: SourceUnavailable("down")
        world.clock.advance(seconds=100)
        await world.tick()
        (run,) = await world.runs()
        assert run["not_before_at"] == utc(14) + timedelta(seconds=102), "half of 2 s times 2 to the power 1"
        world.clock.advance(minutes=5)
        await world.tick()
        (run,) = await world.runs()
        assert (run["state"], run["attempt"]) == ("failed", 3)

    in_world(database_url, story)


def test_an_authorisation_failure_marks_the_connection_and_pauses(database_url: str) -> None:
    """SPEC 5 "Failures": nothing more is planned until a person renews the connection."""

    async def story(world: World) -> None:
        await prepare(world)
        world.shop.on_page = lambda _number: Unauthorised("token revoked")
        await world.tick()
        row = await world.pool.fetchrow("select paused_reason from installations")
        assert row is not None
        assert row["paused_reason"] == "unauthorised: token revoked"
        assert await world.pool.fetchval("select unauthorised_at is not null from connections")
        world.clock.advance(days=3)
        await world.tick()
        assert [run["state"] for run in await world.runs()] == ["failed"]

    in_world(database_url, story)


def test_a_contract_failure_stops_the_run_and_shows_the_reply(database_url: str) -> None:
    """SPEC 5 "Failures"."""

    async def story(world: World) -> None:
        await prepare(world)
        world.shop.on_page = lambda _number: ContractBroken("no records", response="<html>")
        await world.tick()
        (run,) = await world.runs()
        assert run["state"] == "failed"
        assert '"response": "<html>"' in run["error"]

    in_world(database_url, story)


def test_a_worker_whose_lease_was_taken_over_commits_nothing(database_url: str) -> None:
    """SPEC 5 "Fencing": the commit of an older epoch is refused, rows and all."""

    async def story(world: World) -> None:
        chain = await prepare(world, records=2)
        world.shop.gate = asyncio.Event()
        slow = Worker(world.parts, on_end=lambda: None)
        await world_dispatch(world)
        (run,) = await world.runs()
        stuck = asyncio.create_task(slow.handle(run["id"]))
        await wait_until(lambda: len(world.shop.asked) == 1)

        world.clock.advance(seconds=16)
        assert await sweep(world.parts, world.clock.now()) == 1
        world.shop.put(99, utc(13, 18))
        world.shop.gate.set()
        await stuck
        assert await world.delivered() == {}, "the old worker must not commit"
        assert (await world.runs())[0]["state"] == "retrying"

        await world.tick()
        assert set(await world.delivered()) == {1, 2, 99}
        assert await world.covered(chain) == [(utc(1, month=5), utc(14))]

    in_world(database_url, story)


def test_a_worker_that_is_alive_keeps_its_lease(database_url: str) -> None:
    """SPEC 1 lease: renewed every few seconds; the sweeper finds nothing to take."""

    async def story(world: World) -> None:
        await prepare(world)
        await world_dispatch(world)
        (queued,) = await world.runs()
        now = world.clock.now()
        (run,) = await runs.lease(world.pool, [queued["id"]], now, now + timedelta(seconds=15), "w")
        world.clock.advance(seconds=10)
        ours = await runs.renew(world.pool, [(run.id, run.epoch)], world.clock.now() + timedelta(seconds=15))
        assert ours == {run.id}
        world.clock.advance(seconds=10)
        assert await runs.reclaim(world.pool, world.clock.now()) == []
        assert await runs.renew(world.pool, [(run.id, run.epoch - 1)], world.clock.now()) == set()

    in_world(database_url, story)


def test_a_graceful_stop_delivers_what_is_in_hand_and_gives_the_run_back(database_url: str) -> None:
    """Issue 1 "Engine": SIGTERM finishes or checkpoints the page in hand."""

    async def story(world: World) -> None:
        await prepare(world)
        await world_dispatch(world)
        (queued,) = await world.runs()
        worker = Worker(world.parts, on_end=lambda: None)

        def stop_at_the_second(number: int) -> None:
            if number == 2:
                worker.stop()

        world.shop.on_page = stop_at_the_second
        await worker.handle(queued["id"])
        (run,) = await world.runs()
        assert (run["state"], run["attempt"]) == ("retrying", 0)
        assert run["checkpoint"] is not None
        assert len(await world.delivered()) >= 2
        world.shop.on_page = lambda _number: None
        await world.tick()
        assert set(await world.delivered()) == {1, 2, 3, 4, 5, 6}
        (run,) = await world.runs()
        assert (run["state"], run["read_count"]) == ("succeeded", 6)

    in_world(database_url, story)


def test_a_run_that_lost_its_job_is_queued_again(database_url: str) -> None:
    """SPEC 7: losing a job is harmless, and doubling one too."""

    async def story(world: World) -> None:
        await prepare(world)
        await world_dispatch(world)
        await world.pool.execute("delete from pgqueuer")
        world.clock.advance(seconds=31)
        assert await sweep(world.parts, world.clock.now()) == 1
        assert await sweep(world.parts, world.clock.now()) == 1
        assert await world.pool.fetchval("select count(*) from pgqueuer") == 1
        (run,) = await world.runs()
        worker = Worker(world.parts, on_end=lambda: None)
        await asyncio.gather(worker.handle(run["id"]), worker.handle(run["id"]), worker.handle(run["id"]))
        (run,) = await world.runs()
        assert (run["state"], run["epoch"], run["read_count"]) == ("succeeded", 1, 6)

    in_world(database_url, story)


def test_trouble_inside_the_engine_loses_nothing(database_url: str) -> None:
    """ARCHITECTURE "Errors": what nobody foresaw is tried again, not swallowed and not committed."""

    async def story(world: World) -> None:
        await prepare(world)

        def explode(point: str) -> None:
            if point == "batch.recorded":
                raise RuntimeError("unforeseen")

        calm, world.parts = world.parts, replace(world.parts, signal=explode)
        await world.tick()
        (run,) = await world.runs()
        assert run["state"] == "retrying"
        assert await world.delivered() == {}
        world.parts = calm
        world.clock.advance(minutes=1)
        await world.tick()
        assert set(await world.delivered()) == {1, 2, 3, 4, 5, 6}

    in_world(database_url, story)


async def world_dispatch(world: World) -> None:
    from tidegate.engine.dispatcher import dispatch_ready
    from tidegate.engine.planner import plan_due

    await plan_due(world.parts, world.clock.now())
    assert await dispatch_ready(world.parts, world.clock.now()) == 1


async def wait_until(condition: object) -> None:
    assert callable(condition)
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail("the awaited condition did not come true")
