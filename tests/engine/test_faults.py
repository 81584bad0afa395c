"""Failures, lost leases and stops: nothing is lost and nothing is written twice (SPEC 5)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from tests.engine.world import World, in_world
from tidegate.domain.errors import ContractBroken, RateLimited, SourceUnavailable, Unauthorised
from tidegate.domain.http_reply import excerpt
from tidegate.domain.retry import RetryPolicy
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.sweeper import sweep
from tidegate.engine.worker import Worker
from tidegate.store import leases


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


def test_what_postgresql_refuses_in_a_text_does_not_keep_a_failure_from_being_recorded(database_url: str) -> None:
    """SPEC 5 "Failures": a source's error page may hold a NUL; the run ends and its connection is marked all the same."""

    async def story(world: World) -> None:
        await prepare(world)
        page = excerpt(b"<html>\x00\x1b[2J", ())
        world.shop.on_page = lambda _number: Unauthorised(f"{page} said \x00", response={"body": "\x00\x9b"})
        await world.tick()
        (run,) = await world.runs()
        assert run["state"] == "failed"
        assert "\\u0000" not in run["error"]
        assert await world.pool.fetchval("select unauthorised_at is not null from connections")
        assert page == "<html>\ufffd\ufffd[2J"

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
        (run,) = await leases.lease(world.pool, [queued["id"]], now, now + timedelta(seconds=15), "w")
        world.clock.advance(seconds=10)
        ours = await leases.renew(world.pool, [(run.id, run.epoch)], world.clock.now() + timedelta(seconds=15))
        assert ours == {run.id}
        world.clock.advance(seconds=10)
        assert await leases.reclaim(world.pool, world.clock.now(), 60) == []
        assert await leases.renew(world.pool, [(run.id, run.epoch - 1)], world.clock.now()) == set()

    in_world(database_url, story)


def test_a_run_that_has_ended_has_not_lost_its_lease(database_url: str) -> None:
    """SPEC 1 lease: its end commits, and the leases are renewed before its worker has heard of it."""

    async def story(world: World) -> None:
        await prepare(world)
        await world.tick()
        (ended,) = await world.runs()
        assert ended["state"] == "succeeded"
        renewed = await leases.renew(world.pool, [(ended["id"], ended["epoch"])], world.clock.now())
        assert renewed == {ended["id"]}
        assert await leases.renew(world.pool, [(ended["id"], ended["epoch"] + 1)], world.clock.now()) == set()
        assert (await world.runs())[0]["lease_until"] is None

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


def test_a_silent_source_does_not_hold_up_a_stop(database_url: str) -> None:
    """Issue 1 "Engine": after the grace a run without a checkpoint in sight is let go, unharmed and uncounted."""

    async def story(world: World) -> None:
        await prepare(world)
        world.shop.gate = asyncio.Event()
        await world_dispatch(world)
        (queued,) = await world.runs()
        worker = Worker(world.parts, on_end=lambda: None)
        handling = asyncio.create_task(worker.handle(queued["id"]))
        await wait_until(lambda: len(world.shop.asked) == 1)
        worker.stop()
        await asyncio.sleep(0)
        assert not handling.done()
        world.clock.advance(seconds=10)
        await handling
        (run,) = await world.runs()
        assert (run["state"], run["attempt"]) == ("retrying", 0)
        world.shop.gate.set()
        await world.tick()
        assert set(await world.delivered()) == {1, 2, 3, 4, 5, 6}

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


def test_a_shortfall_of_any_page_is_a_shortfall_of_the_run(database_url: str) -> None:
    """SPEC 5 "The ledger cannot lie": the last page does not speak for the others, nor does a resumed half."""

    async def story(world: World) -> None:
        chain = await prepare(world)

        def first_page_only(number: int) -> Exception | None:
            world.shop.shortfall = "a scope was missing" if number == 1 else ""
            return SourceUnavailable("reset") if number == 2 else None

        world.shop.on_page = first_page_only
        await world.tick()
        world.clock.advance(minutes=1)
        await world.tick()
        (run,) = await world.runs()
        assert (run["state"], run["read_count"]) == ("unproven", 6)
        assert await world.covered(chain) == []

    in_world(database_url, story)


def test_what_a_source_asks_for_is_bounded(database_url: str) -> None:
    """SPEC 5 "Failures": a wrong clock or header of a source stops its streams for a while, not for good."""

    async def story(world: World) -> None:
        await prepare(world)
        world.shop.clock_behind = timedelta(days=50 * 365)
        await world.tick()
        (run,) = await world.runs()
        assert run["not_before_at"] == utc(14) + timedelta(minutes=15)
        world.shop.clock_behind = timedelta(0)
        world.shop.on_page = lambda _number: RateLimited("slow", retry_after_seconds=1e15)
        world.clock.advance(minutes=15)
        await world.tick()
        (run,) = await world.runs()
        assert run["not_before_at"] == utc(15, 0, 15)
        world.shop.on_page = lambda _number: None
        world.clock.advance(days=1)
        await world.tick()
        assert (await world.runs())[0]["state"] == "succeeded"

    in_world(database_url, story)


def test_a_late_refusal_of_old_credentials_does_not_condemn_new_ones(database_url: str) -> None:
    """SPEC 5 "Failures": only the credentials that were refused are marked."""

    async def story(world: World) -> None:
        await prepare(world, records=1)
        world.shop.gate = asyncio.Event()
        await world_dispatch(world)
        (run,) = await world.runs()
        old = asyncio.create_task(Worker(world.parts, on_end=lambda: None).handle(run["id"]))
        await wait_until(lambda: len(world.shop.asked) == 1)
        await world.pool.execute("update connections set fingerprint = 'renewed'")
        world.shop.on_page = lambda _number: Unauthorised("old token")
        world.shop.gate.set()
        await old
        assert await world.pool.fetchval("select unauthorised_at is null from connections")
        world.shop.on_page = lambda _number: None
        world.clock.advance(minutes=1)
        await world.tick()
        assert (await world.runs())[0]["state"] == "succeeded"

    in_world(database_url, story)


def test_a_run_that_kills_its_workers_is_given_up(database_url: str) -> None:
    """SPEC 5: after growing waits it ends as failed, so that it does not take every worker down for ever."""

    async def story(world: World) -> None:
        world.with_settings(retry=RetryPolicy(attempts=5))
        await prepare(world)
        await world_dispatch(world)
        waits = []
        for _ in range(5):
            (run,) = await world.runs()
            now = world.clock.now()
            assert len(await leases.lease(world.pool, [run["id"]], now, now + timedelta(seconds=15), "doomed")) == 1
            world.clock.advance(seconds=16)
            await sweep(world.parts, world.clock.now())
            (run,) = await world.runs()
            if run["state"] == "retrying":
                waits.append((run["not_before_at"] - world.clock.now()).total_seconds())
                world.clock.set(run["not_before_at"])
                await dispatch_ready(world.parts, world.clock.now())
        assert waits == [0, 0, 0, 16]
        assert (await world.runs())[0]["state"] == "failed"

    in_world(database_url, story)


def test_a_run_given_another_destination_begins_anew(database_url: str) -> None:
    """SPEC 5: what was delivered elsewhere is not in the new place, so the checkpoint does not count there."""

    async def story(world: World) -> None:
        await prepare(world)
        world.shop.on_page = lambda number: SourceUnavailable("reset") if number == 2 else None
        await world.tick()
        await world.pool.execute(
            """with other as (insert into destinations (name, kind, settings, sealed, fingerprint)
                              select 'other', kind, settings, sealed, 'g' from destinations returning id)
               update installations set destination_id = (select id from other)"""
        )
        await world.pool.execute("delete from delivered_rows")
        seal = world.parts.sealer.seal({}, "destination/other")
        await world.pool.execute("update destinations set sealed = $1 where name = 'other'", seal)
        world.clock.advance(minutes=1)
        await world.tick()
        assert world.shop.asked[-1].resume is None
        assert set(await world.delivered()) == {1, 2, 3, 4, 5, 6}

    in_world(database_url, story)


def test_a_run_whose_destination_is_edited_begins_anew(database_url: str) -> None:
    """SPEC 5: another schema or address under the same name is another place, and a period is not split over two."""

    async def story(world: World) -> None:
        await prepare(world)
        world.shop.on_page = lambda number: SourceUnavailable("reset") if number == 2 else None
        await world.tick()
        await world.pool.execute("update destinations set fingerprint = 'g'")
        await world.pool.execute("delete from delivered_rows")
        world.clock.advance(minutes=1)
        await world.tick()
        assert world.shop.asked[-1].resume is None
        assert set(await world.delivered()) == {1, 2, 3, 4, 5, 6}

    in_world(database_url, story)


@pytest.mark.parametrize("by", ["another declaration", "the revision before"])
def test_a_checkpoint_of_another_listing_does_not_count(database_url: str, by: str) -> None:
    """SPEC 5, HOLE s: a page token is a place in the listing that gave it. The run begins anew, clock and report as well,
    and its numbers of batches go on: none is given twice.
    """

    async def story(world: World) -> None:
        await prepare(world)
        world.shop.shortfall = "the filter left records out"
        world.shop.on_page = lambda number: SourceUnavailable("reset") if number == 3 else None
        await world.tick()
        (before,) = await world.runs()
        world.shop.shortfall = ""
        if by == "another declaration":
            world.shop.declared = "as corrected"
        else:
            kept = msgspec.json.decode(before["checkpoint"])
            kept["asked"] = kept["asked"].partition(" by ")[0]
            await world.pool.execute("update runs set checkpoint = $1", msgspec.json.encode(kept))
        world.clock.advance(minutes=1)
        await world.tick()
        (run,) = await world.runs()
        assert world.shop.asked[-1].resume is None
        assert world.shop.asked[-1].stop_after == world.clock.now()
        assert (run["state"], run["read_count"], run["inserted_count"]) == ("succeeded", 4 + 6, 6)
        assert run["batch"] > before["batch"]
        assert len(await world.pool.fetch("select 1 from coverage")) == 1

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
